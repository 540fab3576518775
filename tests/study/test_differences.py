"""The table of differences to the originals' code (harness/studies/README.md): every field is one, and who is said to take a value does."""

import re

import pytest
import yaml

from harness.study.study import STUDIES, load_study, study_names
from harness.study.yaml_file import read_mapping

TEXT = (STUDIES / "README.md").read_text(encoding="utf-8").partition("### What differs from the originals' code")[2]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TEXT.splitlines() if re.match(r"\| (?!by default)\w", line)]
TWINS = ["imagenet256_siglip2_b_released", "imagenet256_siglip2_so400m_released"]
GROUPS = {"_released": TWINS, "every `imagenet256` study": [name for name in study_names() if name.startswith("imagenet256")]}
FIELDS = [(field.group(1), takers) for *_, cell, takers in ROWS if (field := re.fullmatch(r"`([a-z_.]+(?:: .+)?)`", cell))]


def takers_of(cell):
    if cell in GROUPS:
        return GROUPS[cell]
    return [name for word in re.findall(r"`(\w+)`", cell) for name in GROUPS.get(word, [word])]


def value_at(study, path):
    """The field's value, and its default; KeyError or AttributeError for what is no field."""
    value, default = study, None
    for part in path.split("."):
        if isinstance(value, dict):
            value, default = value[part], None
        else:
            value, default = getattr(value, part), type(value).model_fields[part].get_default(call_default_factory=True)
    return value, default


def leaves(values, above=()):
    for key, value in values.items():
        yield from leaves(value, (*above, key)) if isinstance(value, dict) else [(".".join((*above, key)), value)]


def test_every_row_has_its_five_cells():
    assert len(ROWS) >= 25
    assert {len(row) for row in ROWS} == {5}


@pytest.mark.parametrize(("field", "takers"), FIELDS, ids=[field.partition(":")[0] for field, _ in FIELDS])
def test_who_takes_a_value_has_it(field, takers):
    path, _, said = field.partition(": ")
    for name in takers_of(takers):
        value, default = value_at(load_study(name), path)
        if said:
            assert value == yaml.safe_load(said), name
        else:
            assert value, name
            assert value != default, name
    if not takers_of(takers):
        value_at(load_study("imagenet256_sit_xl"), path)


def test_what_the_twins_lay_over_a_study_is_in_the_table():
    told = {field.partition(": ")[0]: field.partition(": ")[2] for field, takers in FIELDS if "_released" in takers}
    laid = dict(leaves(read_mapping(STUDIES / "_released.yaml", "study fields")))
    assert {path: yaml.safe_load(told[path]) for path in laid} == laid


@pytest.mark.parametrize("name", TWINS)
def test_what_a_twin_has_of_its_own_is_in_the_table(name):
    own = read_mapping(STUDIES / f"{name}.yaml", "study fields")
    paths = {path for path, _ in leaves({key: value for key, value in own.items() if key not in ("extends", "title", "methods")})}
    fields = {field.partition(":")[0] for field, _ in FIELDS}
    assert [path for path in paths if not any(path == field or path.startswith(f"{field}.") for field in fields)] == []
