"""Copies of the working tree in which Snakemake runs the study `smoke`, for tests that kill it or change its code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.study.typed import ROOT

COMMAND = [sys.executable, "-m", "snakemake", "--cores", "2", "reports/table1.md", "--config", "study=smoke"]

# Checkpoints as often as training looks at its loss: `smoke` trains for seconds. Set from outside, so that no code hash changes.
OFTEN = """
import importlib.util, sys

class Often:
    def find_spec(self, name, path, target=None):
        if name != "harness.training.loop":
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
    (folder / "often" / "sitecustomize.py").write_text(OFTEN, encoding="utf-8")
    return folder


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(folder / "often")}
    with open(folder / "log.txt", "a", encoding="utf-8") as log:
        return subprocess.Popen(COMMAND, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def finish(folder: Path) -> Path:
    assert start(folder).wait() == 0, (folder / "log.txt").read_text(encoding="utf-8")[-5000:]
    return folder
