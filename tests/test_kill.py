"""SIGKILL to the whole process group at random moments of the study `smoke`: the same command goes on, and ends in the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness import artifacts
from harness.config import ROOT

KILLS = 20
COMMAND = [sys.executable, "-m", "snakemake", "--cores", "2", "reports/table1.md", "--config", "study=smoke"]


# Checkpoints as often as training looks at its loss: `smoke` trains for seconds. Set from outside, so that no code hash changes.
OFTEN = """
import importlib.util, sys

class Often:
    def find_spec(self, name, path, target=None):
        if name != "harness.train.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), setattr(module, "SAVE_EVERY", 0.0))
        return spec

sys.meta_path.insert(0, Often())
"""


def checkout(folder: Path) -> Path:
    """The working tree as it is, with its commit."""
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, folder], check=True)
    shutil.rmtree(folder / "harness")
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "often").mkdir()
    (folder / "often" / "sitecustomize.py").write_text(OFTEN)
    return folder


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(folder / "often")}
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(COMMAND, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def finish(folder: Path) -> Path:
    assert start(folder).wait() == 0, (folder / "log.txt").read_text()[-5000:]
    return folder


def killed(folder: Path, seconds: float, working: bool) -> bool:
    """Kill a run `seconds` after its start, or after its first job's; whether there was something left to kill."""
    log = folder / "log.txt"
    known = log.stat().st_size if log.exists() else 0
    process = start(folder)
    while working and process.poll() is None and b"Select jobs to execute" not in log.read_bytes()[known:]:
        time.sleep(0.1)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    left = process.poll() is None
    if left:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return left


def hashes(folder: Path) -> dict[str, str]:
    """Of every artifact by name, and of the rows. Records have seconds in them, which differ."""
    results = folder / "results" / "smoke"
    records = [path for path in results.rglob(f"*{artifacts.META}") if "state" not in path.relative_to(results).parts]
    made = [path.with_name(path.name.removesuffix(artifacts.META)) for path in records]
    found = {path.relative_to(folder).as_posix(): artifacts.checked(path) for path in made}
    return found | {name: artifacts.sha256(folder / "reports" / "smoke" / name) for name in ("table1.csv", "table1.md")}


@pytest.fixture
def tree(tmp_path):
    return checkout(tmp_path / "tree")


@pytest.fixture
def reference(tree, tmp_path):
    """(hashes, seconds) of a run that nobody disturbed; DSR_SMOKE_REFERENCE names a folder that has one, made by the same code."""
    if given := os.environ.get("DSR_SMOKE_REFERENCE"):
        return hashes(Path(given)), 60.0
    began = time.monotonic()
    folder = finish(shutil.copytree(tree, tmp_path / "undisturbed"))
    return hashes(folder), time.monotonic() - began


@pytest.mark.slow
def test_twenty_kills_change_no_byte(tree, reference):
    """One kill in five comes before the first job; the others wander through training, sampling and scoring as the run goes on."""
    wanted, seconds = reference
    moments, kills, trained = random.Random(0), 0, set()
    while kills < KILLS:
        if killed(tree, moments.uniform(0, seconds / 6), working=kills % 5 != 0):
            kills += 1
            trained |= {path.name.rpartition("-")[0] for path in (tree / "results" / "smoke" / "state").glob("*")}
        else:  # done before the twentieth: once more from the latents on
            shutil.rmtree(tree / "results" / "smoke" / "runs")
    finish(tree)
    assert hashes(tree) == wanted
    assert trained, "no kill fell into a training"
    assert not [path for path in tree.glob("results/**/.*") if path.suffix in (".tmp", ".lock")]
    print(f"killed in the midst of {', '.join(sorted(trained))}; resumed {(tree / 'log.txt').read_text().count('resumed at step')} times")
