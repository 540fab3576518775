"""A published decoder comes from the container that the study names."""

import pytest
import torch
from toy import toy_values

from harness.decoder.registry import decoder_of
from harness.store import artifacts, assets
from harness.store.tensors import load_tensors
from harness.study.study import parse_study
from harness.study.typed import UserError, merge


def made(tmp_path, content, **asset):
    """The decoder's tensors and the record of them."""
    released = {"plain": {"path": "decoder.pt", "source": "toy", **asset}}
    study = parse_study("toy", merge(toy_values("imagenet256_siglip2_b"), {"decoder": {"released": released}}))
    kind = decoder_of(study)
    torch.save(content(kind.build().state_dict()), tmp_path / "decoder.pt")
    record, out = tmp_path / "decoder.released.plain.json", tmp_path / "decoder.safetensors"
    assets.record_asset(study, name="decoder.released.plain", assets=tmp_path, out=record)
    files = {"data": tmp_path, "latents": tmp_path, "backbone": None, "registers": None, "state": tmp_path}
    printed = kind.make(encoder="plain", records=[record], out=out, **files)
    assert printed["container"] == artifacts.meta(out)["container"]
    return load_tensors(out)[0], printed["container"]


def two_averages(weights):
    filled = [{name: torch.full_like(value, fill) for name, value in weights.items()} for fill in (1, 2, 3)]
    return dict(zip(("model", "ema_model", "model_ema"), filled, strict=True))


def test_the_studys_container_decides(tmp_path):
    for name, fill in (("ema_model", 2), ("model_ema", 3), ("model", 1)):
        tensors, container = made(tmp_path, two_averages, container=name)
        assert container == name
        assert all((value == fill).all() for value in tensors.values())


def test_several_averages_without_a_container_in_the_study_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"decoder.pt: several averages: 'ema_model' .*, 'model_ema' .*container:"):
        made(tmp_path, two_averages)
    assert not (tmp_path / "decoder.safetensors").exists()


def test_images_have_no_container():
    values = merge(toy_values("imagenet256_siglip2_b"), {"data": {"train": {"container": "ema"}}})
    with pytest.raises(UserError, match="container"):
        parse_study("toy", values)
