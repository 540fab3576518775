"""A published decoder comes from the container that the study names, and gives pixels of the range that it names."""

import json

import pytest
import torch
from toy import make_assets, toy_values

from harness.commands.import_checkpoint import import_checkpoint
from harness.decoder.decode import images_of
from harness.decoder.registry import decoder_of, load_decoder
from harness.encoder.registry import encoder_of
from harness.encoder.whitening import Whitening
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


# ------------------------------------------------------------------------------------------------------------------- range


WHITE = Whitening(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


def constant(study, value):
    """Weights of a decoder whose output is `value` everywhere."""
    tensors = {name: torch.zeros_like(tensor) for name, tensor in decoder_of(study).build().state_dict().items()}
    return tensors | {"decoder_pred.bias": torch.full_like(tensors["decoder_pred.bias"], value)}


def decoded(tmp_path, name, backbone, value, range_, eight_bit="rounded"):
    """(3,) levels of an image, and the decoder's file, of a toy study whose published decoder gives `value` everywhere."""
    released = {backbone: {"path": "decoder.pt", "source": "toy", "range": range_}}
    values = merge(toy_values(name), {"decoder": {"released": released}, "sampling": {"eight_bit": eight_bit}})
    study = parse_study("toy", values)
    torch.save(constant(study, value), tmp_path / "decoder.pt")
    record, out = tmp_path / f"decoder.released.{backbone}.json", tmp_path / f"{range_}.safetensors"
    assets.record_asset(study, name=record.stem, assets=tmp_path, out=record)
    files = {"data": tmp_path, "latents": tmp_path, "backbone": None, "registers": None, "state": tmp_path}
    decoder_of(study).make(encoder=backbone, records=[record], out=out, **files)
    images = images_of(load_decoder(study, out), WHITE, torch.zeros(1, *study.latent_shape), 1, study.sampling.eight_bit)
    assert (images == images[:, :1, :1]).all()
    return images[0, 0, 0].tolist(), out


@pytest.mark.parametrize(
    ("name", "backbone", "range_", "value", "levels"),
    [
        ("imagenet256_dinov2_b", "trained_registers", "normalised", 0.0, [124, 116, 104]),  # ImageNet's mean colour
        ("imagenet256_dinov2_b", "trained_registers", "normalised", 1.0, [182, 173, 161]),  # one deviation above it
        ("imagenet256_siglip2_b", "plain", "normalised", 0.0, [128] * 3),
        ("imagenet256_siglip2_b", "plain", "normalised", -0.5, [64] * 3),
        ("imagenet256_siglip2_b", "plain", "unit", 0.5, [128] * 3),
        ("imagenet256_dinov2_b", "trained_registers", "unit", 0.25, [64] * 3),
        ("imagenet256_dinov2_b", "trained_registers", "signed", 0.0, [128] * 3),
        ("imagenet256_dinov2_b", "trained_registers", "signed", -1.0, [0] * 3),
    ],
)
def test_a_decoder_of_each_range_gives_the_right_pixels(tmp_path, name, backbone, range_, value, levels):
    assert decoded(tmp_path, name, backbone, value, range_)[0] == levels


def test_mid_grey_truncated(tmp_path):
    assert decoded(tmp_path, "imagenet256_siglip2_b", "plain", 0.5, "unit", "truncated")[0] == [127] * 3
    assert decoded(tmp_path, "imagenet256_dinov2_b", "trained_registers", 0.0, "normalised", "truncated")[0] == [123, 116, 103]


def test_another_range_is_another_file_and_stands_in_its_record(tmp_path):
    files = {range_: decoded(tmp_path, "imagenet256_dinov2_b", "trained_registers", 0.0, range_)[1] for range_ in ("normalised", "unit")}
    assert artifacts.checked(files["normalised"]) != artifacts.checked(files["unit"])
    said = artifacts.meta(files["normalised"])["pixels"]
    assert said == {"range": "normalised", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_an_imported_decoder_has_the_range_of_the_study(tmp_path):
    study = parse_study("toy", toy_values("imagenet256_dinov2_b"))
    torch.save(constant(study, 0.0), tmp_path / "model.pt")
    for method, level in (("trained_registers", 124), ("baseline", 128)):  # published, and none
        out = tmp_path / f"{method}.safetensors"
        import_checkpoint(tmp_path / "model.pt", study, method=method, part="decoder", out=out)
        images = images_of(load_decoder(study, out), WHITE, torch.zeros(1, *study.latent_shape), 1, "rounded")
        assert images[0, 0, 0, 0] == level


def test_a_range_has_to_be_named():
    values = toy_values("imagenet256_siglip2_b")
    del values["decoder"]["released"]["plain"]["range"]
    with pytest.raises(UserError, match=r"decoder\.released\.plain\.range: Field required"):
        parse_study("toy", values)


def test_a_record_that_does_not_say_the_range_is_refused(tmp_path):
    _, out = decoded(tmp_path, "imagenet256_siglip2_b", "plain", 0.0, "signed")
    record = artifacts.meta(out)
    artifacts.write_record(out, {name: value for name, value in record.items() if name != "pixels"})
    with pytest.raises(UserError, match="does not say what range"):
        load_decoder(parse_study("toy", toy_values("imagenet256_siglip2_b")), out)


def test_an_encoder_that_says_other_image_statistics_is_refused(tmp_path):
    study = parse_study("toy", toy_values("imagenet256_dinov2_b"))
    root = make_assets(study, tmp_path / "assets", of="encoder.trained")
    record = tmp_path / "encoder.trained_registers.weights.json"

    def make(mean):
        folder = root / study.assets[record.stem].path
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": [0.229, 0.224, 0.225]}))
        assets.record_asset(study, name=record.stem, assets=root, out=record)
        options = {"backbone": "trained_registers", "data": tmp_path, "records": [record], "state": tmp_path}
        return encoder_of(study).make(**options, out=tmp_path / "encoder")

    with pytest.raises(UserError, match=r"image_mean is \[0.5, 0.5, 0.5\] there, \[0.485, 0.456, 0.406\] for this family"):
        make([0.5] * 3)
    make([0.485, 0.456, 0.406])


def test_images_have_no_container():
    values = merge(toy_values("imagenet256_siglip2_b"), {"data": {"train": {"container": "ema"}}})
    with pytest.raises(UserError, match="container"):
        parse_study("toy", values)
