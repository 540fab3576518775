"""A set of samples in shards, each an artifact with the images `first` to `stop` - 1: what is missing, and all of them in one."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.store import artifacts
from harness.store.files import save_npz
from harness.study.typed import UserError


def split(count: int, batch: int) -> list[range]:
    """The indices of each shard."""
    return [range(first, min(first + batch, count)) for first in range(0, count, batch)]


def write(folder: Path, indices: range, **arrays: np.ndarray) -> None:
    """A shard of the images `indices`; each array is (len(indices), ...)."""
    with artifacts.artifact(_path(folder, indices), stage="shard", module=__name__, first=indices.start, stop=indices.stop) as path:
        save_npz(path, arrays)


def missing_shards(folder: Path, indices: Sequence[range]) -> list[range]:
    """Those that are still to be drawn. One that is not what was written counts as missing, with a line on stderr."""
    return [part for part in indices if not _is_there(_path(folder, part))]


def assemble(folder: Path, count: int) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The arrays of all shards of a folder, (count, ...) each in the order of the indices; the manifest: first, stop and sha256 of each.

    UserError if a shard is not what was written, or if they are not the images 0 to `count` - 1, each once.
    """
    shards = sorted((_indices(path) for path in folder.glob("shard-*.npz")), key=lambda part: (part.start, part.stop))
    wrong, done = [], 0
    for part in [*shards, range(count, count)]:
        if part.start > done:
            wrong.append(f"{done} to {part.start - 1} are missing")
        elif part.start < done:
            wrong.append(f"{part.start} to {min(part.stop, done) - 1} are there twice" if part else f"{count} to {done - 1} are too many")
        done = max(done, part.stop)
    if wrong:
        raise UserError(f"{folder}: of {count} images, {', '.join(wrong)}; delete it and run the same command again")
    manifest, parts = [], []
    for part in shards:
        path = _path(folder, part)
        manifest.append({"first": part.start, "stop": part.stop, "sha256": artifacts.checked(path)})
        with np.load(path, allow_pickle=False) as file:
            parts.append({name: file[name] for name in file.files})
        if any(len(array) != len(part) for array in parts[-1].values()):
            raise UserError(f"{path}: does not hold {len(part)} images; delete {folder} and run the same command again")
    return {name: np.concatenate([arrays[name] for arrays in parts]) for name in parts[0]}, manifest


def _path(folder: Path, indices: range) -> Path:
    return folder / f"shard-{indices.start}-{indices.stop}.npz"


def _indices(path: Path) -> range:
    return range(*map(int, path.stem.split("-")[1:]))


def _is_there(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        artifacts.checked(path)
    except UserError:
        print(f"{path}: not as it was written, so it is drawn again", file=sys.stderr, flush=True)
        return False
    return True
