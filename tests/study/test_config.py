import re

import pytest
from conftest import tiny_values
from hypothesis import given
from hypothesis import strategies as st

from harness.study import typed as config
from harness.study.method import EncoderRegisters, LossMask, Method, denoiser_hook, in_order, load_method, method_file, method_names
from harness.study.study import load_study, parse_study, read_study, study_names
from harness.study.typed import UserError

WEAK_SIT = {"architecture": "sit", "width": 32, "depth": 2, "heads": 2, "mlp_ratio": 4.0, "weights": {"path": "weak.pt", "source": "mine"}}
PAPER_METHODS = {"baseline", "masked", "ttr", "recursive_ttr", "trained_registers", "diffusion_registers", "dsr", "dsr_trained"}


@pytest.mark.parametrize("name", study_names())
def test_every_study_is_valid(name):
    assert load_study(name).name == name


def test_control_differs_from_digits_only_in_its_outliers():
    digits, control = (load_study(n).model_dump(exclude={"name", "title", "outliers"}) for n in ("digits", "digits_control"))
    assert digits == control
    assert load_study("digits_control").outliers == "none"


def test_all_methods_of_the_paper_are_there_and_baseline_comes_first():
    names = method_names()
    assert names[0] == "baseline"
    assert set(names) >= PAPER_METHODS


def test_a_method_is_one_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    (tmp_path / "baseline.py").write_text("from harness import Method\nMETHOD = Method(title='baseline')\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "from harness import Method\nMETHOD = Method(title='mine', diffusion_registers=True)\n", encoding="utf-8"
    )
    assert method_names() == ["baseline", "mine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("METHOD = 3", "defines no METHOD"),
        ("import nothing_of_this_name", "cannot be read: ModuleNotFoundError"),
        (
            "from harness import Method\nMETHOD = Method(title='x', difusion_registers=True)",
            "did you mean 'diffusion_registers'",
        ),
        ("from harness import *\nMETHOD = Method(title='x', loss_mask=LossMask(norm='l2'))", "norm"),
    ],
)
def test_a_bad_method_file_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    (tmp_path / "bad.py").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_method("bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absolute=True", "LossMask: absolute needs a threshold"),
        ("threshold=0", "LossMask: threshold: Input should be greater than 0"),
        ("threshold=float('inf')", "LossMask: threshold: Input should be a finite number"),
        ("treshold=3", "LossMask: unknown field 'treshold', did you mean 'threshold'"),
        ("normalised='gpu'", "LossMask: normalised: Input should be 'batch' or 'micro_batch'"),
    ],
)
def test_a_bad_loss_mask_is_one_line(tmp_path, monkeypatch, given, message):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    text = f"from harness import *\nMETHOD = Method(title='x', loss_mask=LossMask(norm='pre_ln', {given}))"
    (tmp_path / "bad.py").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"baselines/bad.py: {message}") as caught:
        load_method("bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser": {"widht": 3}}, "unknown field 'denoiser.widht', did you mean 'width'"),
        ({"denoiser": {"training": {"step": 3}}}, "did you mean 'steps'"),
        ({"denoiser": {"ema": 1.0}}, "denoiser.ema"),
        ({"denoiser": {"registers": {"start": 4}}}, "beyond the last of 4 blocks"),
        ({"denoiser": {"registers": {"count": 0}}}, "denoiser.registers.count"),
        ({"data": {"image_size": 18}}, "does not divide"),
        ({"encoder": {"heads": 5}}, "not a multiple of heads"),
        ({"sampling": {"count": 20}}, "sampling.count 20 is too few: the judge's features needs at least 33$"),
        ({"data": {"reference": 49}}, "data.reference 49 is too few: evaluation.kid_subset needs at least 50; .* lower it by 1 or more"),
        ({"evaluation": {"neighbours": 60}}, "sampling.count 60 is too few: evaluation.neighbours needs at least 61"),
        ({"data": {"reference": 1788}}, "data: reference 1788: 10 images or more of the 1797 must be in either split"),
        ({"planted": [{"layer": 9, "neurons": 1, "share": 0.1, "activation": 9, "strength": 5}]}, "planted layer 9 does not exist"),
        ({"seeds": []}, "seeds must be"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"outliers": "some"}, "outliers"),
        ({"denoiser": {"snapshots": [8, 4]}}, "denoiser.snapshots must rise, and end before the training's 12 steps"),
        ({"denoiser": {"snapshots": [4, 12]}}, "denoiser.snapshots must rise, and end before the training's 12 steps"),
        ({"denoiser": {"snapshots": [0.5]}}, "denoiser.snapshots are steps here"),
        ({"sampling": {"guidance_search": {"seed": 1}}}, "guidance_search.seed 1 is one of the study's seeds"),
        ({"sampling": {"guidance_search": {"count": 32}}}, "guidance_search.count 32 is too few: the judge has 32 features"),
        ({"sampling": {"guidance_search": {"scales": [1.0]}}}, "at least one scale above 1"),
        ({"sampling": {"guidance_search": {"scales": [2.0, 2.0]}}}, "names no scale or interval twice"),
        ({"sampling": {"guidance_search": {"intervals": [[0.5, 0.5]]}}}, "0.5 to 0.5 holds no time"),
        ({"sampling": {"guidance_search": {"scale": [2.0]}}}, "did you mean 'scales'"),
        ({"sampling": {"time_shift": float("inf")}}, "sampling.time_shift: Input should be a finite number"),
        ({"denoiser": {"t_min": float("nan")}}, "denoiser.t_min: Input should be a finite number"),
        (
            {"sampling": {"guidance": {"scale": 2.0, "weak": WEAK_SIT}}},
            "weak: published weights of SiT predict the velocity, .* read as the data",
        ),
    ],
)
def test_a_bad_study_value_is_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_study("tiny", tiny_values(**changes))
    assert "\n" not in str(caught.value)


PAPER = "imagenet256_siglip2_b"


@pytest.mark.parametrize(
    ("study", "changes", "message"),
    [
        (PAPER, {"denoiser": {"training": {"base_lr": 1e-4}}}, "unknown field 'denoiser.training.base_lr'"),
        (PAPER, {"denoiser": {"training": {"steps": 3}}}, "training needs either steps or epochs"),
        (PAPER, {"denoiser": {"training": {"micro_batch": 100}}}, "training.batch 1024 is not a multiple of micro_batch 100"),
        (PAPER, {"denoiser": {"registers": {"count": 0}}}, "denoiser.registers.count"),
        (PAPER, {"denoiser": {"registers": {"start": 28}}}, "beyond the last of 28 blocks"),
        (PAPER, {"denoiser": {"patch": 3}}, "denoiser.patch 3 does not divide the latent side 16"),
        (
            PAPER,
            {"denoiser": {"head": {"width": 2048, "depth": 2, "heads": 16}}},
            "denoiser: head belongs to architecture ditdh and diffusionbench_ddt, not to lightningdit",
        ),
        (PAPER, {"sampling": {"ema": 0.5}}, "sampling.ema 0.5 is not one of denoiser.ema"),
        (PAPER, {"sampling": {"count": 2048}}, "sampling.count 2048 is too few: the judge's features needs at least 2049"),
        (PAPER, {"encoder": {"patch": 15}}, "encoder.patch 15 does not divide encoder.image_size 256"),
        (PAPER, {"decoder": {"patch": 8}}, "decoder.patch 8 x latent side 16 is not data.image_size 256"),
        (PAPER, {"encoder": {"plain": {"weights": {"sha256": "xyz"}}}}, "encoder.plain.weights.sha256"),
        (PAPER, {"denoiser": {"snapshots": [40, 80]}}, "denoiser.snapshots must rise, and end before the training's 80 epochs"),
        (PAPER, {"denoiser": {"snapshots": [40, 40.0001]}}, "denoiser.snapshots [40.0, 40.0001] are not all at different steps"),
        (PAPER, {"outliers": "planted"}, "outliers can be planted only into an encoder that the study trains"),
        (PAPER, {"latents": {"cache": True, "images": 10}}, "latents.images belongs to latents.cache: false"),
        (PAPER, {"evaluation": {"judge": {"kind": "vgg"}}}, "evaluation.judge"),
        ("imagenet256_sit_xl", {"decoder": {"kind": "vit"}}, "decoder"),
        (
            "imagenet256_siglip2_b_ditdh",
            {"denoiser": {"training": {"schedule": {"until": 30}}}},
            "schedule.until 30 comes before the decay begins",
        ),
    ],
)
def test_trap23_a_value_of_a_paper_scale_study_that_cannot_be_meant_is_one_line(study, changes, message):
    """The released code reads neither base_lr nor the scheduler's fields: they can be changed without effect."""
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parse_study("x", config.merge(read_study(study), changes))
    assert "\n" not in str(caught.value)


def test_paper_scale_studies_share_the_released_recipe():
    study = load_study(PAPER)
    assert study.steps == 80 * 1251
    assert load_study(f"{PAPER}_800ep").steps == 800 * 1251
    assert study.time_shift == pytest.approx(6.928, abs=1e-3)
    assert (study.denoiser.registers.count, study.denoiser.registers.start) == (36, 8)
    assert study.denoiser.ema == [0.9999, 0.9995, 0.999]
    assert study.latent_shape == (768, 16, 16)


def test_trap8_both_time_shifts_of_so400m_can_be_chosen():
    own, released = load_study("imagenet256_siglip2_so400m"), load_study("imagenet256_siglip2_so400m_released")
    assert own.latent_shape == released.latent_shape == (1152, 16, 16)
    assert own.time_shift == pytest.approx(8.485, abs=1e-3)
    assert released.time_shift == pytest.approx(6.928, abs=1e-3)


@pytest.mark.parametrize("size", ["s", "b", "l"])
def test_scaling_studies_differ_from_xl_in_the_denoiser_alone(size):
    small, xl = (load_study(name).model_dump() for name in (f"{PAPER}_dit_{size}", PAPER))
    assert {field for field in xl if small[field] != xl[field]} == {"name", "title", "methods", "denoiser"}
    sizes = {field for field in xl["denoiser"] if small["denoiser"][field] != xl["denoiser"][field]}
    assert sizes <= {"width", "depth", "heads", "registers"}
    assert small["denoiser"]["registers"]["start"] == (8 if size == "l" else 4)


@pytest.mark.parametrize("seeds", [None, 3, "0,1", [], [0.5], [True], [-1], ["0"]])
def test_seeds_that_are_not_a_list_of_whole_numbers(seeds):
    with pytest.raises(UserError, match="seeds must be"):
        config.check_seeds(seeds)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UserError, match="unknown study 'digts', did you mean 'digits'"):
        load_study("digts")
    with pytest.raises(UserError, match="unknown method 'drs', did you mean 'dsr'"):
        load_method("drs")


@pytest.mark.parametrize(
    ("name", "title", "fields"),
    [
        (
            "diffusion_registers-count16-start2",
            "+ diffusion registers (16 from block 2)",
            {"diffusion_registers": {"count": 16, "start": 2}},
        ),
        ("dsr-count1-start0", "+ DSR (1 from block 0)", {"diffusion_registers": {"count": 1, "start": 0}}),
        ("masked-whitened", "+ loss masking (norm after whitening)", {"loss_mask": {"norm": "whitened"}}),
        ("masked-post_ln", "+ loss masking (norm after the final norm)", {"loss_mask": {"norm": "post_ln"}}),
    ],
)
def test_a_variant_is_its_method_with_one_field_changed(name, title, fields):
    base = load_method(name.partition("-")[0]).model_dump()
    assert load_method(name).model_dump() == config.merge(base, fields) | {"title": title}
    assert method_file(name) == method_file(name.partition("-")[0])
    assert name not in method_names()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ttr-count16-start2", "baselines/ttr.py has no diffusion_registers"),
        ("dsr-whitened", "baselines/dsr.py has no loss_mask"),
        ("drs-count16-start2", "unknown method 'drs-count16-start2', did you mean 'dsr'"),
        ("dsr-count0-start2", "unknown method 'dsr-count0-start2', did you mean 'dsr'"),
        ("dsr-count04-start2", "unknown method"),
        ("masked-l2", "unknown method 'masked-l2', did you mean 'masked'"),
        ("../baselines/dsr", "unknown method"),
    ],
)
def test_a_variant_that_there_is_not_is_one_line(name, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_method(name)
    assert "\n" not in str(caught.value)


def test_a_variant_keeps_the_hook_of_its_method(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    text = "from harness import Method\nMETHOD = Method(title='mine', diffusion_registers=True)\ndef modify_denoiser(model): return model\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    assert denoiser_hook("mine-count4-start1") is not None


def test_a_variant_keeps_the_threshold_of_its_method(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    mask = "LossMask(norm='pre_ln', threshold=100, absolute=True, normalised='micro_batch')"
    (tmp_path / "mine.py").write_text(f"from harness import *\nMETHOD = Method(title='mine', loss_mask={mask})\n", encoding="utf-8")
    assert load_method("mine-whitened").loss_mask == LossMask(norm="whitened", threshold=100, absolute=True, normalised="micro_batch")


def test_variants_stand_below_their_method_by_start_and_count():
    names = ["diffusion_registers-count16-start1", "dsr", "diffusion_registers-count4-start1", "diffusion_registers-count4-start0"]
    ordered = in_order([*names, "diffusion_registers", "baseline", "masked-whitened"])
    assert ordered[:3] == ["baseline", "masked-whitened", "diffusion_registers"]
    assert ordered[3:] == [names[3], names[2], names[0], "dsr"]


encoders = st.builds(
    EncoderRegisters, kind=st.sampled_from(["none", "trained", "test_time"]), rounds=st.one_of(st.integers(1, 99), st.just("until_clean"))
)


@given(encoders)
def test_encoder_key_says_all_that_matters(registers):
    again = EncoderRegisters.from_key(registers.key)
    assert again.key == registers.key
    assert again.kind == registers.kind
    if registers.kind == "test_time":
        assert again == registers


trees = st.recursive(st.integers(), lambda t: st.dictionaries(st.sampled_from("abc"), t, max_size=3), max_leaves=8)


@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
def test_merge_keeps_the_base_and_obeys_the_changes(base, changes):
    merged = config.merge(base, changes)
    assert set(merged) == set(base) | set(changes)
    assert config.merge(merged, changes) == merged
    assert all(merged[key] == base[key] for key in set(base) - set(changes))


def test_rows_are_sorted_from_untouched_to_most_registers(monkeypatch):
    plain, registers = Method(title="a"), Method(title="b", diffusion_registers=True)
    trained = Method(title="c", encoder=EncoderRegisters(kind="trained"))
    assert sorted([trained, registers, plain], key=Method.sort_key) == [plain, registers, trained]


def test_another_data_source_replaces_the_section():
    base = {"data": {"source": "sklearn_digits", "sha256": "ab", "image_size": 16}, "weights": {"path": "p", "source": "here"}}
    changes = {"data": {"source": "image_folder", "classes": 3}, "weights": {"source": "there"}}
    assert config.merge(base, changes) == {"data": changes["data"], "weights": {"path": "p", "source": "there"}}
    assert config.merge(base, {"data": {"image_size": 8}})["data"] == base["data"] | {"image_size": 8}
