import copy

import pytest
import torch
from conftest import error
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from toy import make_assets, toy_study
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel, ViTModel

from harness.decoder.vit import ViTDecoder
from harness.encoder import tower as tower_model
from harness.encoder import tower_files
from harness.encoder.families import FAMILIES, Family
from harness.encoder.registry import encoder_of
from harness.store import artifacts, assets
from harness.study.sections import encoder as sections
from harness.study.typed import UserError

SHAPE = {"width": 32, "depth": 3, "heads": 2, "mlp": 64, "patch": 8, "image_size": 32}
TOWERS = {
    "siglip": {"family": "siglip"},
    "siglip_learned_registers": {"family": "siglip", "registers": 2},
    "dinov2": {"family": "dinov2"},
    "dinov2_with_registers": {"family": "dinov2_with_registers", "registers": 4},
}
TOKENS = {"siglip": (0, 16, 0), "siglip_learned_registers": (0, 16, 2), "dinov2": (1, 16, 0), "dinov2_with_registers": (5, 16, 0)}


def random_encoder(name, **changes):
    torch.manual_seed(3)
    return tower_model.build_tower(**TOWERS[name], **(SHAPE | changes)).eval().requires_grad_(False)


@pytest.fixture(params=TOWERS)
def name(request):
    return request.param


@pytest.fixture
def encoder(name):
    return random_encoder(name)


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def saved(encoder, folder):
    with artifacts.artifact(folder, stage="test", module="harness.data.stage") as temporary:
        tower_files.save_tower(encoder, temporary)
    return folder


# ----------------------------------------------------------------------------------------------------------------- golden


def test_siglip_tower_agrees_with_the_authors_encoder(golden):
    config, expected = golden("siglip_ttr_1register")
    tower = SiglipVisionModel(SiglipVisionConfig(**config["vision_config"], vision_use_head=False))
    tower.load_state_dict({key.removeprefix("state."): value for key, value in expected.items() if key.startswith("state.")}, strict=True)
    model = tower_model.VisionEncoder(tower).eval()
    with torch.no_grad():
        for layer, state in enumerate(model.hidden_states(expected["in.pixel_values"])):
            assert error(state, expected[f"plain.hidden.{layer}"]) < 1e-5
        assert error(model(expected["in.pixel_values"]), expected["plain.last_hidden_state"]) < 1e-5


def test_decoder_agrees_with_the_authors_decoder(golden):
    config, expected = golden("rae_decoder")
    model = ViTDecoder(
        channels=config["encoder_hidden_size"],
        side=config["grid"],
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


# ----------------------------------------------------------------------------------------------------------- every family


def test_every_family_has_the_same_attributes(encoder, name):
    prefix, patches, extra = TOKENS[name]
    assert (encoder.family, encoder.width, encoder.depth) == (FAMILIES[TOWERS[name]["family"]], 32, 3)
    assert (encoder.prefix, encoder.patches, encoder.side, encoder.image_size) == (prefix, patches, 4, 32)
    assert (0 if encoder.registers is None else len(encoder.registers)) == extra
    assert encoder.tower.config._attn_implementation == "sdpa"


def test_tokens_are_the_tower_s_own(encoder, images):
    theirs = encoder.tower(pixel_values=encoder.fed(images), output_hidden_states=True)
    states = encoder.all_hidden_states(images)
    assert len(states) == len(theirs.hidden_states) == encoder.depth + 1
    assert all(torch.equal(a, b) for a, b in zip(states, theirs.hidden_states, strict=True))
    patches = slice(encoder.prefix, encoder.prefix + 16)
    assert torch.equal(encoder(images), theirs.last_hidden_state[:, patches])
    assert all(torch.equal(a, b[:, patches]) for a, b in zip(encoder.hidden_states(images), theirs.hidden_states, strict=True))


def test_one_pass_gives_the_same_tokens_and_norms(encoder, images):
    tokens, norms = encoder.encode(images)
    assert torch.equal(tokens, encoder(images))
    assert norms.shape == (5, encoder.depth + 1, 16)
    assert torch.equal(norms, torch.stack([state.norm(dim=-1) for state in encoder.hidden_states(images)], dim=1))


def test_final_norm_has_no_affine_part_in_any_family(encoder, images):
    tokens = encoder(images)
    assert torch.allclose(tokens, F.layer_norm(encoder.hidden_states(images)[-1], (32,), eps=encoder.final_norm.eps), atol=1e-6)
    assert not encoder.final_norm.weight.requires_grad


def test_trap7_a_batch_of_two_is_not_split(encoder, images):
    tokens = encoder(images[:2])
    assert tokens.shape == (2, 16, 32)
    assert torch.allclose(tokens, torch.cat([encoder(images[:1]), encoder(images[1:2])]), atol=1e-5)


def test_trap10_hidden_states_of_a_batch_have_a_row_for_each_image(encoder, images):
    states = encoder.hidden_states(images)
    assert [tuple(state.shape) for state in states] == [(5, 16, 32)] * 4
    for state, alone in zip(states, encoder.hidden_states(images[3:4]), strict=True):
        assert torch.allclose(state[3:4], alone, atol=1e-5)


def test_tokens_do_not_depend_on_the_batch(encoder, images):
    assert torch.allclose(encoder(images), torch.cat([encoder(images[:3]), encoder(images[3:])]), atol=1e-5)


def test_images_of_another_size_are_resized_as_released(encoder):
    images = torch.rand(2, 3, 40, 40) * 2 - 1
    resized = F.interpolate(images, size=(32, 32), mode="bicubic", align_corners=False)
    assert torch.equal(encoder(images), encoder(resized))


def test_siglip_is_fed_the_pixels_as_they_are(images):
    assert random_encoder("siglip").fed(images) is images


def test_dinov2_is_fed_imagenet_normalised_pixels(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((images.movedim(1, -1) + 1) / 2 - mean) / std
    assert torch.allclose(random_encoder("dinov2").fed(images).movedim(1, -1), expected, atol=1e-5)


def test_unexpected_token_counts_are_refused(encoder, images, name):
    encoder.tower.embeddings.register_forward_hook(lambda _m, _i, out: out[:, 1:])
    made = sum(TOKENS[name]) - 1
    with pytest.raises(UserError, match=rf"made {made} tokens of an image of 32 pixels; .* {encoder.prefix} \+ 16 patches") as refusal:
        encoder(images)
    assert "\n" not in str(refusal.value)


def test_towers_can_be_planned_without_memory(name):
    with torch.device("meta"):
        encoder = tower_model.build_tower(**TOWERS[name], width=768, depth=12, heads=12, mlp=3072, patch=14, image_size=224)
        assert encoder(torch.empty(2, 3, 256, 256)).shape == (2, 256, 768)
    assert {parameter.device.type for parameter in encoder.parameters()} == {"meta"}


def test_impossible_shapes_are_refused():
    with pytest.raises(UserError, match="do not fill an image of 30 pixels"):
        random_encoder("dinov2", image_size=30)
    with pytest.raises(UserError, match="whole multiple of its width; 80 is none of 32"):
        random_encoder("dinov2", mlp=80)


def test_layers_elsewhere_are_refused(encoder):
    encoder.tower.encoder = torch.nn.Identity()
    with pytest.raises(UserError, match="keeps its layers elsewhere"):
        encoder.all_hidden_states(torch.zeros(1, 3, 32, 32))


def test_a_new_family_is_a_line_in_each_registry(images, tmp_path, monkeypatch):
    facts = Family(ViTModel, lambda _width, mlp: {"intermediate_size": mlp}, final_norm="layernorm", cls_tokens=1, layers=("layers",))
    monkeypatch.setitem(FAMILIES, "vit", facts)
    monkeypatch.setitem(sections.FAMILIES, "vit", sections.Family(1))
    assert sections.Pretrained(family="vit", weights={"source": "timm", "path": "vit"}).family == "vit"
    model = tower_model.build_tower("vit", **SHAPE).eval()
    theirs = model.tower(images).last_hidden_state
    assert torch.equal(model(images), theirs[:, 1:])
    again = tower_files.load_tower(saved(model, tmp_path / "x"))
    assert torch.equal(again(images), theirs[:, 1:])
    with pytest.raises(UserError, match="a vit encoder, not siglip"):
        tower_files.read_pretrained(tmp_path / "x", family="siglip")


# ------------------------------------------------------------------------------------------------------------------ files


def test_round_trip(encoder, images, tmp_path):
    model = tower_files.load_tower(saved(encoder, tmp_path / "x"))
    assert torch.equal(model(images), encoder(images))
    assert model.state_dict().keys() == encoder.state_dict().keys()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["dinov2", "dinov2_with_registers"])
def test_dinov2_is_fed_other_sizes_than_it_was_made_for(tmp_path, name):
    saved(random_encoder(name, image_size=56), tmp_path / "x")
    encoder = tower_files.read_pretrained(tmp_path / "x", family=name, image_size=32)
    images = torch.rand(2, 3, 32, 32)
    assert (encoder.image_size, encoder.side) == (32, 4)
    assert encoder(images).shape == (2, 16, 32)
    again = tower_files.load_tower(saved(encoder, tmp_path / "y"))
    assert again.image_size == 32
    assert torch.equal(again(images), encoder(images))


def test_siglip_is_fed_its_own_size_only(tmp_path):
    saved(random_encoder("siglip"), tmp_path / "x")
    with pytest.raises(UserError, match="made for images of 32 pixels, not of 48"):
        tower_files.read_pretrained(tmp_path / "x", image_size=48)


@pytest.fixture
def whole_siglip(tmp_path):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = SiglipConfig(vision_config=shape | {"image_size": 32, "patch_size": 8}, text_config=shape | {"vocab_size": 50})
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path / "whole")
    return model, tmp_path / "whole"


def test_trap22b_of_a_whole_siglip_only_the_vision_tower_is_kept(whole_siglip, images):
    theirs, folder = whole_siglip
    encoder = tower_files.read_pretrained(folder, family="siglip")
    assert {key.split(".")[1] for key in encoder.state_dict()} == {"embeddings", "encoder", "post_layernorm"}
    with torch.no_grad():
        expected = theirs.vision_model(images, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(encoder.hidden_states(images), expected, strict=True))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights, next(key for key in weights if key.endswith("layers.1.mlp.fc1.weight") and "text" not in key))
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, key: w.pop(key), r"another architecture: 'encoder.layers.1.mlp.fc1.weight' is missing"),
        (
            lambda w, key: w.update({key: torch.zeros(3, 4)}),
            r"'encoder.layers.1.mlp.fc1.weight' is \(3, 4\) in the file, \(64, 32\) in the",
        ),
        (lambda w, _: w.update({"vision_model.bogus": torch.zeros(2)}), r"another architecture: the model has no 'bogus'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(whole_siglip, change, message):
    change_weights(whole_siglip[1], change)
    with pytest.raises(UserError, match=message) as refusal:
        tower_files.read_pretrained(whole_siglip[1])
    assert "\n" not in str(refusal.value)


def test_truncated_weights_are_refused(whole_siglip):
    path = whole_siglip[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="its weights cannot be read") as refusal:
        tower_files.read_pretrained(whole_siglip[1])
    assert "\n" not in str(refusal.value)


def test_another_family_is_refused(encoder, name, tmp_path):
    saved(encoder, tmp_path / "x")
    family = TOWERS[name]["family"]
    other = "dinov2" if family == "siglip" else "siglip"
    with pytest.raises(UserError, match=f"a {family} encoder, not {other}"):
        tower_files.read_pretrained(tmp_path / "x", family=other)


def test_a_tower_of_variable_resolution_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip2"}', encoding="utf-8")
    with pytest.raises(UserError, match="a 'siglip2' model; the encoders are siglip"):
        tower_files.read_pretrained(tmp_path)


@pytest.mark.parametrize("source", ["google/siglip2-base-patch16-256", "no/such/folder", "/no/such/folder"])
def test_a_missing_model_is_refused_without_asking_the_network(source, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked for an address"))
    with pytest.raises(UserError, match=r"neither a local folder nor in the hub cache; .*hf download") as refusal:
        tower_files.read_pretrained(source)
    assert "\n" not in str(refusal.value)


def test_a_file_is_no_encoder(tmp_path):
    (tmp_path / "x").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="a file; an encoder is a folder"):
        tower_files.read_pretrained(tmp_path / "x")


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    with artifacts.artifact(tmp_path / "x", stage="test", module="harness.data.stage") as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not a vision encoder"):
        tower_files.load_tower(tmp_path / "x")


def test_a_changed_folder_is_refused(encoder, tmp_path):
    saved(encoder, tmp_path / "x")
    (tmp_path / "x" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="corrupted or truncated"):
        tower_files.load_tower(tmp_path / "x")


def test_a_deep_copy_is_the_same_encoder_and_stands_alone(encoder, images):
    before = encoder(images)
    twin = copy.deepcopy(encoder)
    encoder.tower.embeddings.register_forward_hook(lambda _m, _i, out: out * 2)
    if encoder.registers is not None:
        encoder.registers.data.mul_(-5)
    assert torch.equal(twin(images), before)
    assert not torch.allclose(encoder(images), before)


# --------------------------------------------------------------------------------------------------- of an embedded study


def test_final_norm_has_no_affine_part(built):
    norm = tower_files.load_tower(built.backbones["plain"]).final_norm
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert not norm.bias.any()


def test_trained_registers_take_part_but_do_not_come_out(built, study):
    from harness.data.stage import load_data

    pixels = load_data(built.data, "reference").pixels()[:4]
    model = tower_files.load_tower(built.backbones["trained_registers"])
    patches = study.latent_side**2
    assert model(pixels).shape == (4, patches, study.encoder.width)
    assert model.all_hidden_states(pixels)[0].shape[1] == patches + study.encoder.trained_registers
    before = model(pixels)
    model.registers.data.mul_(-5)
    assert not torch.allclose(before, model(pixels))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x.fill_(torch.nan), "is not finite"),
        (lambda x: x.to(torch.int8), "is int8"),
        (lambda x: x.to(torch.float8_e5m2), "is float8_e5m2"),
    ],
)
def test_a_tower_that_would_be_cast_or_computed_with_in_silence_is_refused(tmp_path, spoil, says):
    study = toy_study("imagenet256_siglip2_b")
    make_assets(study, tmp_path, "encoder.")
    record, out = tmp_path / "encoder.plain.weights.json", tmp_path / "encoder"
    file = tmp_path / study.assets[record.stem].path / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    save_file(tensors | {name: spoil(tensors[name].clone())}, file, {"format": "pt"})
    assets.record_asset(study, name=record.stem, assets=tmp_path, out=record)
    with pytest.raises(UserError, match=rf"model.safetensors: '{name}' {says}"):
        encoder_of(study).make(backbone="plain", data=tmp_path, records=[record], state=tmp_path, out=out)
    assert not out.exists()
