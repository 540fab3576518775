"""The tables of differences to the originals' code, and of other projects' weights (harness/studies/README.md).

Every row is there, every field is one, who is said to take a value does, and what weights need parses.
"""

import re

import pytest
import yaml

from harness.study.sections.denoiser import ARCHITECTURES
from harness.study.study import STUDIES, load_study, parse_study, read_study, study_names
from harness.study.typed import merge
from harness.study.yaml_file import read_mapping

BEFORE, _, TEXT = (STUDIES / "README.md").read_text(encoding="utf-8").partition("### What differs from the originals' code")


def rows_of(text):
    """Cells of a table's rows; its head starts with a blank cell, or with `weights`."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if re.match(r"\| (?!weights \|)\w", line)]


ROWS = rows_of(TEXT)
WEIGHTS = rows_of(BEFORE[BEFORE.index("| weights |") :].partition("\n\n")[0])
RELEASE = {  # difference -> the field that says it
    "what test-time registers take": "search.variant",
    "outliers of that search": "search.threshold",
    "register neurons": "search.released_neurons",
    "tables of positions and frequencies": "denoiser.frozen",
    "time shift of So400M": "denoiser.time_shift",
    "whitening statistics": "latents.statistics",
    "8 bits of a sample": "sampling.eight_bit",
    "what a decoder gives": "decoder.released.plain.range",
    "the same, over trained registers": "decoder.released.trained_registers.range",
    "crops in a decoder's training": "decoder.crop",
    "its noise": "decoder.noise_on",
    "its noise over test-time registers": "decoder.noise",
    "its average": "decoder.ema_warm_up",
    "its discriminator's learning rate": "decoder.adversarial.discriminator_schedule",
    "the denoiser's average": "denoiser.ema_warm_up",
    "end of a velocity prediction's ODE": "sampling.last_time",
    "reference of FID at 256 pixels": "evaluation.references",
    "last step of an SDE under a time shift": None,
    "threshold of a loss mask": None,  # a method's, as the next
    "its normalisation": None,
    "training times of a velocity prediction": None,
    "guidance of LightningDiT in an interval": None,
    "number and start of registers": None,
    "micro-batches": None,
    "order, mirroring and noise in training": None,
    "noise of a sample": None,
}
RECIPES = {
    "guided channels": "sampling.guidance.channels",
    "last step of an SDE": "sampling.last_step",
    "target of the loss": "denoiser.clamp_target",
    "dropout": "denoiser.dropout",
    "interval of guidance": "sampling.guidance.interval",
    "ends of a guidance interval": "sampling.guidance.closed",
    "length of training": "denoiser.training.epochs",
}
EVERY_STUDY_SAYS = r"denoiser\.(architecture|patch|width|depth|heads|prediction|time(_mean|_std|_shift)?|ema|training\..+)"
EVERY_STUDY_SAYS += r"|sampling\.(sampler|grid_points|precision|guidance_search\..+)"
SHAPES = {"ddt": {"head_depth": 6}, "diffusionbench_ddt": {"head": {"width": 2048, "depth": 2, "heads": 16}}}  # what has no default
LIKE = {"jit": "imagenet256_jit_h", "diffusionbench_ddt": "imagenet256_siglip2_b"}  # others: on VAE latents, as SiT
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


def plain(value):
    """As YAML has it."""
    return [*value] if isinstance(value, tuple) else value


def clauses(cell):
    """What a cell lays over a study: {path: value} of all that stands before the first semicolon, then of each further one."""
    spans = [re.findall(r"`([a-z_.]+): ([^`]+)`", clause) for clause in cell.split(";")]
    return [dict(leaves({path: yaml.safe_load(value) for path, value in clause})) for clause in spans]


def nested(path, value):
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def laid(values, section, clause):
    for path, value in clause.items():
        values = merge(values, nested(f"{section}.{path}", value))
    return values


def test_every_difference_is_there_with_its_field():
    assert {len(row) for row in ROWS} == {5}
    told = {row[0]: field.group(1) if (field := re.match(r"`([a-z_.]+)(?:: .+)?`$", row[3])) else None for row in ROWS}
    assert len(told) == len(ROWS)
    assert told == RELEASE | RECIPES


@pytest.mark.parametrize("name", ["imagenet256_sit_xl", "imagenet256_jit_h"])
def test_what_a_recipe_sets_is_in_the_table_or_what_every_study_says(name):
    own = read_mapping(STUDIES / f"{name}.yaml", "study fields")
    paths = {path for path, _ in leaves({section: own[section] for section in ("denoiser", "sampling")})}
    assert {path for path in paths if not re.fullmatch(EVERY_STUDY_SAYS, path)} <= {*RECIPES.values()}


def test_other_projects_weights_have_a_row_each():
    theirs = [clauses(denoiser)[0]["architecture"] for _, denoiser, *_ in WEIGHTS]
    assert sorted(theirs) == sorted({*ARCHITECTURES} - {"lightningdit", "ditdh"})  # those two are the paper's own
    assert {len(row) for row in WEIGHTS} == {4}


@pytest.mark.parametrize(("denoiser", "sampling", "decoder"), [row[1:] for row in WEIGHTS], ids=[row[0] for row in WEIGHTS])
def test_what_weights_need_parses_in_a_study_of_their_architecture(denoiser, sampling, decoder):
    cells = {"denoiser": clauses(denoiser), "sampling": clauses(sampling), "decoder": clauses(decoder)}
    architecture = cells["denoiser"][0]["architecture"]
    assert cells["denoiser"][0]["prediction"] == ARCHITECTURES[architecture].published_prediction
    values = read_study(LIKE.get(architecture, "imagenet256_sit_xl"))
    values = merge(values, {"denoiser": SHAPES.get(architecture, {})})
    for section, (always, *_) in cells.items():
        values = laid(values, section, always)
    for section, (always, *further) in cells.items():
        for clause in ({}, *further):
            said = always | clause
            study = parse_study("theirs", laid(values, section, clause))
            assert {path: plain(value_at(study, f"{section}.{path}")[0]) for path in said} == said


def test_jit_guided_by_a_scale_alone_is_guided_where_jit_is():
    study = parse_study("mine", merge(read_study("imagenet256_jit_h"), {"sampling": {"guidance": {"scale": 2.2}}}))
    assert study.sampling.guidance.text == "classifier-free, scale 2.2 for t in (0, 0.9)"


@pytest.mark.parametrize(("field", "takers"), FIELDS, ids=[field.partition(":")[0] for field, _ in FIELDS])
def test_who_takes_a_value_has_it(field, takers):
    path, _, said = field.partition(": ")
    for name in takers_of(takers):
        value, default = value_at(load_study(name), path)
        if said:
            assert plain(value) == yaml.safe_load(said), name
        else:
            assert value, name
            assert value != default, name
    if not takers_of(takers):
        value_at(load_study("imagenet256_siglip2_b"), path)


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
