"""What a command does first, be it Snakemake or `dsr`: UTF-8, its own Python, and the lock of one that was killed."""

import fcntl
import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.store.artifacts import ANEW
from harness.store.locks import try_lock
from harness.study.folders import CODE, PROJECT, original

HUGE_PAGES = "glibc.malloc.hugetlb"


def in_utf8() -> None:
    """Start this command anew with texts, names of files and output in UTF-8, as its files are, where the locale says otherwise.

    Python takes the encoding of file names once, when it starts. What the command runs inherits it.
    """
    os.environ["PYTHONUTF8"] = "1"
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):  # PYTHONIOENCODING is as its user wants it, and no reason to stop
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def put_own_python_first() -> None:
    """Rules run `python -m harness`: let that be the interpreter of Snakemake (a rule's conda environment still comes before it)."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def put_own_code_first() -> None:
    """Let jobs import the `harness` that the Snakefile has, and what methods share, whatever lies in the folder that they run in."""
    checkout = [CODE] if original() == CODE else []  # what is installed is found anyway
    paths = [*map(str, dict.fromkeys([*checkout, PROJECT])), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), PYTHONSAFEPATH="1")


def ask_for_huge_pages() -> None:
    """Let jobs' memory lie in pages of 2 MiB, where Linux gives them to who asks: a fifth to a quarter of a training step on a CPU is spent
    on finding pages of 4 KiB. glibc reads this when a process starts; what a user has set stays.
    """
    set_already = os.environ.get("GLIBC_TUNABLES", "")
    if HUGE_PAGES not in set_already:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [set_already, f"{HUGE_PAGES}=1"]))


def make_forced_anew(settings: Any) -> None:
    """Tell jobs to leave nothing as it is, where Snakemake's DAG `settings` force any: what seeds share a job for it does not remove."""
    if settings.forceall or settings.forcerun or settings.forcetargets:
        os.environ[ANEW] = "1"


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


@contextmanager
def importing() -> Iterator[None]:
    """Without the garbage collector, which finds nothing in what is being imported, a sixth of the time that torch takes; see below."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        collect_what_is_new()


def collect_what_is_new() -> None:
    """Spare what has been imported by now, which lives to the end, the garbage collector's rounds: a tenth of a job, and of a dry run."""
    gc.freeze()
