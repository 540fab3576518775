"""Snakemake started from another folder: code, methods and specifications are the Snakefile's, results lie where the run is."""

import os
import subprocess
import sys

import pytest

from harness.study.typed import ROOT

SNAKEMAKE = [sys.executable, "-P", "-m", "snakemake", "--config", "study=smoke", "methods=[baseline]"]
BAIT = "raise SystemExit('imported from the folder that the run is in')\n"


def snakemake(*arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "PYTHON"))}
    done = subprocess.run([*SNAKEMAKE, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with a space, and with a package that has the name of ours."""
    folder = tmp_path / "my runs"
    (folder / "harness").mkdir(parents=True)
    (folder / "harness" / "__init__.py").write_text(BAIT, encoding="utf-8")
    return folder


def test_a_run_from_another_folder_is_planned(elsewhere):
    printed = snakemake("-s", ROOT / "Snakefile", "-n", "-p", "--", "reports/table1.md", cwd=elsewhere)
    assert f"--spec {ROOT}/reports/tables/table1.yaml --out reports/smoke/table1.md" in printed
    assert {path.name for path in elsewhere.iterdir()} == {".snakemake", "harness"}


@pytest.mark.slow
def test_results_lie_where_the_run_is(elsewhere, tmp_path):
    before = {path.name for path in ROOT.iterdir()}
    target = "results/smoke/data"
    snakemake("-s", ROOT / "Snakefile", "--cores", "1", "--", target, cwd=elsewhere)
    snakemake("--directory", elsewhere, "--cores", "1", "--forcerun", "data", "--", target, cwd=ROOT)
    assert "Nothing to be done" in snakemake("-s", ROOT / "Snakefile", "--directory", elsewhere, "-n", "--", target, cwd=tmp_path)
    assert (elsewhere / "results" / "smoke" / "data").is_dir()
    assert (elsewhere / "results" / "smoke" / "logs" / "data.log").is_file()
    assert {path.name for path in ROOT.iterdir()} <= {*before, ".snakemake"}
    assert {path.name for path in tmp_path.iterdir()} == {"my runs"}
