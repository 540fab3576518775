"""RAE's DINOv2 and its decoder through the stages, as published files: what comes out is what RAE's own code gave."""

from types import SimpleNamespace

import pytest
import torch
from conftest import error
from toy import make_assets, toy_values
from transformers import Dinov2WithRegistersConfig

from harness.data.stage import make_data
from harness.decoder.decode import images_of, make_decoder
from harness.decoder.registry import load_decoder
from harness.encoder.encode import make_encoder, make_latents
from harness.encoder.registry import load_encoder
from harness.encoder.whitening import load_whitening
from harness.store.assets import record_asset
from harness.store.tensors import save_tensors
from harness.study.study import parse_study
from harness.study.typed import merge

BACKBONE = "trained_registers"
LIMIT = 1e-5


@pytest.fixture(scope="module")
def rae(golden, tmp_path_factory):
    """The stages up to the decoder over RAE's files, and its tensors."""
    (config, tensors), root = golden("rae_dinov2"), tmp_path_factory.mktemp("rae")

    def below(prefix):
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    sizes = {
        "data": {"image_size": 20},
        "encoder": {"image_size": 16, "patch": 4, "width": 24, "depth": 3, "heads": 3, "mlp": 96},
        "decoder": {"patch": 5, "width": 20, "depth": 2, "heads": 2, "mlp": 40},
        "latents": {"statistics": {BACKBONE: {"path": "stat.pt", "source": "RAE"}}},
    }
    study = parse_study("rae", merge(toy_values("imagenet256_dinov2_b"), sizes))
    make_assets(study, root, of="data.")
    folder, decoder = root / study.encoder.trained_registers.weights.path, root / study.decoder.released[BACKBONE].path
    Dinov2WithRegistersConfig(**config["encoder"]).save_pretrained(folder)
    save_tensors(folder / "model.safetensors", below("state.encoder."))
    decoder.parent.mkdir(parents=True)
    torch.save(below("state.decoder."), decoder)
    torch.save(below("stat."), root / "stat.pt")

    fields = ("data.", f"encoder.{BACKBONE}", f"decoder.released.{BACKBONE}", "latents.")
    names = [name for name in study.assets if name.startswith(fields)]
    records = [root / "records" / f"{name}.json" for name in names]
    for name, record in zip(names, records, strict=True):
        record_asset(study, name=name, assets=root, out=record)
    data, backbone, latents, weights = (root / name for name in ("data", "backbone", "latents.safetensors", "decoder.safetensors"))
    make_data(study, records=records, out=data)
    make_encoder(study, backbone=BACKBONE, data=data, records=records, state=root, out=backbone)
    make_latents(study, encoder=BACKBONE, data=data, backbone=backbone, records=records, out=latents)
    make_decoder(study, encoder=BACKBONE, data=data, latents=latents, backbone=backbone, records=records, state=root, out=weights)
    return SimpleNamespace(
        tensors=tensors, encode=load_encoder(study, backbone, None), whitening=load_whitening(latents), decode=load_decoder(study, weights)
    )


@pytest.mark.parametrize(("image", "latent"), [("in.image", "out.latent"), ("in.image_16", "out.latent_16")])
def test_latents_are_those_of_raes_code(rae, image, latent):
    raw, _ = rae.encode(2 * rae.tensors[image] - 1, None)
    assert error(rae.whitening.whiten(raw), rae.tensors[latent]) < LIMIT


def test_norms_are_those_of_raes_residual_stream(rae):
    _, norms = rae.encode(2 * rae.tensors["in.image"] - 1, None)
    patches = torch.stack([rae.tensors[f"encoder.hidden.{layer}"][:, 5:].norm(dim=-1) for layer in range(4)], dim=1)
    assert error(norms, patches) < LIMIT


def test_images_are_those_of_raes_code(rae):
    pixels = rae.decode(rae.whitening.unwhiten(rae.tensors["out.latent"]))
    assert error((pixels + 1) / 2, rae.tensors["out.image"]) < LIMIT


def test_eight_bits_are_those_of_the_released_sampler(rae):
    released = rae.tensors["out.image"].clamp(0, 1).mul(255).permute(0, 2, 3, 1).to(torch.uint8)
    ours = torch.from_numpy(images_of(rae.decode, rae.whitening, rae.tensors["out.latent"], 1, "truncated"))
    assert (ours != released).float().mean() < 1e-3  # but where a level is met to the last digit
    assert (ours.int() - released.int()).abs().max() <= 1
    rounded = torch.from_numpy(images_of(rae.decode, rae.whitening, rae.tensors["out.latent"], 2, "rounded"))
    assert 0.3 < (rounded.int() - released.int()).float().mean() < 0.7
