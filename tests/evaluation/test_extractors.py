"""Extractors of image features: real entry points of timm, transformers and open_clip, at toy sizes, with weights that the tests write."""

import hashlib
import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch_fidelity.utils import get_featuresdict_from_dataset

from harness.commands.peers.images import random_inception
from harness.evaluation.extractors import clip_vision, dinov2, inception, timm_networks
from harness.evaluation.extractors.registry import KINDS, load_extractor
from harness.evaluation.extractors.resize import RESIZES, prepare
from harness.evaluation.features import Images
from harness.evaluation.judge.inception import InceptionExtractor
from harness.machine.streams import seed_initialisation, stream
from harness.study.sections.extractors import EXTRACTORS
from harness.study.typed import UserError

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}
CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8}
SHAPES = {
    "convnext_fdr6": {"depths": [1, 1, 1, 1], "dims": [8, 8, 12, 16]},
    **dict.fromkeys(("dinov2_fdr6", "mae_fdr6", "siglip_fdr6", "clip_fdr6"), VIT),
    **dict.fromkeys(("dinov2_dgm_eval", "dinov2_dgm_eval_clean", "dinov2_edm2", "dinov2_torch_fidelity"), VIT),
    "clip_cmmd": CLIP,
}
DINOV2 = [name for name, info in EXTRACTORS.items() if info.kind == "dinov2"]
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 5, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},  # a tokenizer that no image needs
}


def images_of(count, height=40, width=52):
    return torch.randint(0, 256, (count, 3, height, width), generator=stream(0, "images"), dtype=torch.uint8)


def spread(model):
    """Weights that no feature is deaf to; some layers begin at 0 or 1e-6."""
    seed_initialisation(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def network_of(name, **more):
    """The extractor's network at toy size, as its weights are published."""
    info = EXTRACTORS[name]
    if info.kind == "clip_vision":
        return spread(clip_vision.build(**SHAPES[name]))
    size = {"img_size": dinov2.TRAINED_AT} if info.kind == "dinov2" else {}
    return spread(timm_networks.build(info, **size, **SHAPES[name], **more))


@pytest.fixture
def toy(tmp_path):
    """name -> its extractor, with weights from a file."""

    def load(name, **options):
        path = tmp_path / f"{name}.safetensors"
        if not path.exists():
            save_file(network_of(name).state_dict(), path)
        return load_extractor(name, path, shape=SHAPES[name], **options)

    return load


@pytest.fixture
def folder(tmp_path):
    """A folder of open_clip's, and the model in it."""
    model = spread(open_clip.CLIP(**TINY)).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    written = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(written), encoding="utf-8")
    return tmp_path, model


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(random_inception(), path)
    return path


def close(ours, theirs):
    return (ours - theirs).norm() <= 1e-5 * theirs.norm()


# ---------------------------------------------------------------------------------------------------------------- features


def test_every_kind_has_its_loader_and_every_resize_its_function():
    assert {info.kind for info in EXTRACTORS.values()} == {*KINDS}
    assert {info.resize for info in EXTRACTORS.values()} - {"own"} == {*RESIZES}
    assert {info.feature for info in EXTRACTORS.values() if info.kind in ("timm", "dinov2")} == {*timm_networks.FEATURE}


@pytest.mark.parametrize("name", SHAPES)
def test_features_do_not_depend_on_the_batch(name, toy):
    extractor, images = toy(name), images_of(3)
    whole = extractor.extract(images)["features"]
    single = torch.cat([extractor.extract(images[i : i + 1])["features"] for i in range(3)])
    assert whole.dtype == torch.float32
    assert whole.shape == (3, 8 if name == "clip_cmmd" else 16)
    assert close(whole, single)
    assert min((whole[i] - whole[j]).norm() / whole[i].norm() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-4  # three images, three features


@pytest.mark.parametrize("name", EXTRACTORS)
def test_an_image_becomes_the_square_that_the_network_is_fed(name):
    info = EXTRACTORS[name]
    if info.resize == "own":
        return
    pixels = prepare(images_of(2), info)
    assert pixels.shape == (2, 3, info.side, info.side)
    black, white = (prepare(torch.full((1, 3, 8, 8), level, dtype=torch.uint8), info)[0, :, 3, 3] for level in (0, 255))
    mean, std = (torch.tensor(values) for values in info.statistics)
    assert torch.allclose(black, -mean / std, atol=1e-5)
    assert torch.allclose(white, (1 - mean) / std, atol=1e-5)


def test_four_resizes_of_fd_dinov2_are_four_features(toy):
    """Which is why each has a name of its own."""
    images = images_of(1)
    features = [toy(name).extract(images)["features"] for name in DINOV2]
    distances = [(one - other).norm() / one.norm() for i, one in enumerate(features) for other in features[:i]]
    assert len(distances) == 6
    assert min(distances) > 1e-4


def test_positions_of_dinov2_are_stretched_as_metas_code_does():
    """Cubic convolution at a = -.75 in float64, at a scale of 16.1 / 37, borders repeated; timm's table is another one."""
    table = torch.randn(1, 1 + 37 * 37, 2, generator=stream(0, "table"))
    weights = torch.zeros(16, 37, dtype=torch.float64)
    for place in range(16):
        centre = (place + 0.5) * 37 / 16.1 - 0.5
        first = int(centre // 1) - 1
        for source in range(first, first + 4):
            x = abs(centre - source)
            near, far = (1.25 * x - 2.25) * x * x + 1, ((-0.75 * x + 3.75) * x - 6) * x + 3
            weights[place, min(max(source, 0), 36)] += near if x <= 1 else far
    square = table[0, 1:].double().reshape(37, 37, 2)
    wanted = torch.einsum("ia,jb,abc->ijc", weights, weights, square).reshape(1, 256, 2)
    ours = dinov2.resampled(table, 16)
    assert torch.equal(ours[:, :1], table[:, :1])
    assert (ours[:, 1:] - wanted).norm() <= 1e-5 * wanted.norm()
    timms = F.interpolate(square.permute(2, 0, 1)[None], size=(16, 16), mode="bicubic", antialias=True)
    assert (wanted - timms.flatten(2).transpose(1, 2)).norm() > 0.05 * wanted.norm()


def test_fd_dinov2_takes_metas_own_file(toy, tmp_path):
    tensors = network_of("dinov2_edm2").state_dict()
    torch.save({**tensors, "mask_token": torch.zeros(1, 16)}, tmp_path / "dinov2_vitl14_pretrain.pth")
    published = load_extractor("dinov2_edm2", tmp_path / "dinov2_vitl14_pretrain.pth", shape=VIT)
    images = images_of(1)
    assert torch.equal(published.extract(images)["features"], toy("dinov2_edm2").extract(images)["features"])


def test_a_classifier_in_the_file_is_left_out(toy, tmp_path):
    own = network_of("convnext_fdr6").state_dict()
    more = network_of("convnext_fdr6", num_classes=5).state_dict()
    assert {*more} - {*own} == {"head.fc.weight", "head.fc.bias"}
    torch.save(more | own, tmp_path / "whole.pth")
    whole = load_extractor("convnext_fdr6", tmp_path / "whole.pth", shape=SHAPES["convnext_fdr6"])
    assert torch.equal(whole.extract(images_of(1))["features"], toy("convnext_fdr6").extract(images_of(1))["features"])


def test_cmmd_takes_the_folder_of_a_whole_clip_and_embeds_as_transformers_does(tmp_path):
    from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

    vision = {**clip_vision.SHAPE, **CLIP}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    spread(CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))).save_pretrained(tmp_path)
    extractor, images = load_extractor("clip_cmmd", tmp_path, shape=CLIP), images_of(2)
    theirs = CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        embedded = theirs(pixel_values=prepare(images, EXTRACTORS["clip_cmmd"])).image_embeds
    features = extractor.extract(images)["features"]
    assert close(features, F.normalize(embedded))
    assert torch.allclose(features.norm(dim=1), torch.ones(2))
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    said["vision_config"]["hidden_act"] = "gelu"
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(UserError, match="hidden_act is gelu there, quick_gelu in the network"):
        load_extractor("clip_cmmd", tmp_path, shape=CLIP)


def test_an_open_clip_folder_says_how_its_images_are_prepared(folder):
    path, _ = folder
    extractor, images = load_extractor("open_clip", path), images_of(2)
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{path}")
    with torch.no_grad():
        embedded = theirs.eval().encode_image(torch.stack([transform(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in images]))
    features = extractor.extract(images)["features"]
    assert close(features, embedded)
    assert close(features[1:], extractor.extract(images[1:])["features"])
    assert (extractor.info.width, extractor.info.side, extractor.info.family) == (8, 32, "clip")
    assert extractor.info.statistics == ((0.5,) * 3, (0.25,) * 3)
    with pytest.raises(UserError, match="a file; extractor 'open_clip' needs the folder"):
        load_extractor("open_clip", path / "open_clip_model.safetensors")


def test_inception_gives_all_that_it_has_in_one_pass(inception_file):
    extractor, images = load_extractor("inception", inception_file), images_of(2)
    fed, branch = [], []
    extractor.network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _module, inputs: fed.append(inputs[0]))
    extractor.network.Mixed_6d.branch1x1.bn.register_forward_hook(lambda _module, _inputs, output: branch.append(output.clone()))
    outputs = extractor.extract(images)
    assert [(name, values.shape[1]) for name, values in outputs.items()] == [("features", 2048), ("logits", 1008), ("spatial", 2023)]
    assert len(fed) == len(branch) == 1
    for channel, row, column in ((0, 0, 0), (6, 0, 1), (3, 9, 4), (6, 16, 16)):
        assert torch.equal(outputs["spatial"][:, (row * 17 + column) * 7 + channel], branch[0][:, channel, row, column].relu())
    assert outputs["spatial"].std() > 1e-3
    assert (fed[0] - prepare(images, EXTRACTORS["inception"])).abs().max() < 1e-6
    judge = InceptionExtractor("judge", ["2048", "logits_unbiased"], random_inception(), inception_file)
    for ours, theirs in zip((outputs["features"], outputs["logits"]), judge(images), strict=True):
        assert close(ours, theirs)


def test_torch_fidelity_reads_images_through_an_extractor(toy):
    """Its own loop over a data set: the interface is whole."""
    extractor, images = toy("mae_fdr6"), images_of(3)
    outputs = get_featuresdict_from_dataset(Images(images.permute(0, 2, 3, 1).numpy()), extractor, 2, False, True, False)
    assert close(outputs["features"], extractor.extract(images)["features"])


def test_bf16_is_only_taken_where_it_is_asked_for(toy):
    images = images_of(2)
    plain, asked = (toy("mae_fdr6", precision=precision).extract(images)["features"] for precision in ("fp32", "bf16"))
    assert toy("mae_fdr6").precision == "fp32"
    assert asked.dtype == torch.float32
    assert 1e-4 < (plain - asked).norm() / plain.norm() < 0.1


def test_the_file_is_recorded(toy, tmp_path):
    extractor = toy("mae_fdr6")
    digest = hashlib.sha256((tmp_path / "mae_fdr6.safetensors").read_bytes()).hexdigest()
    assert extractor.source == (tmp_path / "mae_fdr6.safetensors", digest, ".")
    assert toy("mae_fdr6", sha256=digest[:12]).source.sha256 == digest


# ----------------------------------------------------------------------------------------------------------------- refused


def refused(match, name, path, **options):
    with pytest.raises(UserError, match=match) as caught:
        load_extractor(name, path, **options)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused_with_where_it_is_published(tmp_path):
    wanted = r"no such file; extractor 'mae_fdr6' needs the weights that are published at huggingface.co/timm/vit_large_patch16_224\.mae"
    refused(wanted, "mae_fdr6", tmp_path / "nowhere.safetensors")
    refused(r"a folder without model\.safetensors or pytorch_model\.bin", "mae_fdr6", tmp_path)
    refused("a folder without open_clip_model.safetensors", "open_clip", tmp_path)
    refused("unknown extractor 'mae_fdr', did you mean 'mae_fdr6'", "mae_fdr", tmp_path)


def test_weights_of_another_network_are_refused_at_the_first_misfit(toy, tmp_path, inception_file):
    toy("mae_fdr6")
    path = tmp_path / "mae_fdr6.safetensors"
    refused(r"'pos_embed' is \(1, 197, 16\) in the file, \(1, 1370, 16\) in the model", "dinov2_fdr6", path, shape=VIT)
    refused(r"'pos_embed' is \(1, 197, 16\) in the file, \(1, 1370, 16\) in the model", "dinov2_edm2", path, shape=VIT)
    refused(r"'blocks\.1\.norm1\.weight' is nothing in the file", "mae_fdr6", _less(tmp_path, path), shape=VIT)
    refused("'Conv2d_1a_3x3.conv.weight' is nothing in the file", "inception", path)
    refused("'vision_model.embeddings.class_embedding' is nothing in the file", "clip_cmmd", inception_file, shape=CLIP)


def _less(tmp_path, path):
    tensors = torch.load(path, weights_only=True) if path.suffix == ".pth" else network_of("mae_fdr6").state_dict()
    torch.save({key: value for key, value in tensors.items() if key != "blocks.1.norm1.weight"}, tmp_path / "less.pth")
    return tmp_path / "less.pth"


def test_a_wrong_hash_nan_and_a_damaged_file_are_refused(toy, tmp_path):
    toy("mae_fdr6")
    path = tmp_path / "mae_fdr6.safetensors"
    refused(r"has sha256 [0-9a-f]{16}\.\.\., extractor 'mae_fdr6' is to have 0123456789abcdef\.\.\.", "mae_fdr6", path, shape=VIT,
            sha256="0123456789abcdef" * 4)  # fmt: skip
    tensors = network_of("mae_fdr6").state_dict()
    tensors["norm.bias"][3] = float("nan")
    torch.save(tensors, tmp_path / "nan.pth")
    refused(r"'norm\.bias' is not finite \(1 of 16 values\)", "mae_fdr6", tmp_path / "nan.pth", shape=VIT)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    refused("not a readable safetensors file", "mae_fdr6", tmp_path / "cut.safetensors", shape=VIT)
    torch.save({"model": Exception}, tmp_path / "object.pth")
    refused(r"holds more than weights", "mae_fdr6", tmp_path / "object.pth", shape=VIT)


def test_a_folder_of_another_training_is_refused(tmp_path):
    """OpenAI's and LAION's CLIP have the same names and shapes; the configuration on the hub says which one it is."""
    save_file(network_of("clip_fdr6").state_dict(), tmp_path / "model.safetensors")
    said = {"architecture": "vit_large_patch14_clip_224", "pretrained_cfg": {"tag": "laion2b"}}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    refused(r"are of vit_large_patch14_clip_224\.laion2b, not of vit_large_patch14_clip_224\.openai", "clip_fdr6", tmp_path, shape=VIT)
    said["pretrained_cfg"]["tag"] = "openai"
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    assert load_extractor("clip_fdr6", tmp_path, shape=VIT).source.file == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 3, 8, 8)]
)
def test_what_is_no_batch_of_8_bit_images_is_refused(images):
    with pytest.raises(ValueError, match="of uint8 are wanted"):
        prepare(images, EXTRACTORS["mae_fdr6"])


# --------------------------------------------------------------------------------------------------------------- full size

PUBLISHED = {  # tensors of the published files
    "convnext_fdr6": {"stem.0.weight": (128, 3, 4, 4), "stages.2.blocks.26.mlp.grn.weight": (2048,), "head.norm.weight": (1024,)},
    "dinov2_fdr6": {"pos_embed": (1, 1370, 1024), "patch_embed.proj.weight": (1024, 3, 14, 14), "blocks.23.ls2.gamma": (1024,)},
    "mae_fdr6": {"pos_embed": (1, 197, 1024), "patch_embed.proj.weight": (1024, 3, 16, 16), "blocks.23.mlp.fc1.weight": (4096, 1024)},
    "siglip_fdr6": {"pos_embed": (1, 256, 1152), "blocks.26.mlp.fc1.weight": (4304, 1152), "attn_pool.latent": (1, 1, 1152)},
    "clip_fdr6": {"pos_embed": (1, 257, 1024), "norm_pre.weight": (1024,), "blocks.23.attn.qkv.weight": (3072, 1024)},
    "clip_cmmd": {
        "vision_model.embeddings.position_embedding.weight": (577, 1024),
        "vision_model.encoder.layers.23.mlp.fc1.weight": (4096, 1024),
        "visual_projection.weight": (768, 1024),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_architecture_is_built_by_its_name(name):
    info = EXTRACTORS[name]
    with torch.device("meta"):
        network = clip_vision.build() if info.kind == "clip_vision" else timm_networks.build(info)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert {key: shapes.get(key) for key in PUBLISHED[name]} == PUBLISHED[name]
    assert (network.config.projection_dim if info.kind == "clip_vision" else network.num_features) == info.width
    assert not [key for key in shapes if key.startswith(("head.fc", "head.weight"))]


def test_fd_dinov2_is_one_published_network():
    infos = [EXTRACTORS[name] for name in DINOV2]
    assert {(info.network, info.width, info.side, info.feature, info.family) for info in infos} == {
        ("vit_large_patch14_dinov2.lvd142m", 1024, 224, "cls", "dinov2")
    }
    assert len({info.resize for info in infos}) == len(infos) == 4
    assert inception.LAYERS[0] == str(EXTRACTORS["inception"].width)
