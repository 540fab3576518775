"""Which files below a folder are images: in every split alike, by the suffixes of the formats that harness/data/reader.py reads."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.data.reader import FORMATS, printable
from harness.study.typed import UserError

SUFFIXES = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
OPTIONAL = {"AVIF": "avif", "WEBP": "webp"}  # formats that a Pillow may have been built without
NOBODYS = "__MACOSX"  # what a Mac's archives bring along


class Listing(NamedTuple):
    images: list[str]  # relative to the root, "/" between folders, sorted
    others: list[str]  # files whose suffix is no image's


@cache
def suffixes() -> frozenset[str]:
    """In lower case, of what this Pillow reads."""
    from PIL import features

    known = [name for name in FORMATS if name not in OPTIONAL or features.check(OPTIONAL[name])]
    return frozenset(suffix for name in known for suffix in SUFFIXES[name])


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is nobody's: `._x.png`, `.ipynb_checkpoints`."""
    return name.startswith(".") or name == NOBODYS


def subfolders(root: Path) -> list[Path]:
    """The folders right below `root`, hidden ones left out, sorted."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not hidden(path.name))


def list_images(root: Path, folder: Path | None = None) -> Listing:
    """Every file at or below `folder` (default: `root`), also behind links to folders; hidden files and folders are left out."""
    images: list[str] = []
    others: list[str] = []
    known = suffixes()
    for directory, folders, files in os.walk(folder or root, onerror=_unreadable, followlinks=True):
        folders[:] = [name for name in folders if not hidden(name)]
        _no_circle(Path(directory), folders)
        for name in files:
            if not hidden(name):
                path = Path(directory, name)
                (images if path.suffix.lower() in known else others).append(path.relative_to(root).as_posix())
    return Listing(sorted(images), sorted(others))


def _unreadable(error: OSError) -> None:
    """A folder that cannot be listed would be left out without a word."""
    raise UserError(f"{printable(str(error.filename))}: a folder that cannot be read ({error.strerror}); give access, or remove it")


def _no_circle(directory: Path, folders: list[str]) -> None:
    for link in (path for name in folders if (path := directory / name).is_symlink()):
        if directory.resolve().is_relative_to(link.resolve()):
            raise UserError(f"{printable(link)}: a link to a folder that it is in; remove it and run the same command again")


def not_read(root: Path, others: Sequence[str]) -> str:
    """One line that names the files which are no images: how many of each suffix, and one of them."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name in others:
        suffix = Path(name).suffix.lower() or "no suffix"
        first.setdefault(suffix, name)
        counts[suffix] += 1
    kinds = ", ".join(f"{count} {suffix} (such as {first[suffix]})" for suffix, count in sorted(counts.items()))
    return printable(f"{root}: not read as images: {kinds}")
