import hashlib
import itertools
import os

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness import plan as plans
from harness.denoiser import build
from harness.denoiser.build import build_denoiser
from harness.encoder.token_encoder import TowerMatrices
from harness.encoder.tower import build_tower
from harness.evaluation import cost
from harness.plan.jobs import evaluations
from harness.plan.markdown import flops_text
from harness.report import paper
from harness.store import asset_states as files
from harness.study.sections.asset import Asset
from harness.study.sections.encoder import FAMILIES
from harness.study.study import load_study, parse_study, read_study, study_names
from harness.study.typed import UserError

MAIN = "imagenet256_siglip2_b"
COUNTED = [name for name in study_names() if any({"gflops", "parameters"} & set(scores) for scores in paper.values(name).values())]


def changed(name, **sections):
    values = read_study(name)
    return parse_study(name, values | {section: values[section] | fields for section, fields in sections.items()})


@pytest.fixture(scope="module")
def main_plan(tmp_path_factory):
    return plans.make_plan(load_study(MAIN), seeds=3, assets=tmp_path_factory.mktemp("assets"))


def stages_named(plan, name):
    return [stage for stage in plan.shared if stage.name == name]


# ------------------------------------------------------------------------------------------------------------------- counts


def test_something_is_compared_with_the_paper():
    assert len(COUNTED) >= 5


@pytest.mark.parametrize("name", COUNTED)
def test_every_printed_count_is_matched(name):
    sizes = plans.sizes(load_study(name))
    printed = [(method, score) for method, scores in sizes.printed.items() for score in scores if score in ("gflops", "parameters")]
    assert printed
    for method, score in printed:
        assert sizes.match(method, score) is True, (method, score)


def test_a_count_that_differs_is_seen():
    sizes = plans.sizes(changed(f"{MAIN}_dit_s", denoiser={"width": 384, "depth": 12, "heads": 6, "registers": {"count": 36, "start": 8}}))
    assert sizes.match("baseline", "gflops") is True
    assert sizes.match("dsr", "gflops") is False


def test_meta_counts_what_real_tensors_count():
    """Attention too: torch's counter does not know the CPU's fused kernel, so the real model runs with the plain one."""
    study = load_study("digits")
    model = build_denoiser(study, "dsr").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, *study.latent_shape), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    assert cost.cost_scores(study, "dsr") == {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "gflops": counter.get_total_flops() / 1e9,
    }


def test_a_changed_denoiser_is_counted_as_changed(monkeypatch):
    def modify(model):
        model.extra = torch.nn.Linear(7, 11)
        return model

    study = load_study("digits")
    before = cost.method_price(study, "baseline")
    monkeypatch.setattr(build, "denoiser_hook", lambda _name: modify)
    assert cost.method_price(study, "baseline").parameters - before.parameters == 7 * 11 + 11


# --------------------------------------------------------------------------------------------------------------------- plan


LIKE_OTHERS = ("smoke_", "imagenet256_siglip2_b_800", "imagenet256_siglip2_b_ditdh_800", "imagenet256_siglip2_b_dit_")  # in their models


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if "siglip2" in name and name != MAIN else [])
        for name in study_names()
        if not name.startswith(LIKE_OTHERS)
    ],
)
def test_every_study_has_a_plan(name, tmp_path):
    study = load_study(name)
    text = plans.plan(study, seeds=2, assets=tmp_path)
    assert study.title in text
    assert "nan" not in text
    for asset in study.assets.values():
        assert asset.source in text
        assert str(tmp_path / asset.path) in text


def test_encoder_flops_follow_the_formula(main_plan):
    tokens, width, mlp, depth, patch = 256, 768, 3072, 12, 16
    layer = tokens * (4 * width**2 + 2 * width * mlp) + 2 * tokens**2 * width  # multiply-adds of the matrices, and of attention
    assert stages_named(main_plan, "encoder")[0].forward == 2 * (tokens * 3 * patch**2 * width + depth * layer)


@pytest.mark.parametrize(("family", "registers"), [("siglip", 0), ("siglip", 3), ("dinov2", 0), ("dinov2_with_registers", 4)])
def test_the_tower_counts_what_transformers_towers_do(family, registers):
    shape = {"width": 96, "depth": 3, "heads": 4, "mlp": 192, "patch": 7}
    theirs = cost.price(lambda: build_tower(family, **shape, image_size=56, registers=registers), 1, 3, 56, 56)
    extra = registers if family == "siglip" else FAMILIES[family].extra_tokens
    ours = cost.price(lambda: TowerMatrices(**shape, patches=64, extra=extra), 1, 3, 56, 56)
    assert ours.flops == theirs.flops
    assert ours.parameters == pytest.approx(theirs.parameters, rel=0.01)  # DINOv2 has a scale per channel and layer


def test_training_flops(main_plan):
    train = main_plan.methods[0].stage("denoiser")
    encoder = stages_named(main_plan, "encoder")[0].forward
    assert train.images == 80 * 1251 * 1024
    assert train.flops == train.images * (3 * train.forward + encoder)
    assert train.hours == pytest.approx(train.flops / (494e12 * 0.25) / 3600)


def test_cached_latents_need_no_encoder():
    plan = plans.make_plan(load_study("digits"), methods=["baseline"])
    train = plan.methods[0].stage("denoiser")
    assert train.images == 1250 * 32
    assert train.flops == train.images * 3 * train.forward


def test_sampling_flops(main_plan):
    sample = main_plan.methods[0].stage("samples")
    decoder = stages_named(main_plan, "decoder")[0].forward
    assert sample.flops == 3 * 50_000 * (49 * sample.forward + decoder)  # three averages are sampled
    assert sample.hours == pytest.approx(sample.flops / (989e12 * 0.25) / 3600)  # bf16


@pytest.mark.parametrize(("sampler", "points", "nfe"), [("euler", 50, 49), ("heun", 51, 99), ("euler_maruyama", 251, 250)])
def test_evaluations_of_the_samplers(sampler, points, nfe):
    assert evaluations(changed("digits", sampling={"sampler": sampler, "grid_points": points})) == (nfe, 0)


def test_guidance_costs_a_second_pass_inside_its_interval():
    study = changed("digits", sampling={"guidance": {"scale": 2.0, "interval": [0.2, 0.8]}})
    u = torch.linspace(1, 0, study.sampling.grid_points, dtype=torch.float64)[:-1]
    inside = int(((t := 2 * u / (1 + u)) >= 0.2).logical_and(t <= 0.8).sum())
    assert 0 < inside < 30
    assert evaluations(study) == (30 - inside, inside)
    free, guided = (plans.make_plan(s, methods=["baseline"]).methods[0].stage("samples") for s in (load_study("digits"), study))
    assert guided.flops - free.flops == pytest.approx(1000 * inside * free.forward)


def test_guidance_that_is_held_costs_a_second_pass_in_whole_steps():
    sampling = {"sampler": "heun", "grid_points": 6, "time_shift": 1.0, "last_time": 0.0}
    guidance = {"scale": 2.0, "interval": [0.3, 0.7]}  # of 1, 0.8, 0.6, 0.4, 0.2, 0; the last step is Euler's
    assert evaluations(changed("digits", sampling=sampling | {"guidance": guidance})) == (9 - 4, 4)  # 0.6, 0.6, 0.4, 0.4
    assert evaluations(changed("digits", sampling=sampling | {"guidance": guidance | {"held": True}})) == (9 - 4, 4)
    wider = {"scale": 2.0, "interval": [0.3, 0.9]}
    assert evaluations(changed("digits", sampling=sampling | {"guidance": wider})) == (9 - 6, 6)
    late = {"scale": 2.0, "interval": [0.0, 0.3]}
    assert evaluations(changed("digits", sampling=sampling | {"guidance": late})) == (9 - 2, 2)  # 0.2 twice
    assert evaluations(changed("digits", sampling=sampling | {"guidance": late | {"held": True}})) == (9 - 1, 1)  # its own step


@pytest.mark.parametrize("prediction", ["data", "velocity"])
def test_guidance_away_from_a_weaker_model_costs_its_passes(prediction):
    shape = {"architecture": "lightningdit", "width": 32, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
    weak = shape | {"weights": {"path": "weak.safetensors", "source": "a test"}}
    guidance = {"scale": 2.0, "interval": [0.0, 0.5], "weak": weak}
    sampling = {"grid_points": 6, "time_shift": 1.0, "last_time": 0.0, "guidance": guidance}
    assert evaluations(changed("digits", denoiser={"prediction": prediction}, sampling=sampling)) == (3, 2)  # of 1 to 0.2


def test_shared_stages_are_counted_once(main_plan):
    keys = [(stage.name, stage.subject) for stage in main_plan.shared]
    assert len(set(keys)) == len(keys)
    assert {subject for name, subject in keys if name == "latents"} == {"plain", "ttr_1", "ttr_until_clean"}
    one = main_plan.model_copy(update={"seeds": 1})
    own = sum(stage.hours for method in one.methods for stage in method.stages)
    assert main_plan.hours - one.hours == pytest.approx(2 * own)
    assert main_plan.disk["samples"] == 3 * one.disk["samples"] == 15 * 3 * 50_000 * (256 * 256 * 3 + 8)  # three averages
    assert main_plan.disk["decoders"] == one.disk["decoders"]


def test_disk_of_weights():

    study = changed("digits", denoiser={"ema": [0.98, 0.9, 0.995]})
    train = plans.make_plan(study, methods=["dsr"]).methods[0].stage("denoiser")
    model = build_denoiser(study, "dsr")
    assert train.disk == {"denoisers": 3 * sum(4 * value.numel() for value in model.state_dict().values())}  # of three averages
    assert train.temporary == sum(4 * 6 * p.numel() for p in model.parameters() if p.requires_grad)  # weights, two moments, three averages


def test_a_decoder_is_trained_where_none_is_published():
    plan = plans.make_plan(load_study("imagenet256_dinov2_b"), methods=["baseline", "trained_registers"])
    trained, published = stages_named(plan, "decoder")
    assert trained.subject == "plain"
    assert trained.flops > 3 * trained.forward * trained.images
    assert published.subject == "trained_registers"
    assert published.flops == 0
    assert trained.disk == published.disk
    assert "x (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)" in published.what  # into pixels in [0, 1]
    [siglip] = stages_named(plans.make_plan(load_study("imagenet256_siglip2_b"), methods=["baseline"]), "decoder")
    assert "x (0.5, 0.5, 0.5) + (0.5, 0.5, 0.5)" in siglip.what


def test_a_cpu_study_has_no_hours():
    plan = plans.make_plan(load_study("digits"))
    assert plan.hours is None
    text = plans.render_plan(plan)
    assert "GPU-hours |" not in text
    assert "None: the study trains every model itself." in text


def test_a_given_peak_holds_everywhere():
    study = load_study(MAIN)
    plan = plans.make_plan(study, methods=["baseline"], utilisation=0.5, peak_tflops=100)
    for stage, _ in plan.stages:
        assert stage.hours == pytest.approx(stage.flops / 0.5e14 / 3600)


def test_a_job_that_takes_longer_than_it_may_is_named():
    plan = plans.make_plan(load_study(f"{MAIN}_800ep"), methods=["baseline"])
    assert "too little for `denoiser` of `baseline`" in plans.render_plan(plan)
    assert "too little" not in plans.render_plan(plans.make_plan(load_study(MAIN), methods=["baseline"]))


@pytest.mark.parametrize("bad", [{"seeds": 0}, {"utilisation": 0.0}, {"utilisation": 1.5}, {"peak_tflops": 0.0}])
def test_bad_numbers_are_one_line(bad):
    with pytest.raises(UserError, match=r"^a plan needs at least 1 seed[^\n]*$"):
        plans.make_plan(load_study(MAIN), **bad)


def test_a_method_that_does_not_fit_is_one_line():
    with pytest.raises(UserError, match="needs an encoder with trained registers"):
        plans.make_plan(load_study(MAIN), methods=["trained_registers"])


# ------------------------------------------------------------------------------------------------------------------- assets


CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"changed").hexdigest()
WEIGHTS = "evaluation.judge.weights"


def examined(root, check=False, file=None, **fields):
    """State and detail of an asset `judge`, a file of 7 bytes or a folder with one that is named."""
    asset = Asset(path="judge", source="somewhere", file=file, **({"sha256": SHA256, "bytes": len(CONTENT)} | fields))
    examined_asset = files.examine(WEIGHTS, asset, root, check)
    return examined_asset.state, examined_asset.detail


def test_a_file_that_is_not_there(tmp_path):
    assert examined(tmp_path) == ("missing", "")


def test_a_file_without_a_known_sha256_is_present(tmp_path):
    (tmp_path / "judge").write_bytes(CONTENT)
    assert examined(tmp_path, check=True, sha256=None) == ("present", "no sha256 to compare with")


@pytest.mark.parametrize("known", [SHA256, SHA256[:16]])
@pytest.mark.parametrize("check", [False, True])
def test_a_file_with_the_published_sha256_is_verified(tmp_path, known, check):
    (tmp_path / "judge").write_bytes(CONTENT)
    assert examined(tmp_path, check, sha256=known) == ("verified", "")


def test_a_wrong_sha256_is_shown_beside_the_right_one(tmp_path):
    (tmp_path / "judge").write_bytes(b"changed")
    assert examined(tmp_path) == ("wrong sha256", f"{OTHER[:12]}, not {SHA256[:12]}")


def test_a_wrong_size_is_seen_without_hashing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.artifacts, "sha256", None)
    (tmp_path / "judge").write_bytes(b"short")
    assert examined(tmp_path, check=True) == ("wrong size", "5 bytes, not 7")


def test_of_a_folder_the_named_file_is_hashed(tmp_path):
    folder = tmp_path / "judge"
    folder.mkdir()
    rough = {"file": "model.safetensors", "bytes": 1000}
    assert examined(tmp_path, **rough) == ("missing", "no model.safetensors in the folder")
    (folder / "model.safetensors").write_bytes(CONTENT)
    (folder / "config.json").write_bytes(b"{}")
    assert examined(tmp_path, **rough) == ("verified", "")
    (folder / "model.safetensors").write_bytes(b"changed")
    assert examined(tmp_path, **rough) == ("wrong sha256", f"{OTHER[:12]}, not {SHA256[:12]}")


def test_a_folder_without_a_named_file_is_not_looked_into(tmp_path):
    (tmp_path / "judge").mkdir()
    assert examined(tmp_path, check=True) == ("present", "a folder, not looked into")


@pytest.mark.parametrize("file", [None, "model.safetensors"])
def test_a_large_file_is_hashed_when_asked_for(tmp_path, monkeypatch, capsys, file):
    path = tmp_path / "judge" / file if file else tmp_path / "judge"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"changed")
    monkeypatch.setattr(files, "HASHED", len(CONTENT))
    assert examined(tmp_path, file=file)[0] == "wrong sha256"
    monkeypatch.setattr(files, "HASHED", len(CONTENT) - 1)
    assert examined(tmp_path, file=file) == ("present, not hashed", "")
    assert capsys.readouterr().err == ""
    assert examined(tmp_path, check=True, file=file)[0] == "wrong sha256"
    assert capsys.readouterr().err == f"hashing {path}, 0.00 GB\n"


def test_the_plan_says_what_was_checked(tmp_path, monkeypatch):
    study = load_study(MAIN)
    for field in (WEIGHTS, "encoder.plain.weights"):
        asset = study.assets[field]
        path = tmp_path / asset.path / (asset.file or "")
        path.parent.mkdir(parents=True)
        path.touch()
        os.truncate(path, 100 if asset.file else asset.bytes)
    monkeypatch.setattr(files, "HASHED", 1000)
    texts = {check: plans.plan(study, methods=["baseline"], assets=tmp_path, check=check) for check in (False, True)}
    zeros = hashlib.sha256(bytes(study.assets[WEIGHTS].bytes)).hexdigest()[:12]
    assert "| present, not hashed | 95.6 MB |" in texts[False]
    assert "Of 7: 5 missing; 1 wrong sha256; 1 present, not hashed." in texts[False]
    assert "`--check` hashes them" in texts[False]
    assert f"| **wrong sha256**: {zeros}, not {study.assets[WEIGHTS].sha256[:12]} | 95.6 MB |" in texts[True]
    assert "Of 7: 5 missing; 2 wrong sha256." in texts[True]
    assert "Every file whose sha256 is known was hashed, however large" in texts[True]


# ------------------------------------------------------------------------------------------------------------ compute table


def test_compute_table_shows_what_the_paper_prints():
    names = [f"{MAIN}_dit_s", f"{MAIN}_dit_b", MAIN, f"{MAIN}_ditdh"]
    text = plans.compute_table(names)
    assert "**no**" not in text
    assert "Every value that the paper prints is matched" in text
    for name, method in itertools.product(names, ("baseline", "dsr")):
        for score, printed in paper.values(name)[method].items():
            if score in ("gflops", "parameters"):
                assert f"| {printed.text} | yes |" in text
                assert all(source in text for source in printed.sources)


# ---------------------------------------------------------------------------------------------------------------- rendering


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "–"),
        (1, "1.00 FLOP"),
        (999.0, "999 FLOP"),
        (1000, "1.00 kFLOP"),
        (12_345, "12.3 kFLOP"),
        (7.3e19, "73.0 EFLOP"),
        (5e24, "5,000 ZFLOP"),
    ],
)
def test_flops_as_text(value, text):
    assert flops_text(value) == text


def test_tables_are_rectangular(main_plan):
    blocks = [
        list(lines)
        for is_table, lines in itertools.groupby(plans.render_plan(main_plan).splitlines(), lambda line: line.startswith("|"))
        if is_table
    ]
    assert len(blocks) == 4
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1


def test_memory_of_a_step_is_what_a_real_one_keeps():
    """Counted on meta against real tensors, for a tiny denoiser."""
    study = load_study("digits")
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    model = build_denoiser(study, "dsr")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(1, *study.latent_shape), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    real = sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in weights)
    assert cost.kept_for_backward(study, lambda: build_denoiser(study, "dsr")) == pytest.approx(real, rel=0.05)


def test_a_micro_batch_of_the_main_study_fits_a_gpu_of_80_gb(main_plan):
    train = next(method for method in main_plan.methods if method.name == "dsr").stage("denoiser")
    assert 40e9 < train.memory < 70e9


def test_what_other_tables_need_besides_is_said():
    said = "because only other tables and figures than Table 1 show it"
    assert f"{said}: samples at 1 earlier step, for each as many as a run has; guidance, for each method" in plans.plan(load_study(MAIN))
    values = read_study(MAIN)
    for section, field, none in (("sampling", "guidance_search", None), ("denoiser", "snapshots", [])):
        values[section] = values[section] | {field: none}
    assert said not in plans.plan(parse_study(MAIN, values))
