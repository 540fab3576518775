"""The code has one place and the project another; hashes name files alike, wherever both are."""

import shutil
import tomllib

import pytest

from harness.store import code
from harness.study import folders


@pytest.fixture
def checkout(tmp_path):
    return a_project(tmp_path / "checkout")


@pytest.fixture
def packed(tmp_path):
    """Where a wheel was installed."""
    a_project(tmp_path / "site-packages" / "harness" / "project")
    return tmp_path / "site-packages"


def a_project(folder):
    for name in ("baselines", "reports/tables", "harness"):
        (folder / name).mkdir(parents=True)
    (folder / "Snakefile").touch()
    return folder


def test_a_checkout_is_both(tmp_path, checkout):
    assert folders.project(tmp_path, {}, checkout) == checkout
    assert folders.project(checkout, {}, checkout) == checkout


def test_the_working_folder_is_the_project_where_it_is_one(tmp_path, checkout, packed):
    mine = a_project(tmp_path / "mine")
    assert folders.project(mine, {}, checkout) == folders.project(mine, {}, packed) == mine
    (mine / "reports" / "tables").rmdir()  # somebody else's Snakefile
    assert folders.project(mine, {}, checkout) == checkout


def test_installed_and_in_no_project_it_is_what_came_with_the_code(tmp_path, packed):
    assert folders.project(tmp_path, {}, packed) == packed / "harness" / "project"


def test_the_snakefile_decides_where_there_is_one(tmp_path, checkout, packed):
    mine = a_project(tmp_path / "mine")
    for at in (tmp_path, checkout):
        assert folders.project(at, {folders.VARIABLE: str(mine)}, packed) == mine


def test_rules_name_what_is_below_the_working_folder_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folders.from_here(tmp_path / "reports") == "reports"
    assert folders.from_here(tmp_path.parent / "reports") == str(tmp_path.parent / "reports")


@pytest.mark.parametrize("place", ["site-packages", "mine/.venv/lib/site-packages"])
def test_hashes_name_files_alike_in_a_checkout_and_installed(tmp_path, monkeypatch, place):
    """The environment may lie in the project."""
    stage = "harness.denoiser.train"
    whole = code.sources(stage, folders.PROJECT / "baselines" / "dsr.py")
    shutil.copytree(folders.CODE / "harness", tmp_path / place / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folders.PROJECT / "baselines", tmp_path / "mine" / "baselines", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "CODE", tmp_path / place)
    monkeypatch.setattr(code, "PROJECT", tmp_path / "mine")
    code.read_anew()
    try:
        assert code.sources(stage, tmp_path / "mine" / "baselines" / "dsr.py") == whole
        assert code.changed(whole) == []
    finally:
        code.read_anew()


def test_a_wheel_carries_every_package_and_what_a_project_consists_of():
    settings = tomllib.loads((folders.CODE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {path.parent.relative_to(folders.CODE).as_posix().replace("/", ".") for path in folders.CODE.glob("harness/**/__init__.py")}
    assert sorted(settings["packages"]) == sorted({*packages, "harness.project"})
    assert tuple(settings["package-data"]["harness.project"]) == folders.FILES
