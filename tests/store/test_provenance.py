"""What a row says of the commit: whether what decides a result differed from it, and a page of text does not."""

import subprocess

from harness.store import provenance


def test_only_what_decides_a_result_makes_a_checkout_dirty(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    for folder in ("harness", "baselines"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text("a page", encoding="utf-8")
        (tmp_path / folder / "code.py").write_text("x = 1", encoding="utf-8")
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    assert provenance.commit.__wrapped__()[1] is False
    (tmp_path / "harness" / "README.md").write_text("another", encoding="utf-8")
    assert provenance.commit.__wrapped__()[1] is False
    (tmp_path / "baselines" / "code.py").write_text("x = 2", encoding="utf-8")
    assert provenance.commit.__wrapped__()[1] is True
