"""Paper-scale studies at toy size: the same sections and the same stages, small assets made here."""

import json

import numpy as np
import torch
from PIL import Image

from harness.commands.peers.images import random_inception
from harness.encoder import tower as tower_model
from harness.store.tensors import save_tensors
from harness.study import typed as config
from harness.study.sections.encoder import PretrainedEncoder, VaeEncoder
from harness.study.study import load_study, parse_study, read_study

SIDE = 32  # pixels
TRAIN, HELD_OUT, CLASSES = 6, 66, 3
WORDNET_IDS = ("n02099601", "n02123045", "n07753592")  # not ImageNet's first
TRAINING = {"epochs": 1, "batch": 6, "micro_batch": 3, "compile": False}  # the compiler takes longer than all the rest
SIZES = {
    "job": {"threads": 1, "gpus": 0},
    "data": {"image_size": SIDE, "classes": CLASSES, "train_images": TRAIN, "reference": HELD_OUT},
    "denoiser": {
        "width": 32,
        "depth": 3,
        "heads": 2,
        "registers": {"count": 4, "start": 1},
        "ema": [0.0, 0.5, 0.9],
        "training": TRAINING | {"lr": 0.05, "epochs": 3},
        "snapshots": [1],
    },
    "sampling": {
        "count": 66,
        "batch": 33,
        "grid_points": 4,
        "guidance": {"scale": 1.5, "interval": [0.2, 1.0]},
        "guidance_search": {"scales": [2.0], "intervals": [[0.0, 1.0]], "count": 66},
    },
    "evaluation": {
        "judge": {"features": 64},
        "clip": {"model": "local-dir"},
        "kid_subset": 5,
        "kid_subsets": 2,
        "neighbours": 2,
        "resamples": 20,
    },
    "outlier_statistics": {"images": 4, "batch": 2, "times": [0.5]},
}


def toy_values(name):
    """The raw values of a study with only its sizes changed, and the hashes of the real assets left out."""
    study = load_study(name)
    values = config.merge(read_study(name), SIZES)
    if study.denoiser.released:
        values = config.merge(values, {"denoiser": {"snapshots": []}, "sampling": {"guidance_search": None}})
    if study.sampling.averages:
        values = config.merge(values, {"sampling": {"averages": SIZES["denoiser"]["ema"][1:2]}})
    if isinstance(study.encoder, PretrainedEncoder):
        patch = study.encoder.image_size // 32  # 8 for 256, 7 for 224: a grid of 4 either way
        sizes = {"image_size": 4 * patch, "patch": patch, "width": 32, "depth": 3, "heads": 2, "mlp": 64}
        if study.search.released_neurons:  # a published list fits its own encoder's depth and MLP only
            sizes |= {"depth": study.encoder.depth, "mlp": study.encoder.mlp}
        values = config.merge(values, {"encoder": sizes, "search": {"images": 4, "batch": 2, "top_k": 3, "highest_layer": 2}})
        losses = {
            "perceptual": {"widths": [4] * 5},
            "adversarial": {"width": 32, "depth": 2, "heads": 2, "blocks": [0, 1], "image_size": 16},
        }
        losses["adversarial"] |= {"discriminator_from": 0, "generator_from": 0}
        values = config.merge(
            values, {"decoder": {"width": 32, "depth": 1, "heads": 2, "mlp": 64, "patch": 8, "training": TRAINING, **losses}}
        )
    if isinstance(study.encoder, VaeEncoder):
        values = config.merge(values, {"encoder": {"downsampling": 2}})
    if study.denoiser.architecture == "jit":
        values = config.merge(values, {"denoiser": {"patch": 8, "depth": 4}})  # the middle half has dropout
    if study.denoiser.architecture == "ddt":
        values = config.merge(values, {"denoiser": {"head_depth": 1}})
    if study.sampling.guidance.weak:
        weak = {"width": 32, "depth": 1, "heads": 2, "head": {"width": 64, "depth": 1, "heads": 2}}
        values = config.merge(values, {"sampling": {"guidance": {"weak": weak}}})
    if study.denoiser.architecture in ("ditdh", "diffusionbench_ddt"):
        values = config.merge(values, {"denoiser": {"head": {"width": 64, "depth": 1, "heads": 2}}})
    return _without_hashes(values)


def toy_study(name):
    return parse_study(name, toy_values(name))


def _without_hashes(values):
    if isinstance(values, dict):
        return {key: _without_hashes(value) for key, value in values.items() if not (key in ("sha256", "bytes") and "path" in values)}
    return [_without_hashes(value) for value in values] if isinstance(values, list) else values


def make_assets(study, root, of=""):
    """Every asset of a toy study, or those whose names begin with `of`, in the format of the real one."""
    makers = {"data.": _images, "encoder.": _encoder, "decoder.released.": _decoder, "decoder.perceptual.": _perceptual}
    makers |= {
        "latents.statistics.": _statistics,
        "denoiser.released.": _denoiser,
        "sampling.guidance.weak.": _weak,
        "decoder.adversarial.": _dino,
        "evaluation.judge.": _inception,
        "evaluation.clip.": _clip,
        "evaluation.references.": _reference,
    }
    for name, asset in study.assets.items():
        path = root / asset.path
        if name.startswith(of) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            next(make for start, make in makers.items() if name.startswith(start))(study, name, path)
    return root


def _images(_study, name, path):
    rng = np.random.default_rng(int(name == "data.held_out"))  # no image is in both
    for i in range(TRAIN if name == "data.train" else HELD_OUT):
        folder = path / WORDNET_IDS[i % CLASSES]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 48)).save(folder / f"{i:03d}.JPEG")


def _encoder(study, name, path):
    section = study.encoder
    torch.manual_seed(0)
    if isinstance(section, VaeEncoder):
        from diffusers import AutoencoderKL

        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        AutoencoderKL(
            latent_channels=section.channels, block_out_channels=(16, 32), norm_num_groups=8, layers_per_block=1, **blocks
        ).save_pretrained(path)
        return
    family = (section.plain if "plain" in name else section.trained_registers).family
    registers = 4 if family == "dinov2_with_registers" else 0
    shape = {field: getattr(section, field) for field in ("width", "depth", "heads", "mlp", "patch", "image_size")}
    model = tower_model.build_tower(family, **shape, registers=registers)
    if family == "siglip" and section.depth == 3:  # two huge MLP outputs, so that the search has something to find
        for layer, unit in ((0, 5), (1, 7)):
            model.layers[layer].mlp.fc2.weight.data[:, unit] = 40.0
    model.tower.save_pretrained(path)


def _statistics(study, name, path):
    """Near those of tokens that a final norm without affine part gives."""
    generator = torch.Generator().manual_seed(len(name))
    shape = study.latent_shape if study.latents.whitening == "position" else (1, study.channels, 1, 1)
    mean = torch.randn(shape, generator=generator) / 10
    torch.save({"mean": mean, "var" if shape == study.latent_shape else "std": 0.5 + torch.rand(shape, generator=generator)}, path)


def _denoiser(study, name, path):
    """Random weights beside their average, as training scripts write them; or under the name of the container that the study takes."""
    from harness.denoiser.build import build_denoiser

    method = name.removeprefix("denoiser.released.")
    torch.manual_seed(0)
    model = build_denoiser(study, method)
    weights = {
        key: value + torch.randn_like(value) / 50 if value.is_floating_point() else value for key, value in model.state_dict().items()
    }
    container = study.denoiser.released[method].container or "ema"
    if study.denoiser.architecture == "ddt":  # a Lightning file
        torch.save({"state_dict": {f"{container}.{key}": value for key, value in weights.items()}}, path)
    else:
        torch.save({"model": model.state_dict(), container: weights}, path)


def _weak(study, _name, path):
    from harness.denoiser.build import build_shape

    torch.manual_seed(1)
    model = build_shape(study, study.sampling.guidance.weak)
    torch.save({key: value + torch.randn_like(value) / 50 for key, value in model.state_dict().items()}, path)


def _decoder(study, _name, path):
    from harness.decoder.registry import decoder_of

    torch.save({"model": decoder_of(study).build().state_dict()}, path)


def _perceptual(study, name, path):
    from harness.decoder.perceptual import Perceptual

    torch.manual_seed(0)
    model = Perceptual(study.decoder.perceptual.widths)
    torch.save(model.vgg.state_dict() if name.endswith("vgg") else {k: v.abs() for k, v in model.heads.state_dict().items()}, path)


def _dino(study, _name, path):
    from harness.decoder.discriminator import Discriminator

    torch.manual_seed(0)
    c = study.decoder.adversarial
    torch.save(
        Discriminator(size=c.image_size, width=c.width, depth=c.depth, attention_heads=c.heads, blocks=c.blocks).backbone.state_dict(), path
    )


def _inception(_study, _name, path):
    torch.save(random_inception(), path)


def _clip(_study, _name, path):
    import open_clip

    path.mkdir()
    tower = {"width": 32, "layers": 1}
    cfg = {
        "embed_dim": 16,
        "vision_cfg": {**tower, "head_width": 16, "image_size": 32, "patch_size": 16},
        "text_cfg": {**tower, "heads": 2},
    }
    torch.manual_seed(0)
    save_tensors(path / "open_clip_model.safetensors", open_clip.CLIP(**cfg).state_dict())
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {"size": 32}}), encoding="utf-8")


def _reference(study, _name, path):
    rng = np.random.default_rng(1)
    width = study.features
    root = rng.standard_normal((width, width)) / 8
    images = rng.integers(0, 255, (12, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(path, arr_0=images, mu=rng.standard_normal(width), sigma=root @ root.T)
