"""A project beside installed code has studies of its own, where a checkout has them."""

import pytest

from harness.study import study as studies
from harness.study.typed import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "harness" / "studies"
    folder.mkdir(parents=True)
    monkeypatch.setattr(studies, "PROJECT", tmp_path)
    monkeypatch.setattr(studies, "OWN", folder)
    return folder


def test_a_projects_own_study_extends_one_of_the_code(own):
    (own / "mine.yaml").write_text("extends: digits\ntitle: mine\nseeds: [7]\n", encoding="utf-8")
    mine = studies.load_study("mine")
    assert (mine.title, mine.seeds, mine.data) == ("mine", [7], studies.load_study("digits").data)
    assert {"mine", "digits"} <= {*studies.study_names()}


def test_one_with_a_name_of_the_code_is_refused(own):
    (own / "digits.yaml").write_text("extends: smoke\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"digits\.yaml: the code has a study of this name; rename yours"):
        studies.load_study("digits")


def test_in_a_checkout_there_is_one_folder():
    assert studies._own_names() == []
