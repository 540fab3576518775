import pytest
import torch
from conftest import error
from transformers import SiglipVisionConfig, SiglipVisionModel

from harness.config import UserError
from harness.models import encoder as encoders
from harness.models.decoder import ViTDecoder


def test_siglip_tower_agrees_with_the_authors_encoder(golden):
    config, expected = golden("siglip_ttr_1register")
    tower = SiglipVisionModel(SiglipVisionConfig(**config["vision_config"], vision_use_head=False))
    tower.load_state_dict({key.removeprefix("state."): value for key, value in expected.items() if key.startswith("state.")}, strict=True)
    model = encoders.VisionEncoder(tower).eval()
    with torch.no_grad():
        for layer, state in enumerate(model.hidden_states(expected["in.pixel_values"])):
            assert error(state, expected[f"plain.hidden.{layer}"]) < 1e-5
        assert error(model(expected["in.pixel_values"]), expected["plain.last_hidden_state"]) < 1e-5


def test_decoder_agrees_with_the_authors_decoder(golden):
    config, expected = golden("rae_decoder")
    model = ViTDecoder(
        channels=config["encoder_hidden_size"],
        grid=config["grid"],
        patch=config["patch_size"],
        width=config["decoder_hidden_size"],
        depth=config["decoder_num_hidden_layers"],
        heads=config["decoder_num_attention_heads"],
        mlp=config["decoder_intermediate_size"],
        eps=config["layer_norm_eps"],
    )
    model.load_state_dict({key.removeprefix("state."): value for key, value in expected.items() if key.startswith("state.")}, strict=True)
    with torch.no_grad():
        assert error(model.logits(expected["in.tokens"]), expected["out.logits"]) < 1e-5
        assert error(model(expected["in.tokens"]), expected["out.image"]) < 1e-5


def test_final_norm_has_no_affine_part(built):
    norm = encoders.load(built.backbones["plain"]).final_norm
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert not norm.bias.any()


def test_trained_registers_take_part_but_do_not_come_out(built, study):
    from harness import data

    pixels = data.load(built.data, "reference").pixels()[:4]
    model = encoders.load(built.backbones["trained_registers"])
    patches = study.grid**2
    assert model(pixels).shape == (4, patches, study.encoder.width)
    assert model.all_hidden_states(pixels)[0].shape[1] == patches + study.encoder.trained_registers
    before = model(pixels)
    model.registers.data.mul_(-5)
    assert not torch.allclose(before, model(pixels))


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    from harness import artifacts

    with artifacts.artifact(tmp_path / "x", stage="test", module="harness.data") as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not a SigLIP vision tower"):
        encoders.load(tmp_path / "x")
