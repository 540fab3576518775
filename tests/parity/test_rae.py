"""Golden files of RAE: what differs from it by a trap is not below the limit, and what is not implemented is refused."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import DATA
from safetensors.torch import save_file

from harness.parity import rae
from harness.parity.report import parity, parity_report
from harness.study.sections.pixels import Pixels
from harness.study.typed import UserError

PATH = DATA / "rae_dinov2.safetensors"


def failing():
    return {quantity.name for quantity in parity(PATH) if not quantity.ok}


@pytest.mark.parametrize(
    ("channels", "antialias", "fails", "agrees"),
    [
        (3, True, {"out.encoder_input", "out.latent", "out.image"}, "out.latent_16"),  # pixels; that image is not resized
        (24, False, {"encoder.hidden.0", "out.latent", "out.latent_16"}, "out.encoder_input"),  # the table of positions
    ],
)
def test_pixels_are_resized_without_antialiasing_and_positions_with_it(monkeypatch, channels, antialias, fails, agrees):
    real = F.interpolate

    def otherwise(x, **options):
        return real(x, **options | ({"antialias": antialias} if x.shape[1] == channels else {}))

    monkeypatch.setattr(F, "interpolate", otherwise)
    assert fails <= failing()
    assert agrees not in failing()


def test_the_range_is_the_encoders(monkeypatch):
    monkeypatch.setattr(rae.Pixels, "of", lambda range_, encoder: Pixels(range="signed", mean=encoder.mean, std=encoder.std))
    assert failing() == {"out.image"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": [0.5, 0.5, 0.5]}, r"image_mean: this encoder's are \(0.485, 0.456, 0.406\)"),
        ({"latent_eps": 1e-6}, "latent_eps"),
        ({"encoder": {"use_swiglu_ffn": True}}, "encoder.use_swiglu_ffn"),
    ],
)
def test_what_is_not_implemented_is_refused(golden, tmp_path, changes, message):
    config, tensors = golden(PATH.stem)
    config |= {name: config[name] | value if isinstance(value, dict) else value for name, value in changes.items()}
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, {"config": json.dumps(config)})
    with pytest.raises(UserError, match=message):
        parity(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stat.var", "'var' is not positive"),
        ("state.encoder.embeddings.register_tokens", "register_tokens' is missing in the file"),
        ("state.decoder.decoder_norm.bias", "'decoder_norm.bias' is nothing in the file"),
    ],
)
def test_a_spoiled_part_is_one_line_and_no_agreement(golden, tmp_path, name, message):
    config, tensors = golden(PATH.stem)
    tensors = tensors | {name: -tensors[name]} if name == "stat.var" else {key: value for key, value in tensors.items() if key != name}
    path = tmp_path / "spoiled.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, {"config": json.dumps(config)})
    text, good = parity_report([path])
    assert not good
    assert message in text
    assert text.count("\n") == 0
    assert str(path) in text


def test_a_tower_of_another_size_is_refused(golden, tmp_path):
    config, tensors = golden(PATH.stem)
    tensors["state.encoder.embeddings.position_embeddings"] = torch.zeros(1, 17, 24)
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, {"config": json.dumps(config)})
    with pytest.raises(UserError, match=r"position_embeddings' is \(1, 17, 24\) in the file, \(1, 50, 24\) in the model"):
        parity(path)
