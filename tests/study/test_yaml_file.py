"""The one reader of YAML: scalars of YAML 1.2, no key twice, and every error one line with the place."""

import re
import subprocess

import pytest
import yaml

from harness.study.study import parse_study, read_study
from harness.study.typed import ROOT, UserError, merge
from harness.study.yaml_file import mapping, read_mapping

TRACKED = subprocess.run(["git", "ls-files", "-z", "*.yaml", "*.yml"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("-007", -7), ("0o17", 15), ("0x1F", 31), ("1e-3", 0.001), ("1e3", 1000.0), ("1.0e-2", 0.01), (".5", 0.5), ("5.", 5.0),
        ("-.inf", float("-inf")), ("1:40", "1:40"), ("1_000", "1_000"), ("0b11", "0b11"), ("0o8", "0o8"), ("yes", "yes"), ("no", "no"),
        ("on", "on"), ("Off", "Off"), ("y", "y"), ("true", True), ("False", False), ("2024-01-01", "2024-01-01"), ("~", None), ("", None),
        ("null", None), ("'010'", "010"), ("!!str 010", "010"), ("!!float 1", 1.0), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    [read] = mapping(f"x: {text}", "a file").values()
    assert (type(read), read) == (type(value), value)


def test_anchors_and_merge_keys_are_read_and_own_values_come_before_merged_ones():
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\nc: {<<: [*b, *a], z: 3}\nd: *a\n"
    assert mapping(text, "a file") == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 1, "y": 2, "z": 2},
        "c": {"x": 1, "y": 2, "z": 3},
        "d": {"x": 1, "y": 1},
    }


@pytest.mark.parametrize("name", TRACKED.split("\0")[:-1])
def test_the_projects_own_files_are_what_they_were_under_yaml_1_1(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.startswith(".github/"):
        pytest.skip("GitHub reads it")
    assert repr(mapping(text, name)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [0]\ntitle: a\nseeds: [1]\n",
         "f.yaml, line 3: not valid YAML: 'seeds' stands there twice, first in line 1; leave one"),
        ("data:\n  source: digits\n  'source': shapes\n",
         "f.yaml, line 3: not valid YAML: 'source' stands there twice, first in line 2; leave one"),
        ("a: [{b: 1, c: 2, b: 3}]", "f.yaml, line 1: not valid YAML: 'b' stands there twice"),
        ("a: {1: x, 0x1: y}", "'0x1' stands there twice"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a\n", "f.yaml, line 4: not valid YAML: '<<' stands there twice"),
        ("a: {? [b] : 1}", "a key must be a word or a number"),
        ("a: {? {b: 1} : 1}", "a key must be a word or a number"),
        ("a: &a [*a]", "recursive"),
        ("a: !!int b", "f.yaml, line 1: not valid YAML: 'b' is no such number"),
        ("a: !!bool yes", "'yes' is neither true nor false"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: 1\n--- \nb: 2", "f.yaml, line 2: not valid YAML: but found another document"),
        ("a: " + "9" * 5000, "f.yaml: not valid YAML: Exceeds the limit"),
        ("a: " + "[" * 500, "f.yaml: not valid YAML"),
        ("a: \x07", "f.yaml: not valid YAML: unacceptable character"),
        ("a: b: c", "f.yaml, line 1: not valid YAML: mapping values are not allowed here"),
        ("010: a", "expected a mapping of fields"),
        ("[a]", "expected a mapping of fields"),
        ("", "expected a mapping of fields"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_line_with_the_place(tmp_path, text, message):
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_mapping(tmp_path / "f.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [(b"title: caf\xe9", "not a readable text in UTF-8"), (None, "No such file")])
def test_a_file_that_is_no_text_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "f.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_mapping(tmp_path / "f.yaml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data: {reference: yes}", "data.reference: Input should be a valid integer"),
        ("data: {reference: true}", r"data.reference: should be a number, not true or false \(got True\)"),
        ("data: {reference: 1:40}", "data.reference: Input should be a valid integer"),
        ("seeds: [true]", "seeds: should be a number"),
        ("latents: {cache: yes}", r"latents.cache: should be true or false \(got 'yes'\)"),
        ("latents: {cache: 1}", "latents.cache: should be true or false"),
    ],
)
def test_a_study_takes_no_truth_for_a_number_and_no_word_for_a_truth(line, message):
    with pytest.raises(UserError, match=message):
        parse_study("mine", merge(read_study("digits"), mapping(line, "mine.yaml")))


def test_a_study_reads_numbers_as_they_are_written():
    text = "data: {reference: 0500}\ndenoiser: {training: {lr: 2e-3}}"
    study = parse_study("mine", merge(read_study("digits"), mapping(text, "mine.yaml")))
    assert (study.data.reference, study.denoiser.training.lr) == (500, 0.002)
