"""`dsr init` lays down a project, or nothing; a wheel carries all of it and runs where there is no checkout."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness.cli import main as cli
from harness.commands.init import lay_down
from harness.study import folders
from harness.study.typed import ROOT, UserError


def below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_project_is_laid_down(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "new" / "one"
    monkeypatch.setattr(sys, "argv", ["dsr", "init", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert f"files in {folder}" in capsys.readouterr().out
    for name in ("Snakefile", "profiles/default/profile.yaml", "baselines/dsr.py", "reports/tables/table1.yaml", "reports/claims.yaml",
                 "reports/figures.yaml", "envs/constraints.txt"):  # fmt: skip
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert not (folder / "harness").exists()
    assert folders.project(folder, {}) == folder


def test_a_folder_with_other_files_keeps_them(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "thesis.tex").write_text("mine", encoding="utf-8")
    assert "Snakefile" in lay_down(tmp_path)
    assert (tmp_path / "reports" / "thesis.tex").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["Snakefile", "baselines/dsr.py", "reports/claims.yaml"])
def test_a_folder_that_has_one_of_the_files_is_refused_and_left_as_it_is(tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine", encoding="utf-8")
    before = below(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dsr", "init", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path}: has {name} already; nothing was written: name another folder, or move them away\n"
    assert below(tmp_path) == before
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["", "reports", "profiles/default"])
def test_a_file_in_the_place_of_a_folder_leaves_nothing_half_written(tmp_path, name):
    folder = tmp_path / "new"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("mine", encoding="utf-8")
    before = below(tmp_path)
    with pytest.raises(UserError, match="nothing was written"):
        lay_down(folder)
    assert below(tmp_path) == before


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What a wheel installs, in a folder without a checkout; built of the working tree's files."""
    if int(metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml asks for, and a newer one would have to be downloaded")
    place = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = [*pip, "wheel", place / "source", "--no-deps", "--no-build-isolation", "-q", "-w", place]
    subprocess.run(built, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "-q", "--target", place / "site", wheel], check=True, capture_output=True)
    return place / "site"


@pytest.mark.slow
def test_a_wheel_runs_without_a_checkout(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DSR_", "PYTHON"))}
    environment["PYTHONPATH"] = str(installed)

    def python(*arguments, cwd, code=0):
        done = subprocess.run([sys.executable, "-P", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dsr(*arguments, cwd=tmp_path, code=0):
        return python("-m", "harness", *arguments, cwd=cwd, code=code)

    assert "init" in dsr("--help")
    assert "DSR" in dsr("plan", "digits")
    (golden, *_) = sorted((ROOT / "tests" / "data").glob("*.safetensors"))
    assert dsr("parity", str(golden))
    assert dsr("verify", "none.zip", code=2).startswith("error: none.zip")
    assert below(tmp_path) == []

    project = tmp_path / "my project"
    dsr("init", str(project))
    assert dsr("init", str(project), code=2).count("\n") == 1
    assert below(project) == sorted({*below(project)} & {*below(ROOT)})
    run = ["-m", "snakemake", "--cores", "1", "--config", "study=smoke", "methods=[baseline,dsr]", "--"]
    assert "denoiser" in python(*run[:-1], "-n", "--", "reports/all", cwd=project)
    python(*run, "results/smoke/data", cwd=project)
    (project / "harness" / "studies").mkdir(parents=True)
    (project / "harness" / "studies" / "mine.yaml").write_text("extends: smoke\ntitle: mine\n", encoding="utf-8")
    assert "results/mine/" in python(*run[:-3], "study=mine", "-n", "--", "reports/table1.md", cwd=project)
    record = (project / "results" / "smoke" / "data.meta.json").read_text(encoding="utf-8")
    assert '"version ' in record
    assert '"harness/data/digits.py"' in record
    hashed = "from harness.store import code; from harness.study.method import METHODS as M; print(M); "
    hashed += "print(code.code_hash('harness.denoiser.train', M / 'dsr.py'))"
    methods, installed_hash = python("-c", hashed, cwd=project).split("\n")[:2]
    assert Path(methods) == project / "baselines"
    environment["PYTHONPATH"] = str(ROOT)
    assert python("-c", hashed, cwd=ROOT).split("\n")[:2] == [str(ROOT / "baselines"), installed_hash]
