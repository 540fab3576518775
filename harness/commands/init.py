"""`dsr init`: a project in a folder of its own, from what came with the code."""

import os
from pathlib import Path

from harness.study.folders import FILES, original
from harness.study.typed import UserError


def lay_down(folder: Path) -> list[str]:
    """Copy the files of a project into `folder`; their names. UserError, and nothing written, where it has one of them."""
    source = original()
    names = sorted(path.relative_to(source).as_posix() for pattern in FILES for path in source.glob(pattern) if path.name[0] != ".")
    if there := [name for name in names if os.path.lexists(folder / name)]:
        more = f" and {len(there) - 1} more of a project's files" if len(there) > 1 else ""
        raise UserError(f"{folder}: has {there[0]}{more} already; nothing was written: name another folder, or move them away")
    made: list[Path] = []
    try:
        for name in names:
            _make_folder((folder / name).parent, made)
            with open(folder / name, "xb") as file:
                made.append(folder / name)
                file.write((source / name).read_bytes())
    except BaseException as error:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, OSError):
            raise UserError(f"{folder}: {error.filename or name}: {error.strerror}; nothing was written: name another folder") from None
        raise
    return names


def _make_folder(folder: Path, made: list[Path]) -> None:
    if not folder.is_dir():
        if folder.parent != folder:
            _make_folder(folder.parent, made)
        folder.mkdir()
        made.append(folder)
