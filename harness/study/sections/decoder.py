"""Section `decoder`.

A new kind of decoder: its section here, registered in DECODERS, and what it does, registered in harness/decoder/registry.py.
"""

from typing import ClassVar, Literal

from pydantic import Field

from harness.study.sections.asset import Weights
from harness.study.sections.pixels import SIGNED, ImageStatistics, Pixels, Range
from harness.study.sections.training import Training
from harness.study.typed import Count, Decay, NonNegative, Positive, Strict

VGG16_WIDTHS = (64, 128, 256, 512, 512)


class Adversarial(Strict):
    """RAE's stage-1 adversarial loss: a frozen DINO ViT-S/8 with trained heads (released train_stage1.py:470-492)."""

    weights: Weights
    width: Count = 384  # of the frozen ViT
    depth: Count = 12
    heads: Count = 6
    blocks: list[int] = Field(default=[2, 5, 8, 11])  # whose outputs the heads read
    image_size: Count = 224
    weight: Positive = 0.75
    max_weight: Positive = 1e4
    discriminator_from: NonNegative = 6  # epochs
    generator_from: NonNegative = 8
    discriminator_schedule: Literal["shared", "own"] = "shared"  # own: training.schedule, counted from discriminator_from on, as released


class Perceptual(Strict):
    """LPIPS with VGG-16."""

    vgg: Weights
    heads: Weights
    weight: Positive = 1.0
    widths: tuple[Count, Count, Count, Count, Count] = VGG16_WIDTHS


class PublishedDecoder(Weights):
    """Weights of a decoder, and what its output is.

    `normalised`: pixels as its encoder reads them (the authors', RAE's); `unit`: in [0, 1] (diffusion-bench's); `signed`: in [-1, 1].
    """

    range: Range


class DecoderSection(Strict):
    """What every kind of decoder says."""

    of_encoder: ClassVar[bool] = False  # no decoder of its own: the encoder's folder decodes

    kind: str

    @property
    def text(self) -> str:
        """Architecture and size, in plans."""
        return self.kind

    @property
    def trained_with(self) -> Training | None:
        """How the study trains it where it is not published; None for what needs no training."""
        return None

    @property
    def averages(self) -> int:
        """Averages of the weights that training keeps beside them."""
        return 0

    @property
    def crops(self) -> bool:
        """Whether its training cuts random squares out of the images as they were."""
        return False

    def published(self, backbone: str) -> bool:
        """Whether the decoder of a backbone is published, so that none is trained."""
        return False

    def assets_of(self, backbone: str) -> tuple[str, ...]:
        """Fields whose assets the decoder of a backbone is made from."""
        return ()

    def pixels(self, backbone: str, encoder: ImageStatistics) -> Pixels:
        """What the output of a backbone's decoder is; `encoder`: the backbone's statistics."""
        return SIGNED

    def check(self, latent_side: int, image_size: int) -> None:
        """Raises ValueError for sizes that do not make images of `image_size` pixels of latents of `latent_side` tokens a side."""


class VitDecoder(DecoderSection):
    """RAE's ViT decoder: published weights where the backbone has them, otherwise trained (L1, and what weights are given for)."""

    kind: Literal["vit"]
    width: Count
    depth: Count
    heads: Count
    mlp: Count
    patch: Count
    released: dict[Literal["plain", "trained_registers"], PublishedDecoder] = Field(default={})
    noise: NonNegative  # sigma of the noise augmentation is uniform in [0, noise], per sample
    noise_on: Literal["whitened", "raw"] = "whitened"  # latents; raw: as released (rae.py, noising)
    crop: Literal["centre", "random"] = "centre"  # random: of the short side at 1.5 x image_size, never mirrored (released train_stage1.py)
    training: Training
    ema: Decay = 0.0
    ema_warm_up: bool = True  # as of the denoiser; the released code has none
    l1: Positive = 1.0  # weight of the L1 loss over images in [-1, 1]
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None

    @property
    def text(self) -> str:
        return f"ViT {self.width}/{self.depth}/{self.heads}"

    @property
    def trained_with(self) -> Training:
        return self.training

    @property
    def averages(self) -> int:
        return int(bool(self.ema))

    @property
    def crops(self) -> bool:
        return self.crop == "random"

    def published(self, backbone: str) -> bool:
        return backbone in self.released

    def pixels(self, backbone: str, encoder: ImageStatistics) -> Pixels:
        ranges = [weights.range for name, weights in self.released.items() if name == backbone]
        return Pixels.of(ranges[0], encoder) if ranges else SIGNED

    def assets_of(self, backbone: str) -> tuple[str, ...]:
        return (f"released.{backbone}",) if self.published(backbone) else ("perceptual", "adversarial")

    def check(self, latent_side: int, image_size: int) -> None:
        if self.width % self.heads:
            raise ValueError(f"decoder.width {self.width} is not a multiple of heads {self.heads}")
        if self.patch * latent_side != image_size:
            raise ValueError(f"decoder.patch {self.patch} x latent side {latent_side} is not data.image_size {image_size}")


class OwnDecoder(DecoderSection):
    """The encoder decodes itself: a VAE, or pixels that need no decoding."""

    of_encoder = True

    kind: Literal["encoder"]


DECODERS: dict[str, type[DecoderSection]] = {"vit": VitDecoder, "encoder": OwnDecoder}
