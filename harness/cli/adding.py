"""What commands are to the parser, and an option that several have."""

import argparse
from collections.abc import Callable
from pathlib import Path

from harness.store.assets import ASSETS_FOLDER

Command = Callable[[argparse.Namespace], int]  # returns the exit code
Add = Callable[[str, Command, str], argparse.ArgumentParser]


def at_least(least: int, why: str = "") -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` on; `why`: what fewer would not do, for the message."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"at least {least}{why}; got {value}")
        return value

    return number


def add_assets(sub: argparse.ArgumentParser) -> None:
    told = "folder that the assets are in (default: assets)"
    sub.add_argument("--assets", type=Path, default=Path(ASSETS_FOLDER), metavar="PATH", help=told)
