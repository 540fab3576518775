"""The files that a study's user supplies: which are there, and which of them are known to be the right ones."""

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.store import artifacts
from harness.store.assets import place
from harness.study.sections.asset import Asset

HASHED = 10**9  # bytes; larger files are hashed only when asked for
DIGITS = 12  # of a sha256, shown
AssetState = Literal["missing", "wrong size", "wrong sha256", "verified", "present", "present, not hashed"]


class Examined(BaseModel):
    """A file that the study's user supplies. `bytes`: as found, or else as the study says."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    source: str
    state: AssetState
    detail: str = ""
    bytes: int | None = None


def examine(name: str, asset: Asset, root: Path, check: bool) -> Examined:
    """The state of an asset; of a folder, that of the file that the study names. No folder is walked."""
    path = place(asset, root)
    file = path / asset.file if asset.file else path
    size = asset.bytes
    if not file.exists():
        state, detail = "missing", f"no {asset.file} in the folder" if path.is_dir() else ""
    elif file.is_dir():
        state, detail = "present", "a folder, not looked into"
    else:
        size = file.stat().st_size
        state, detail = _compare(asset, file, size, check)
    return Examined(name=name, path=path, source=asset.source, state=state, detail=detail, bytes=size)


def _compare(asset: Asset, file: Path, size: int, check: bool) -> tuple[AssetState, str]:
    """(state, detail) of a file. It is hashed if its sha256 is known: up to HASHED bytes, or with `check` whatever its size."""
    if asset.bytes and size != asset.bytes and not asset.file:  # of a folder, the study says a rough size
        return "wrong size", f"{size:,} bytes, not {asset.bytes:,}"
    if asset.sha256 is None:
        return "present", "no sha256 to compare with"
    if size > HASHED and not check:
        return "present, not hashed", ""
    if size > HASHED:
        print(f"hashing {file}, {size / 1e9:.2f} GB", file=sys.stderr, flush=True)
    actual = artifacts.sha256(file)
    if actual.startswith(asset.sha256):
        return "verified", ""
    return "wrong sha256", f"{actual[:DIGITS]}, not {asset.sha256[:DIGITS]}"
