"""Files that stages hand to one another: written atomically, each with a sidecar that says what it is and how it came about.

`x.safetensors` has `x.safetensors.meta.json` beside it: sha256, inputs with their sha256, config, source files with their hashes, commit,
versions, device, precision, seconds. A reader checks the sha256 first, so a truncated or changed file is refused by name.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.store import locks
from harness.store.code import hash_of, sources
from harness.store.files import atomic, remove_left_by_killed, sync, write_json
from harness.store.provenance import provenance
from harness.study.typed import UserError, digest

META = ".meta.json"
OWN = "record"  # field of a sidecar: digest of the others, because they hold numbers too
ANEW = "DSR_ANEW"  # environment variable: make what is there already once more
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)  # a disk that is full, or not for us


# ----------------------------------------------------------------------------------------------------------------- writing


class Finished(Exception):  # noqa: N818 (it is no error)
    """Another process has made the artifact, with the same record, while this one waited for it: there is nothing left to do."""


@contextmanager
def artifact(
    path: Path | str,
    /,
    *,
    stage: str,
    module: str,
    config: object = None,
    inputs: Iterable[Path | str] = (),
    scripts: Iterable[Path] = (),
    outcome: dict[str, Any] | None = None,
    **facts: object,
) -> Iterator[Path]:
    """Write an artifact: yields the temporary path; at the end the sidecar appears, then the artifact.

    `module` is the code that makes it, `scripts` are further source files that run (a method's); `facts` are further JSON values for the
    sidecar (seed, count, ...). `outcome`: those that are known only at the end of the block, which fills it. One process at a time: another
    one that makes the same is waited for.
    """
    path = Path(path)
    with _alone(path), _recorded(path, _record(stage, module, config, inputs, scripts, facts), outcome) as temporary:
        yield temporary


@contextmanager
def trained_artifact(
    path: Path | str,
    /,
    *,
    state: Path | str,
    stage: str,
    module: str,
    config: object,
    inputs: Iterable[Path | str] = (),
    scripts: Iterable[Path] = (),
    outcome: dict[str, Any] | None = None,
    beside: Sequence[Path] | None = None,
    **facts: object,
) -> Iterator[tuple[Path, Path]]:
    """An artifact that takes long: yields (temporary path, folder for checkpoints).

    The folder, below `state`, is named after everything that the result depends on, so a checkpoint can only be met by the run it
    belongs to; it is removed once the artifact is there, and stays when the block fails. Finished is raised where the block need not
    run: another process was waited for, and has made just this; or, where the block says what else it writes, `beside`, just this was made
    before, and all of it is there.
    """
    path = Path(path)
    with _alone(path) as how:
        record = _record(stage, module, config, inputs, scripts, facts)
        if how == "waited" and ready(path, record):
            raise Finished(f"{path}: made by the process that was waited for")
        if beside is not None and not os.environ.get(ANEW) and ready(path, record) and all(map(is_whole, beside)):
            raise Finished(f"{path}: made before")
        folder = Path(state) / f"{stage}-{digest(record)}"
        with _recorded(path, record, outcome) as temporary:
            yield temporary, folder
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[locks.How]:
    """Hold the lock of an artifact; a disk that is full or read-only is one line that names it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.hold(path) as how:
            if how != "unlocked":
                remove_left_by_killed(path)
                remove_left_by_killed(sidecar(path))
            yield how
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UserError(f"{path}: not made: {error}; make room or give access, then run the same command again") from error


@contextmanager
def _recorded(path: Path, record: dict[str, Any], outcome: dict[str, Any] | None) -> Iterator[Path]:
    """Yields the temporary path. A kill between sidecar and artifact leaves a sidecar that no reader accepts for what is there."""
    began = time.monotonic()
    with atomic(path) as temporary:
        yield temporary
        sync(temporary)  # before the sidecar: a disk that fills up here costs the old artifact nothing
        record |= (outcome or {}) | {"sha256": sha256(temporary), "seconds": round(time.monotonic() - began, 3), "provenance": provenance()}
        write_record(path, record)


def write_record(path: Path | str, record: dict[str, Any]) -> None:
    """The sidecar of `path`; `record` holds its sha256."""
    record = _plain(record)
    write_json(sidecar(path), record | {OWN: digest(record)})


def sidecar(path: Path | str) -> Path:
    """Where the record of an artifact is."""
    return Path(path).with_name(Path(path).name + META)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples, text for keys."""
    return json.loads(json.dumps(record))


def ready(path: Path | str, record: dict[str, Any]) -> bool:
    """Whether the artifact is there, as written, with this record (stage, config, inputs, code, facts), made by a process like this."""
    if not is_whole(path):
        return False
    there = meta(path)
    return all(there.get(key) == value for key, value in _plain(record | {"provenance": provenance()}).items())


def is_whole(path: Path | str) -> bool:
    """Whether the artifact is there, as written."""
    try:
        checked(path)
    except UserError:
        return False
    return True


def _record(
    stage: str, module: str, config: object, inputs: Iterable[Path | str], scripts: Iterable[Path], facts: dict[str, object]
) -> dict[str, Any]:
    config = config.model_dump(mode="json") if hasattr(config, "model_dump") else config
    files = sources(module, *scripts)
    code = {"code": hash_of(files), "sources": files}
    return {"stage": stage, "config": config, "inputs": {str(i): checked(i) for i in inputs}, **code, **facts}


# ----------------------------------------------------------------------------------------------------------------- reading


def sha256(path: Path | str) -> str:
    """Of a file, or of a folder's files and their names."""
    path = Path(path)
    if path.is_dir():
        files = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        names = sorted((p.relative_to(path).as_posix() for p in files), key=os.fsencode)
        lines = [os.fsencode(name) + f" {sha256(path / name)}".encode() for name in names]  # whatever the locale takes the names for
        return hashlib.sha256(b"\n".join(lines)).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def meta(path: Path | str) -> dict[str, Any]:
    """The sidecar of an artifact."""
    file = sidecar(path)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.pop(OWN, None) == digest(record):
            return record
    except FileNotFoundError:
        raise UserError(f"{path}: its record {file.name} is missing; delete {path} and run the same command again") from None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, nested too deeply
        pass
    raise UserError(f"{file}: not as it was written; delete it and {path}, then run the same command again")


def checked(path: Path | str) -> str:
    """The artifact's sha256, after comparing it with its record. UserError if the file is missing or not what was written."""
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; run the stage that makes it, or the whole line again")
    wanted, actual = meta(path).get("sha256"), sha256(path)
    if wanted != actual:
        raise UserError(
            f"{path}: corrupted or truncated: sha256 is {actual[:16]}..., {str(wanted)[:16]}... was recorded; "
            "delete it and run the same command again"
        )
    return actual


def read_json(path: Path | str) -> dict[str, Any]:
    """A JSON artifact, compared with its record."""
    checked(path)
    return json.loads(Path(path).read_text(encoding="utf-8"))
