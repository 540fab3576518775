"""A study that trains its own VAE, end to end at toy size."""

import json
import re

import pytest
import torch
from pipeline import Pipeline

from harness import plan as plans
from harness.data.stage import load_data
from harness.decoder.registry import load_decoder
from harness.encoder import trained_vae
from harness.encoder.encode import make_encoder
from harness.encoder.latents import load_held_out
from harness.encoder.registry import encoder_of, load_encoder
from harness.machine import device as runtime
from harness.store.tensors import load_tensors
from harness.study import typed as config
from harness.study.study import load_study, parse_study, read_study
from harness.study.typed import UserError
from harness.training import loop

TINY = {
    "encoder": {"width": 8, "training": {"steps": 12, "batch": 16}},
    "denoiser": {"training": {"steps": 6}},
    "sampling": {"count": 60, "batch": 30, "grid_points": 4},
    "data": {"reference": 60},
    "evaluation": {
        "judge": {"training": {"steps": 10}},
        "clip": {"training": {"steps": 3}},
        "kid_subset": 50,
        "kid_subsets": 3,
        "resamples": 20,
    },
    "outlier_statistics": {"images": 20},
}


def tiny(**changes):
    return parse_study("tiny", config.merge(config.merge(read_study("digits_sit"), TINY), changes))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    runtime.set_up(1)
    return Pipeline(tiny(), tmp_path_factory.mktemp("results")).prepare(["plain"])


def folder_of(prepared):
    return prepared.backbones["plain"]


def test_a_study_with_its_own_vae_runs_end_to_end(prepared):
    prepared.run("diffusion_registers", [0])
    scores = json.loads((prepared.runs["diffusion_registers"][0] / "scores.json").read_text(encoding="utf-8"))
    assert {"fid", "rfid", "psnr"} <= set(scores["scores"])


def test_the_scale_is_that_of_the_training_latents(prepared):
    """1 / standard deviation, so that the latents of the study have about unit variance."""
    settings = json.loads((folder_of(prepared) / "config.json").read_text(encoding="utf-8"))
    tensors, _ = load_tensors(prepared.encoders["plain"].latents)
    assert tensors["train.latents"].shape == (1797 - 60, *tiny().latent_shape)
    assert tensors["train.latents"].std().item() == pytest.approx(1, abs=0.02)
    assert settings["scaling_factor"] != pytest.approx(1, abs=1e-3)
    assert encoder_of(tiny()).read(folder_of(prepared)).scale == settings["scaling_factor"]


def test_the_vae_decodes_what_it_encodes(prepared):
    study, folder = tiny(), folder_of(prepared)
    split = load_held_out(prepared.encoders["plain"].latents)
    assert load_decoder(study, folder)(split.whitening.unwhiten(split.latents[:2])).shape == (2, 3, 16, 16)
    encoded, norms = load_encoder(study, folder, None)(torch.zeros(2, 3, 16, 16), lambda shape: torch.zeros(2, *shape))
    assert encoded.shape == (2, *study.latent_shape)
    assert norms is None


def test_more_steps_reconstruct_better(prepared, tmp_path):
    longer = tiny(encoder={"training": {"steps": 60}})
    encoder_of(longer).make(backbone="plain", data=prepared.data, records=[], state=tmp_path, out=tmp_path / "longer")
    pixels = load_data(prepared.data, "reference").pixels()

    def error(study, folder):
        model = encoder_of(study).read(folder)
        return (model.decode(model.encode(pixels, torch.zeros(len(pixels), *study.latent_shape))) - pixels).abs().mean()

    assert error(longer, tmp_path / "longer") < 0.8 * error(tiny(), folder_of(prepared))


def test_a_killed_vae_resumes_to_the_same_bytes(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    original = trained_vae.batch_indices

    def stop(seed, step, *rest):
        if step == 9:
            raise KeyboardInterrupt
        return original(seed, step, *rest)

    options = {"data": prepared.data, "records": [], "state": tmp_path / "state", "out": tmp_path / "vae"}
    monkeypatch.setattr(trained_vae, "batch_indices", stop)
    with pytest.raises(KeyboardInterrupt):
        make_encoder(tiny(), backbone="plain", **options)
    assert not (tmp_path / "vae").exists()
    assert list((tmp_path / "state").glob("encoder-*/checkpoint.safetensors"))
    monkeypatch.setattr(trained_vae, "batch_indices", original)
    make_encoder(tiny(), backbone="plain", **options)
    for path in folder_of(prepared).iterdir():
        assert (tmp_path / "vae" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 8}, "encoder.channels is 4 there, 8 in the study"),
        ({"downsampling": 8}, "encoder.downsampling is 4 there, 8 in the study"),
        ({"width": 16}, "encoder.width is 8 there, 16 in the study"),
    ],
)
def test_a_vae_of_other_sizes_is_refused(prepared, changes, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_encoder(tiny(encoder=changes), folder_of(prepared), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"downsampling": 3}}, "encoder.downsampling 3 is not a power of two"),
        ({"encoder": {"downsampling": 32}}, "encoder.downsampling 32 does not divide data.image_size 16"),
        ({"encoder": {"width": 12}}, "encoder.width"),
        ({"encoder": {"scale": 0.5}}, "encoder: scale belongs to kind vae, not to trained_vae"),
        ({"outliers": "planted"}, "outliers can be planted only into an encoder that the study trains"),
        ({"decoder": {"kind": "vit"}}, "decoder"),
    ],
)
def test_a_section_that_cannot_be_is_one_line(changes, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        tiny(**changes)
    assert "\n" not in str(caught.value)


def test_the_plan_counts_both_halves_of_the_vae():
    study = load_study("digits_sit")
    plan = plans.make_plan(study)
    [encoder] = [stage for stage in plan.shared if stage.name == "encoder"]
    [encoded] = [stage for stage in plan.shared if stage.name == "latents"]
    training = study.encoder.training
    assert encoder.parameters == sum(p.numel() for p in encoder_of(study).build().parameters())
    assert encoder.forward > 2 * encoded.forward  # the decoder's three levels have one block more each
    assert encoder.flops == 3 * encoder.forward * training.steps * training.batch
