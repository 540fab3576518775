"""How study files build on one another, and the embedded family that does."""

import pytest
import yaml

from harness.denoiser.build import build_shape
from harness.study import places
from harness.study import study as studies
from harness.study import typed as config
from harness.study.study import load_study, read_study, study_names
from harness.study.typed import UserError

DIGITS = sorted(name for name in study_names() if name.startswith("digits_"))
TWINS = sorted(name for name in study_names() if name.startswith("smoke_") and f"digits_{name.removeprefix('smoke_')}" in DIGITS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", tmp_path)

    def write(**files):
        for name, values in files.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    return write


def test_of_several_bases_the_later_is_laid_over_the_earlier(folder):
    folder(a={"x": {"one": 1, "two": 1}}, b={"x": {"two": 2}, "y": 2}, c={"extends": ["a", "b"], "y": 3})
    assert read_study("c") == {"x": {"one": 1, "two": 2}, "y": 3}
    assert studies.bases("c") == ["a", "b"]


def test_a_base_of_two_bases_is_laid_once_below_both(folder):
    folder(root={"x": 0, "y": 0}, small={"extends": "root", "x": 1}, wide={"extends": "root", "y": 2}, both={"extends": ["small", "wide"]})
    assert read_study("both") == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {"extends": ["b", "a"]}, "b": {}}, "unknown study 'a'"),
        ({"a": {"extends": ["b"]}, "b": {"extends": ["c"]}, "c": {"extends": "a"}}, "unknown study 'a'"),
        ({"a": {"extends": ["digit"]}, "digits": {}}, "unknown study 'digit', did you mean 'digits'"),
        ({"a": {"extends": [["b"]]}, "b": {}}, "unknown study"),
        ({"a": {"extends": [3]}, "b": {}}, "unknown study '3'"),
    ],
)
def test_a_list_of_bases_that_cannot_be_is_one_line(folder, files, message):
    folder(**files)
    with pytest.raises(UserError, match=message) as caught:
        read_study("a")
    assert "\n" not in str(caught.value)


def test_smoke_is_digits_with_its_budgets_cut():
    smoke = yaml.safe_load((studies.STUDIES / "smoke.yaml").read_text(encoding="utf-8"))
    cut = yaml.safe_load((studies.STUDIES / "_smoke.yaml").read_text(encoding="utf-8"))
    assert smoke.pop("extends") == ["digits", "_smoke"]
    assert read_study("smoke") == config.merge(config.merge(read_study("digits"), cut), smoke)


@pytest.mark.parametrize(
    "name", [f"digits_{kind}" for kind in ("constant_rate", "dit_b", "dit_s", "ditdh", "jit", "one_population", "sit")]
)
def test_every_variation_of_digits_has_a_smoke_twin_with_its_methods_and_its_denoiser(name):
    twin, full = load_study(name.replace("digits", "smoke")), load_study(name)
    assert twin.methods == (full.methods or load_study("smoke").methods)
    shape = {"architecture", "width", "depth", "heads", "patch", "head", "registers", "prediction", "time"}
    assert twin.denoiser.model_dump(include=shape) == full.denoiser.model_dump(include=shape)
    assert twin.steps == load_study("smoke").steps < full.steps


@pytest.mark.parametrize("name", [*DIGITS, *TWINS])
def test_what_a_variation_does_not_change_is_shared_with_its_family(name):
    study = load_study(name)
    for part in ("data", "judge", "clip"):
        assert places.home(study, part) == study.family


@pytest.mark.parametrize("name", ["constant_rate", "dit_b", "dit_s", "ditdh"])
def test_variations_of_the_denoiser_share_encoder_and_decoder(name):
    for family in ("digits", "smoke"):
        study = load_study(f"{family}_{name}")
        assert {places.home(study, part) for part in ("references", "encoder", "decoder")} == {family}


def test_the_three_sizes_differ_in_size_alone():
    small, middle, large = (load_study(name).denoiser for name in ("digits_dit_s", "digits_dit_b", "digits"))
    sizes = {"width", "depth", "heads"}
    assert small.model_dump(exclude=sizes) == middle.model_dump(exclude=sizes) == large.model_dump(exclude=sizes)
    assert small.width < middle.width < large.width
    assert small.depth <= middle.depth <= large.depth


def test_one_population_is_the_larger_of_the_two():
    [one] = load_study("digits_one_population").planted
    both = load_study("digits").planted
    assert one in both
    assert one.share == max(population.share for population in both)


def test_jit_has_as_many_tokens_of_its_own_as_the_study_says():
    study = load_study("digits_jit")
    assert build_shape(study, study.denoiser).in_context_len == study.denoiser.in_context == 4
    with pytest.raises(UserError, match="denoiser: in_context belongs to architecture jit, not to lightningdit"):
        studies.parse_study("x", config.merge(read_study("digits"), {"denoiser": {"in_context": 4}}))
