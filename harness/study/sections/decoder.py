"""Section `decoder`."""

from typing import Annotated, Literal

from pydantic import Field

from harness.study.sections.asset import Asset, Decay, NonNegative
from harness.study.sections.training import Training
from harness.study.typed import Count, Positive, Strict


class Adversarial(Strict):
    """RAE's stage-1 adversarial loss: a frozen DINO ViT-S/8 with trained heads (released train_stage1.py:470-492)."""

    weights: Asset
    width: Count = 384  # of the frozen ViT
    depth: Count = 12
    heads: Count = 6
    blocks: list[int] = Field(default=[2, 5, 8, 11])  # whose outputs the heads read
    image_size: Count = 224
    weight: Positive = 0.75
    max_weight: Positive = 1e4
    discriminator_from: NonNegative = 6  # epochs
    generator_from: NonNegative = 8


class Perceptual(Strict):
    """LPIPS with VGG-16."""

    vgg: Asset
    heads: Asset
    weight: Positive = 1.0
    widths: tuple[Count, Count, Count, Count, Count] = (64, 128, 256, 512, 512)  # of VGG-16


class VitDecoder(Strict):
    """RAE's ViT decoder: published weights where the backbone has them, otherwise trained (L1, and what weights are given for)."""

    kind: Literal["vit"]
    width: Count
    depth: Count
    heads: Count
    mlp: Count
    patch: Count
    released: dict[Literal["plain", "trained_registers"], Asset] = Field(default={})
    noise: NonNegative  # sigma of the noise augmentation is uniform in [0, noise], per sample
    training: Training
    ema: Decay = 0.0
    l1: Positive = 1.0  # weight of the L1 loss over images in [-1, 1]
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None


class OwnDecoder(Strict):
    """The encoder decodes itself: a VAE, or pixels that need no decoding."""

    kind: Literal["encoder"]


DecoderSection = Annotated[VitDecoder | OwnDecoder, Field(discriminator="kind")]
