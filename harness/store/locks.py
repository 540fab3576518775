"""Locks that the kernel keeps (flock): a dead owner's is gone by itself, so nothing here asks a clock or whether a process lives."""

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # answers of file systems without flock

How = Literal["at once", "waited", "unlocked"]


@contextmanager
def hold(path: Path | str) -> Iterator[How]:
    """Be the only process that makes `path` until the end of the block.

    Another one is named on stderr and waited for; the block gets `waited` then, and `unlocked`, after a line on stderr, where the file
    system has no locks. The lock is a file beside `path` which says who holds it; it is removed at the end.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        file, how = _obtain(lock, path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{path}: this file system has no locks, so let nothing else make it meanwhile", file=sys.stderr, flush=True)
        yield "unlocked"
        return
    try:
        with suppress(OSError):  # a full disk; it is for a message only
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        yield how
    finally:
        lock.unlink(missing_ok=True)  # before it is let go: afterwards it may be another's
        os.close(file)


def _obtain(lock: Path, path: Path) -> tuple[int, How]:
    """The open, locked file."""
    how: How = "at once"
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not try_lock(file, fcntl.LOCK_EX):
                how = "waited"
                owner = os.pread(file, 200, 0).decode(errors="replace") or "another process"
                print(f"{path}: waiting for {owner}, which is making it", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(lock)):
                    return file, how
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its last owner has removed it from under us


def try_lock(file: int, kind: int) -> bool:
    """Lock an open file without waiting (fcntl.LOCK_EX or LOCK_SH); whether that worked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
