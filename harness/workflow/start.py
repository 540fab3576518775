"""What a Snakemake does first: find its own Python, and take over the lock of one that was killed."""

import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

from harness.store.locks import try_lock


def put_own_python_first() -> None:
    """Rules run `python -m harness`: let that be the interpreter of Snakemake (a rule's conda environment still comes before it)."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def take_over_dead_lock() -> None:
    """Remove the locks that a killed Snakemake left in this folder, if no other one is alive here; called while the Snakefile is parsed.

    Every Snakemake of the folder shares a lock of the kernel while it lives. Where another one does, its locks stay, and Snakemake
    itself refuses to run the same rules twice.
    """
    folder = Path(".snakemake")
    with suppress(OSError):  # a read-only folder, or a file system without locks: then Snakemake says what it finds
        folder.mkdir(exist_ok=True)
        alive = os.open(folder / "dsr.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # open, and so held, until this process ends
        if try_lock(alive, fcntl.LOCK_EX):
            for lock in (folder / "locks").glob("*.lock"):
                lock.unlink(missing_ok=True)
        fcntl.flock(alive, fcntl.LOCK_SH)
