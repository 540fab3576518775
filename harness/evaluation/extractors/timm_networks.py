"""Networks of timm, by the names of its entry points, without their classifiers: the five of FDr6 beside Inception.

As FD-Loss's `TimmReprModel` builds them (github.com/Jiawei-Yang/FD-Loss). ViTs take other sizes than their own: positions are resampled,
and an image that the patch does not divide is padded with zeros at right and bottom, after the normalisation (patch 14: 256 to 266).
timm's `vit_large_patch14_clip_224.openai` has the exact GELU, although OpenAI trained with QuickGELU; so has FDr6.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.evaluation.extractors.base import ImageExtractor
from harness.evaluation.extractors.weights import Wanted, without
from harness.store.tensors import load_weights
from harness.study.sections.extractors import ExtractorInfo, Feature
from harness.study.typed import UserError

VIT = {"dynamic_img_size": True, "dynamic_img_pad": True}
CONFIG = "config.json"  # of timm's folders on the hub


class TimmExtractor(ImageExtractor):
    """One of timm's networks, and which of its features is meant."""

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (FEATURE[self.info.feature](self.network, pixels),)


def cls(network: nn.Module, pixels: Tensor) -> Tensor:
    """(N, 3, side, side) -> (N, D): the CLS token after the final norm."""
    return network.forward_features(pixels)[:, 0]


def spatial_mean(network: nn.Module, pixels: Tensor) -> Tensor:
    """(N, 3, side, side) -> (N, D): mean over the places of the last stage, without the LayerNorm of the head."""
    return network.forward_features(pixels).mean((2, 3))


def attn_pool(network: nn.Module, pixels: Tensor) -> Tensor:
    """(N, 3, side, side) -> (N, D): SigLIP's pooling of all tokens after the final norm."""
    return network.pool(network.forward_features(pixels))


FEATURE: dict[Feature, Callable[[nn.Module, Tensor], Tensor]] = {
    "cls": cls,
    "spatial_mean": spatial_mean,
    "attn_pool": attn_pool,
}


def build(info: ExtractorInfo, **shape: Any) -> nn.Module:
    """timm's network with random weights; `shape`: arguments of its constructor in place of the published ones."""
    import timm  # takes seconds

    options = {"num_classes": 0} if info.feature == "spatial_mean" else {"num_classes": 0, **VIT}
    return timm.create_model(info.network, pretrained=False, **options | shape)


def load(wanted: Wanted) -> TimmExtractor:
    """UserError that names the first misfit between the weights and the network."""
    tensors, source = wanted.read()
    check_config(source.file, wanted.info.network)
    network = build(wanted.info, **wanted.shape)
    classifier = network.pretrained_cfg["classifier"]
    return TimmExtractor(wanted, source, load_weights(network, without(tensors, f"{classifier}."), source.file))


def check_config(file: Path, network: str) -> None:
    """UserError where timm's configuration beside the weights says that they are of another network, or from another training."""
    config = file.with_name(CONFIG)
    if not config.is_file():
        return
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
        there = f"{said['architecture']}.{said['pretrained_cfg']['tag']}"
    except (OSError, ValueError, KeyError, TypeError):
        return  # not timm's
    if there != network:
        raise UserError(f"{config}: the weights beside it are of {there}, not of {network}")
