"""Published weights in place of a training: what a study may say of them, what is loaded, and what one step finds."""

import json

import pytest
import torch
from conftest import DATA
from toy import toy_values

from harness.denoiser import released
from harness.denoiser.build import build_denoiser
from harness.denoiser.calls import file_of
from harness.denoiser.flow import at_time, flow_loss
from harness.denoiser.registry import ARCHITECTURES
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.tensors import check_weights, load_tensors, save_tensors
from harness.study.sections.released import CONVENTIONS
from harness.study.study import load_study, parse_study, read_study, study_names
from harness.study.typed import UserError, merge

PUBLISHED = [name for name in study_names() if name.startswith("published_")]
WEIGHTS = [(name, method) for name in PUBLISHED for method in load_study(name).denoiser.released]
# all values of a file, in millions: published (arXiv 2605.05206; SiT, DDT and JiT: their papers), or counted once from the authors' classes
MILLIONS = {
    ("published_dsr", "baseline"): 677.25,
    ("published_dsr", "diffusion_registers"): 677.33,
    ("published_rae", "baseline"): 838.68,
    ("published_sit", "baseline"): 675,
    ("published_ddt", "baseline"): 675,
    ("published_jit", "baseline"): 953,
}


def changed(name, **sections):
    return parse_study(name, merge(read_study(name), sections))


# ---------------------------------------------------------------------------------------------------------------- studies


def test_every_format_has_a_study():
    assert {load_study(name).denoiser.released[method].convention for name, method in WEIGHTS} == {*CONVENTIONS} - {"jit512"}


@pytest.mark.parametrize(
    ("name", "sections", "says"),
    [
        (
            "published_rae",
            {"denoiser": {"prediction": "data"}},
            "convention rae: its weights predict the velocity: denoiser.prediction is data",
        ),
        ("published_dsr", {"denoiser": {"prediction": "velocity"}}, "convention dsr: its weights predict the data"),
        ("published_sit", {"denoiser": {"architecture": "repa", "learn_sigma": None}}, "its weights are of architecture sit, not repa"),
        ("published_repa", {"denoiser": {"architecture": "sit", "learn_sigma": True}}, "its weights are of architecture repa, not sit"),
        ("published_diffusionbench", {"decoder": {"released": {"plain": {"range": "normalised"}}}}, "its decoder's pixels are unit"),
        ("published_jit", {"denoiser": {"noise_scale": 2.0}}, "its noise has scale 1: denoiser.noise_scale is 2"),
        ("published_sit", {"latents": {"whitening": "channel"}}, "its latents are not whitened: latents.whitening is channel"),
        (
            "published_sit",
            {"denoiser": {"released": {"dsr": {"path": "x", "source": "x", "convention": "sit"}}}},
            "released.dsr: unknown method",
        ),
        ("published_sit", {"denoiser": {"released": {"baseline": {"convention": "sti"}}}}, "unknown, did you mean 'sit'"),
        ("published_sit", {"sampling": {"averages": [0.9995]}}, "sampling.averages is of trainings"),
        ("published_sit", {"denoiser": {"snapshots": [40]}}, "denoiser.snapshots is of trainings"),
    ],
)
def test_a_study_that_reads_weights_otherwise_than_they_were_meant_is_refused(name, sections, says):
    with pytest.raises(UserError, match=says):
        changed(name, **sections)


@pytest.mark.parametrize("name", ["published_dsr", "published_lightningdit"])
def test_latents_of_other_statistics_than_the_published_are_refused(name):
    values = read_study(name)
    del values["latents"]["statistics"]
    with pytest.raises(UserError, match=r"its latents are whitened by a published file, which the study lacks: latents\.statistics\.plain"):
        parse_study(name, values)


def test_published_weights_are_no_setting_of_a_training():
    """So that naming them beside trained methods makes none of these run again; the study keeps them where it is written down whole."""
    study = load_study("published_sit")
    assert "released" not in study.model_dump()["denoiser"]
    values = study.values()
    assert parse_study(values.pop("name"), values) == study


# ------------------------------------------------------------------------------------------------------------ at full size


@pytest.mark.parametrize(("name", "method"), WEIGHTS)
def test_weights_of_full_size_load_strictly(name, method):
    study = load_study(name)
    with torch.device("meta"):
        model = build_denoiser(study, method)
    whole = model.state_dict()
    if (name, method) in MILLIONS:
        fixed = ("rope", "freqs", "register_pos") if "register" not in method else ("rope", "freqs")
        million = sum(value.numel() for key, value in whole.items() if not any(part in key for part in fixed)) / 1e6
        assert round(million, 0) == round(MILLIONS[name, method], 0)
    check_weights(model, whole, name)
    last = [*whole][-1]
    for wrong in (
        {key: value for key, value in whole.items() if key != last},
        whole | {"one.more": torch.zeros(1)},
        whole | {last: torch.empty(3, 1, device="meta")},
    ):
        with pytest.raises(UserError, match="weights of another architecture"):
            check_weights(model, wrong, name)


def test_repas_published_names_are_those_of_its_study():
    listed = json.loads((DATA / "repa_sit_xl2_keys.json").read_text(encoding="utf-8"))
    shapes = {}
    for key, shape in listed["shapes"].items():
        shapes |= {key.replace("*", str(block)): shape for block in range(listed["depth"])} if "*" in key else {key: shape}
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    study = load_study("published_repa")
    with torch.device("meta"):
        model = build_denoiser(study, "baseline")
    tensors, taken = ARCHITECTURES["repa"].from_published(tensors)
    check_weights(model, tensors, "last.pt")
    assert "projectors.*" in taken["dropped"]


# ---------------------------------------------------------------------------------------------------------------- one step


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A toy of SiT's study, its latents, and weights that were trained on some like them until they know them."""
    study = parse_study(
        "toy", merge(toy_values("published_sit"), {"outlier_statistics": {"images": 32, "batch": 8}, "denoiser": {"depth": 2}})
    )
    root = tmp_path_factory.mktemp("fitted")
    torch.manual_seed(0)
    patterns = torch.randn(study.classes, study.channels, 1, 1).expand(-1, *study.latent_shape)
    labels = torch.arange(study.data.reference) % study.classes
    clean = patterns[labels] + torch.randn(len(labels), *study.latent_shape) / 10
    latents = root / "latents.safetensors"
    with artifacts.artifact(latents, stage="latents", module="harness.encoder.encode", encoder="e" * 64) as path:
        save_tensors(path, {"mean": torch.zeros(1), "std": torch.ones(1), "reference.latents": clean, "reference.labels": labels})
    model = build_denoiser(study, "baseline")
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        t, noise = torch.rand(len(clean)), torch.randn_like(clean)
        loss = flow_loss(clean, noise, t, model(at_time(clean, noise, t), t, labels), "velocity", 0.05).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return study, latents, {key: value.detach() for key, value in model.state_dict().items()}, root


def taken(fitted, root, weights, study=None):
    """Stage `released` on these weights, written as a training script does."""
    (study, latents), path = (study or fitted[0], fitted[1]), root / "assets" / "denoisers" / "sit_xl_2.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {key: torch.zeros_like(value) for key, value in weights.items()}, "ema": weights, "args": None}, path)
    record, out = root / "denoiser.released.baseline.json", root / "denoiser.safetensors"
    record_asset(study, name="denoiser.released.baseline", assets=root / "assets", out=record)
    return released.take_released(study, method="baseline", records=[record], latents=latents, out=out), path, out


def test_weights_that_know_the_latents_are_taken_with_their_file_on_record(fitted, tmp_path):
    weights = fitted[2]
    printed, path, out = taken(fitted, tmp_path, weights)
    assert 0 < printed["loss"] < released.SUSPECT * printed["loss_of_mean_and_variance"]
    assert printed["container"] == "ema"
    record = artifacts.meta(out)
    assert (record["stage"], record["method"], record["seed"], record["status"]) == ("released", "baseline", "published", "ok")
    assert file_of(record) == f"of published weights {path.name} (sha256 {artifacts.sha256(path)}, container ema)"
    assert all(torch.equal(value, weights[key]) for key, value in load_tensors(out)[0].items())


def opposite(weights):
    """As of a publisher whose velocity has the other sign: REPA's beside SiT's."""
    return weights | {key: -weights[key] for key in ("final_layer.linear.weight", "final_layer.linear.bias")}


@pytest.mark.parametrize("wrong", ["sign", "untrained", "larger latents", "smaller latents", "shifted latents"])
def test_weights_that_mean_another_thing_are_refused_before_anything_is_drawn(fitted, tmp_path, wrong):
    study, weights = fitted[0], fitted[2]
    changes = {"larger latents": (1 / 0.18215, 0), "smaller latents": (0.18215, 0), "shifted latents": (1, 3)}
    if wrong in changes:  # of a VAE whose scale is forgotten, or taken twice; statistics of another mean
        factor, shift = changes[wrong]
        latents = tmp_path / "latents.safetensors"
        tensors, _ = load_tensors(fitted[1])
        with artifacts.artifact(latents, stage="latents", module="harness.encoder.encode", encoder="e" * 64) as path:
            save_tensors(path, tensors | {"reference.latents": tensors["reference.latents"] * factor + shift})
        fitted = (study, latents, weights)
    elif wrong == "untrained":
        torch.manual_seed(1)
        weights = build_denoiser(study, "baseline").state_dict()  # its output is zero
    else:
        weights = opposite(weights)
    with pytest.raises(UserError, match="is what their mean and variance alone give"):
        taken(fitted, tmp_path, weights)
    assert not (tmp_path / "denoiser.safetensors").exists()


def test_weights_that_hardly_know_the_latents_are_told(fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(released, "SUSPECT", 0.0)
    taken(fitted, tmp_path, fitted[2])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "not far below what their mean and variance alone give" in line


def test_the_reference_of_the_step_is_the_best_linear_guess(fitted):
    """By least squares on many draws, against the formula."""
    study, latents, _, _ = fitted
    _, without = released.one_step(study, lambda x, _t, _y: torch.zeros_like(x), latents)
    clean = load_tensors(latents)[0]["reference.latents"][study.outlier_rows].double()
    left, generator = [], torch.Generator().manual_seed(0)
    for channel in clean.unbind(1):
        data = (channel - channel.mean()).flatten().repeat(40)
        noise = torch.randn(len(data), generator=generator, dtype=torch.float64)
        x, velocity = (data + noise) / 2, noise - data
        left.append((velocity - x * (x @ velocity) / (x @ x)).square().mean())
    assert without == pytest.approx(torch.stack(left).mean().item(), rel=0.02)


def test_a_method_without_published_weights_is_told(fitted, tmp_path):
    with pytest.raises(UserError, match="no published weights of 'diffusion_registers'"):
        released.take_released(fitted[0], method="diffusion_registers", records=[], latents=fitted[1], out=tmp_path / "x")
