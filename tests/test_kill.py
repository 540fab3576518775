"""SIGKILL to the whole process group at random moments of the study `smoke`: the same command goes on, and ends in the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from checkouts import checkout, finish, start

from harness.store import artifacts

KILLS = 20


def killed(folder: Path, least: int, most: int, seconds: float | None) -> bool:
    """Kill a run `seconds` after it has `least` artifacts, or (None) as soon as it then writes a checkpoint or a shard; at `most` artifacts
    in any case. Whether there was something left to kill."""
    process, before = start(folder), states(folder)
    try:
        while process.poll() is None and (count := len(made(folder))) < most:
            if count >= least and (seconds is not None or states(folder) != before):
                break
            time.sleep(0.02)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds or 0)
    finally:
        left = process.poll() is None
        if left:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return left


def files(folder: Path) -> list[Path]:
    """What is in a folder in which files come and go."""
    return [Path(where, name) for where, _, names in os.walk(folder) for name in names]


def states(folder: Path) -> set[tuple[str, int]]:
    """What is kept of unfinished work, and since when."""
    kept = set()
    for path in files(folder / "results" / "smoke" / "state"):
        with suppress(FileNotFoundError):
            kept.add((path.parent.name, path.stat().st_mtime_ns))
    return kept


def made(folder: Path) -> list[Path]:
    """Every artifact that a stage hands on."""
    results = folder / "results" / "smoke"
    records = [path for path in files(results) if path.name.endswith(artifacts.META) and not path.name.startswith(".")]
    return [path.with_name(path.name.removesuffix(artifacts.META)) for path in records if "state" not in path.relative_to(results).parts]


def hashes(folder: Path) -> dict[str, str]:
    """Of every artifact by name, and of the rows. Records have seconds in them, which differ."""
    sums = {path.relative_to(folder).as_posix(): artifacts.checked(path) for path in made(folder)}
    return sums | {name: artifacts.sha256(folder / "reports" / "smoke" / name) for name in ("table1.csv", "table1.md")}


@pytest.fixture
def tree(tmp_path):
    return checkout(tmp_path / "tree")


@pytest.fixture
def reference(tree, tmp_path):
    """The same, of a run that nobody disturbed; DSR_SMOKE_REFERENCE names a folder that has one, made by the same code."""
    given = os.environ.get("DSR_SMOKE_REFERENCE")
    return hashes(Path(given) if given else finish(shutil.copytree(tree, tmp_path / "undisturbed")))


@pytest.mark.slow
def test_twenty_kills_change_no_byte(tree, reference):
    """They come after each twentieth of the artifacts: in turn up to four seconds later, and in the midst of training or sampling."""
    moments, kills, hit, each = random.Random(0), 0, set(), len(reference) / KILLS
    while kills < KILLS:
        seconds = None if kills % 2 and kills < 0.7 * KILLS else moments.uniform(0, 4)  # nothing is trained at the end
        if killed(tree, int(kills * each), int((kills + 3) * each), seconds):
            kills += 1
            hit |= {name.rpartition("-")[0] for name, _ in states(tree)}
        else:  # done before the twentieth: once more from the latents on, as Snakemake makes only what a missing report needs
            for folder in (tree / "results" / "smoke" / "runs", tree / "reports" / "smoke"):
                shutil.rmtree(folder)
            (tree / "reports" / "table1.md").unlink()
    finish(tree)
    assert hashes(tree) == reference
    assert "denoiser" in hit
    assert not [path for path in tree.glob("results/**/.*") if path.suffix in (".tmp", ".lock")]
    print(
        f"killed in the midst of {', '.join(sorted(hit))}; "
        f"resumed {(tree / 'log.txt').read_text(encoding='utf-8').count('resumed at step')} times"
    )
