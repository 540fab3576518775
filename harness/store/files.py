"""Writing files whole or not at all: a name points at what was there before or at what is complete and on the disk, never at a part."""

import errno
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it at the end of the block, on the disk by then; removed if the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _sync_names(path.parent)
    except BaseException:
        _remove(temporary)
        raise


def there_of(path: Path) -> Path:
    """`path`, or the nearest of the folders above it, that is there: what says whether it can be written, and how much room there is."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def sync(path: Path) -> None:
    """Wait until a file, or all of a folder, is on the disk."""
    for file in [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]:
        with open(file, "rb") as content:
            os.fsync(content.fileno())
    for folder in [path, *path.rglob("*/")] if path.is_dir() else []:
        _sync_names(folder)


def _sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can do that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_left_by_killed(path: Path) -> None:
    """Remove temporaries of `path`; only for who knows that nobody else is writing it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _remove(temporary)


def emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_text(path: Path | str, text: str) -> None:
    """A text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """A JSON file with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def save_npz(path: Path, arrays: Mapping[str, "np.ndarray"], *, compressed: bool = False) -> None:
    """Named arrays of any shape, at just this path: one that `atomic` or an artifact yields, so that they appear whole or not at all."""
    import numpy as np  # the Snakefile reads this module, and no array

    with open(path, "wb") as file:  # a file object: numpy would add .npz to a temporary name
        save: Callable[..., None] = np.savez_compressed if compressed else np.savez
        save(file, **arrays)
