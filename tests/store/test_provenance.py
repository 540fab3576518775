"""The commit that a number names is the project's own, or none."""

import subprocess
from importlib import metadata

import pytest

from harness.store import provenance


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def commit_in(monkeypatch):
    """commit_in(folder): what `commit` says where the code is in that folder."""

    def ask(folder):
        monkeypatch.setattr(provenance, "CODE", folder)
        monkeypatch.setattr(provenance, "PROJECT", folder)
        provenance.commit.cache_clear()
        return provenance.commit()

    yield ask
    provenance.commit.cache_clear()


def repository(folder, *names):
    """A repository with these files in its one commit."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
        git(folder, "add", "-f", name)
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def test_the_projects_own_commit_and_whether_it_is_changed(tmp_path, commit_in):
    own = repository(tmp_path / "own", "Snakefile", "harness/a.py", "README.md")
    head = git(own, "rev-parse", "--short=12", "HEAD")
    assert commit_in(own) == (head, False)
    (own / "README.md").write_text("prose", encoding="utf-8")
    assert commit_in(own) == (head, False)
    (own / "harness" / "a.py").write_text("changed", encoding="utf-8")
    assert commit_in(own) == (head, True)


def test_a_repository_around_it_is_not_its_own(tmp_path, commit_in):
    outer = repository(tmp_path / "thesis", "thesis.tex")
    inner = outer / "dsr"
    inner.mkdir()
    (inner / "Snakefile").write_text("", encoding="utf-8")
    said, dirty = commit_in(inner)
    assert said == f"unknown (the repository around it, {outer}, is another project's)"
    assert dirty


def test_a_repository_in_its_place_that_does_not_have_it(tmp_path, commit_in):
    notes = repository(tmp_path / "notes", "notes.md")
    (notes / "Snakefile").write_text("", encoding="utf-8")
    assert commit_in(notes) == ("unknown (its repository does not have the Snakefile)", True)


def test_a_repository_without_a_commit(tmp_path, commit_in):
    git(tmp_path, "init", "-q")
    (tmp_path / "Snakefile").write_text("", encoding="utf-8")
    assert commit_in(tmp_path) == ("unknown (its repository does not have the Snakefile)", True)
    git(tmp_path, "add", "Snakefile")
    assert commit_in(tmp_path) == ("unknown (its repository has no commit)", True)


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"])
def test_variables_of_git_point_to_no_other_repository(tmp_path, commit_in, monkeypatch, variable):
    own, other = repository(tmp_path / "own", "Snakefile"), repository(tmp_path / "other", "Snakefile", "more")
    head = git(own, "rev-parse", "--short=12", "HEAD")
    monkeypatch.setenv(variable, str(other if variable == "GIT_WORK_TREE" else other / ".git"))
    assert commit_in(own) == (head, False)


def test_no_repository_is_git_s_own_reason(tmp_path, commit_in, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "Snakefile").write_text("", encoding="utf-8")
    said, dirty = commit_in(tmp_path)
    assert said.startswith("unknown (git: not a git repository")
    assert dirty


def test_dubious_ownership_names_the_cure(tmp_path, commit_in, monkeypatch):
    """As in a container whose user does not own the checkout."""
    own = repository(tmp_path / "a b", "Snakefile")
    monkeypatch.setattr(
        provenance,
        "_git",
        lambda *_: subprocess.CompletedProcess([], 128, "", f"fatal: detected dubious ownership in repository at '{own}'\nTo add"),
    )
    said, dirty = commit_in(own)
    assert said == f"unknown (git: detected dubious ownership in repository at '{own}'; git config --global --add safe.directory '{own}')"
    assert dirty


def test_without_git_it_says_so(tmp_path, commit_in, monkeypatch):
    (tmp_path / "Snakefile").write_text("", encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_in(tmp_path) == ("unknown (git does not run: No such file or directory)", True)


def test_an_installed_release_says_its_version_and_what_is_in_it(tmp_path, commit_in):
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "a.py").write_text("1", encoding="utf-8")
    first, dirty = commit_in(tmp_path)
    assert first.startswith(f"version {metadata.version('dsr-harness')}, package ")
    assert not dirty
    (tmp_path / "harness" / "a.py").write_text("2", encoding="utf-8")
    assert commit_in(tmp_path)[0] != first


def test_of_an_installed_release_a_changed_or_further_method_is_dirty(tmp_path, commit_in, monkeypatch):
    code, mine = tmp_path / "site-packages", tmp_path / "mine"
    for folder in (code / "harness" / "project", mine):
        (folder / "baselines").mkdir(parents=True)
        (folder / "baselines" / "dsr.py").write_text("1", encoding="utf-8")

    def dirty():
        commit_in(code)
        monkeypatch.setattr(provenance, "PROJECT", mine)
        provenance.commit.cache_clear()
        return provenance.commit()[1]

    assert not dirty()
    (mine / "baselines" / "mine.py").write_text("1", encoding="utf-8")
    assert dirty()
