"""A title is one line, unlike every other title of its table."""

import pytest

from harness.report import specs
from harness.study.method import Method, load_method
from harness.study.study import load_study, parse_study, read_study
from harness.study.typed import UserError
from harness.workflow import config

METHOD = "from harness import Method\n\nMETHOD = Method(title={!r})\n"


@pytest.fixture
def method(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)

    def write(name, title):
        (tmp_path / f"{name}.py").write_text(METHOD.format(title), encoding="utf-8")

    write("baseline", "baseline (RAE-DiT)")
    return write


def parse(text):
    return specs.parse_spec(f"title: t\n{text}")


def of(methods, text="panels: [{title: p, columns: [{score: fid}]}]"):
    return specs.parts(parse(text), load_study("shapes"), methods)


@pytest.mark.parametrize("title", ["", "   ", "two\nlines", "two\rlines", "two\u2028lines", "a\x00b", "a\tb", "\ud800"])
def test_a_title_that_is_not_one_line_is_refused(method, title):
    method("mine", title)
    with pytest.raises(UserError, match=r"baselines/mine\.py: title: a title is one line of text") as caught:
        load_method("mine")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="study 'x': title: a title is one line of text"):
        parse_study("x", read_study("digits") | {"title": title})


def test_a_title_is_taken_without_space_around_it_and_composed():
    assert Method(title="  Ju\u0308rgen's  [16] \n").title == "Jürgen's [16]"


def test_two_methods_of_a_table_have_different_titles(method, monkeypatch):
    method("one", "+ mine")
    method("two", "+  mine ")
    with pytest.raises(UserError, match=r"table 't': 'one' and 'two' have the same title, '\+ mine'; give one of them another"):
        of(["baseline", "one", "two"])
    assert len(of(["baseline", "one"])) == 1

    def stop(message):
        raise SystemExit(message)

    monkeypatch.setattr(config, "stop", stop)
    with pytest.raises(SystemExit, match="methods: 'one' and 'two' have the same title"):
        config.checked_config({"study": "shapes", "methods": ["baseline", "one", "two"]})


def test_a_method_called_as_the_baseline_of_a_titled_group_is_refused(method):
    method("mine", "baseline")
    titled = "groups: [{title: g}]\npanels: [{title: p, columns: [{score: fid}]}]"
    assert len(of(["baseline", "mine"])) == 1
    with pytest.raises(UserError, match="'baseline' and 'mine' have the same title, 'baseline'"):
        of(["baseline", "mine"], titled)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "panels: [{title: p, columns: [{score: fid}]}, {title: p, columns: [{score: is}]}]",
            "panels: 'panel 1' and 'panel 2' have the same",
        ),
        (
            "panels: [{title: p, columns: [{score: fid}, {score: is, title: FID ↓}, {score: kid, title: FID}]}]",
            "'fid' and 'kid' have the same",
        ),
        (
            "panels: [{title: p, columns: [{score: fid, digits: 2}, {score: fid, digits: 3}]}]",
            "columns: 'fid' and 'fid' have the same title",
        ),
        ("panels: [{title: p, columns: [{score: fid, title: ''}]}]", "a title is one line of text"),
    ],
)
def test_panels_and_columns_of_one_title_are_refused(tmp_path, text, message):
    (tmp_path / "t.yaml").write_text(f"title: t\n{text}", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        specs.load_spec(tmp_path / "t.yaml")


def test_two_groups_that_are_shown_together_have_different_titles():
    groups = "groups: [{title: g, study: {shapes: shapes}}, {title: g, study: {%s}}]\npanels: [{title: p, columns: [{score: fid}]}]"
    assert len(of(["baseline"], groups % "digits: digits")) == 1
    with pytest.raises(UserError, match="'shapes' and 'shapes' have the same title, 'g'"):
        of(["baseline"], groups % "shapes: shapes")
