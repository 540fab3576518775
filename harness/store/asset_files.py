"""The files of an asset: names, sizes, times and SHA-256 as they were recorded, and which of them are others now.

A size or time that differs is only a hint: the file is hashed then, so that a touched one is the same and a repainted one is not. What goes
unseen is a change of a folder's file that keeps both size and time, until the folder is recorded or traced again, where all is hashed.
"""

import hashlib
import json
import os
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from harness.store.files import write_text
from harness.study.typed import UserError

HASHERS = 8  # threads; hashing leaves Python's lock
ANNOUNCED = 10**9  # bytes; who hashes more says so
JSON = ".json"  # suffix of what is read beside the weights of a folder


class Facts(NamedTuple):
    """Of a file: bytes, and the time of its last change in nanoseconds."""

    size: int
    time: int


def facts_of(path: Path, file: str | None = None) -> dict[str, Facts]:
    """Of each file of an asset, by its name below `path`, in order; a file's own name is "".

    Of a folder with weights `file` it is these and the JSON files beside them, else all; hidden files and folders are nobody's. UserError
    where it cannot be looked at.
    """
    try:
        return _facts_of(path, file)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from None


def _facts_of(path: Path, file: str | None) -> dict[str, Facts]:
    if not path.is_dir():
        return {"": _facts(path.stat())}
    if file is None:
        return dict(sorted(_walk(path, "", frozenset())))
    beside = (path / file).parent.glob(f"*{JSON}")
    names = {file} | {one.relative_to(path).as_posix() for one in beside if one.is_file() and not one.name.startswith(".")}
    return {name: _facts((path / name).stat()) for name in sorted(names)}


def _facts(status: os.stat_result) -> Facts:
    return Facts(status.st_size, status.st_mtime_ns)


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, Facts]]:
    """Links are followed, but not into a folder that holds them."""
    status = folder.stat()
    inside = above | {(status.st_dev, status.st_ino)}
    if len(inside) == len(above):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", inside)
            elif entry.is_file():
                yield prefix + entry.name, _facts(entry.stat())


def stamp(path: Path, files: Mapping[str, Facts]) -> str:
    """Path, size and time of an asset, in one line that differs where one of them does."""
    if "" in files:
        return f"{path}: {files[''].size} bytes, {files[''].time}"
    lines = "\n".join(f"{name} {facts.size} {facts.time}" for name, facts in files.items())
    return f"{path}: {len(files)} files, {total(files)} bytes, {digest_of(lines)[:16]}"


def digest_of(lines: str) -> str:
    """SHA-256 of text that holds names as the system gave them, in whatever locale."""
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def total(files: Mapping[str, Facts]) -> int:
    """Bytes."""
    return sum(facts.size for facts in files.values())


# ----------------------------------------------------------------------------------------------------------------- hashing


def hashes(path: Path, files: Mapping[str, Facts], known: Mapping[str, tuple[Facts, str]] | None = None) -> dict[str, str]:
    """SHA-256 of each file; of one that `known` has with the same size and time it is the one from there."""
    known = known or {}
    there = {name: known[name][1] for name, facts in files.items() if name in known and known[name][0] == facts}
    left = {name: facts for name, facts in files.items() if name not in there}
    if (size := total(left)) > ANNOUNCED:
        print(f"hashing {path}, {size / 1e9:.2f} GB", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(HASHERS) as pool:
        there |= dict(zip(left, pool.map(lambda name: sha256(path / name), left), strict=True))
    return {name: there[name] for name in files}


def sha256(path: Path) -> str:
    """Of a file, read once by a process for each of its states; UserError if it changes meanwhile."""
    try:
        return _sha256(str(path), _state(path.stat()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (*_facts(status), status.st_ctime_ns, status.st_ino)


@lru_cache(maxsize=64)
def _sha256(path: str, state: tuple[int, ...]) -> str:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _state(os.fstat(file.fileno())) != state:
            raise UserError(f"{path}: changes while it is read; wait until it is whole, then run the same command again")
    return digest


# ------------------------------------------------------------------------------------------------------------- the listing


@dataclass(frozen=True)
class Listing:
    """The files of a folder when it was recorded, in the order of their names."""

    names: list[str]
    sizes: list[int]
    times: list[int]
    sha256: list[str]

    @classmethod
    def of(cls, files: Mapping[str, Facts], sha256: Mapping[str, str]) -> "Listing":
        return cls(list(files), [f.size for f in files.values()], [f.time for f in files.values()], [sha256[name] for name in files])

    def write(self, path: Path) -> str:
        """Returns the SHA-256 of what is written."""
        text = json.dumps(vars(self))
        write_text(path, text)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path, wanted: str | None) -> "Listing | None":
        """None where it is not what was written, with the SHA-256 `wanted`."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        return cls(**json.loads(content)) if hashlib.sha256(content).hexdigest() == wanted else None

    def known(self) -> dict[str, tuple[Facts, str]]:
        """name -> (size and time, SHA-256)."""
        facts = map(Facts, self.sizes, self.times)
        return {name: (one, sha) for name, one, sha in zip(self.names, facts, self.sha256, strict=True)}

    def change(self, path: Path, name: str, facts: Facts | None = None) -> str | None:
        """What is different about a file below `path`; None where it is as it was recorded. `facts`: those of now, if they are known."""
        row = bisect_left(self.names, name)
        if row == len(self.names) or self.names[row] != name:
            return "is new"
        if facts is None:
            try:
                facts = _facts((path / name).stat())
            except OSError as error:
                return "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        if facts == (self.sizes[row], self.times[row]):
            return None
        same = facts.size == self.sizes[row] and sha256(path / name) == self.sha256[row]
        return None if same else "has changed"
