"""Sections `encoder`, `planted` and `search`.

A new kind of encoder: its section here, registered in ENCODERS, and what it does, registered in harness/encoder/registry.py.
"""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from harness.study.sections.asset import Asset
from harness.study.sections.pixels import HALF, IMAGENET, ImageStatistics
from harness.study.sections.training import Training
from harness.study.typed import Count, NonNegative, Positive, Share, Strict, name_in


class Population(Strict):
    """Register neurons to plant: `neurons` of them in `layer` (0-based), firing on a `share` of the tokens."""

    layer: Annotated[int, Field(ge=0)]
    neurons: Count
    share: Share
    activation: Positive  # mean activation where it fires; ordinary neurons stay near 1
    strength: Positive  # norm that one firing token gains, in multiples of the median token norm


class EncoderSection(Strict):
    """What every kind of encoder says."""

    has_tokens: ClassVar[bool] = False  # latents are a ViT's patch tokens, which have norms, outliers and registers
    decodes_itself: ClassVar[bool] = False  # into pixels; otherwise section decoder says what does
    plantable: ClassVar[bool] = False  # the study may write register neurons into it

    kind: str

    @property
    def text(self) -> str:
        """Architecture and size, in plans."""
        return self.kind

    @property
    def backbones(self) -> list[str]:
        """Weights that the study has: `plain`, and `trained_registers` where one was trained with registers."""
        return ["plain"]

    @property
    def trained_with(self) -> Training | None:
        """How the study trains it; None for weights that are published, or for none."""
        return None

    @property
    def latent_channels(self) -> int:
        """C of a latent (C, side, side)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many channels its latents have")

    def image_statistics(self, backbone: str) -> ImageStatistics:
        """Of what a backbone reads; HALF: pixels in [-1, 1]."""
        return HALF

    @property
    def norm_places(self) -> int:
        """Places of the residual stream whose token norms are kept: embeddings and layers; 0 without tokens."""
        return 0

    def latent_side(self, image_size: int) -> int:
        """Side of the latent of an image of `image_size` pixels, in tokens."""
        raise NotImplementedError(f"{type(self).__name__} does not say how large its latents are")

    def check(self, image_size: int, planted: list[Population]) -> None:
        """Raises ValueError for sizes that do not fit images of `image_size` pixels, and for populations that do not fit it."""


class TowerSection(EncoderSection):
    """A vision transformer, whose patch tokens are the latents."""

    has_tokens = True

    width: Count
    depth: Count
    heads: Count
    mlp: Count
    patch: Count

    @property
    def text(self) -> str:
        return f"ViT {self.width}/{self.depth}/{self.heads}"

    @property
    def latent_channels(self) -> int:
        return self.width

    @property
    def norm_places(self) -> int:
        return self.depth + 1

    def fed(self, image_size: int) -> tuple[int, str]:
        """Side of the images that it reads, in pixels, and the field that says so."""
        return image_size, "data.image_size"

    def latent_side(self, image_size: int) -> int:
        return self.fed(image_size)[0] // self.patch

    def check(self, image_size: int, planted: list[Population]) -> None:
        size, field = self.fed(image_size)
        if size % self.patch:
            raise ValueError(f"encoder.patch {self.patch} does not divide {field} {size}")
        if self.width % self.heads:
            raise ValueError(f"encoder.width {self.width} is not a multiple of heads {self.heads}")
        for population in planted:
            if population.layer >= self.depth:
                raise ValueError(f"planted layer {population.layer} does not exist in an encoder of depth {self.depth}")
            if population.neurons > self.mlp:
                raise ValueError(f"planted: {population.neurons} neurons in layer {population.layer}, which has {self.mlp}")


class TrainedEncoder(TowerSection):
    """A small SigLIP tower trained in the DAG, without and with registers."""

    plantable = True

    kind: Literal["trained"]
    trained_registers: Count  # tokens of the variant that is trained with registers
    label_weight: NonNegative = 1.0  # of telling labels apart, beside giving back pixels
    training: Training

    @property
    def backbones(self) -> list[str]:
        return ["plain", "trained_registers"]

    @property
    def trained_with(self) -> Training:
        return self.training


class Family(NamedTuple):
    """Of the published weights of a family of vision towers: tokens beside the patches, and what pixels it reads."""

    extra_tokens: int
    image_statistics: ImageStatistics = HALF  # of its preprocessor_config.json


# of transformers' vision towers; DINOv2 has CLS, and four registers
FAMILIES = {"siglip": Family(0), "dinov2": Family(1, IMAGENET), "dinov2_with_registers": Family(5, IMAGENET)}


class Pretrained(Strict):
    """Weights of a transformers vision tower: a local folder, as `save_pretrained` writes it."""

    family: Annotated[str, name_in(FAMILIES)]
    weights: Asset


class PretrainedEncoder(TowerSection):
    """A published vision tower. The sizes are what its configuration must say; the plan is made from them."""

    kind: Literal["pretrained"]
    image_size: Count  # what it is fed; other images are resized, bicubic (released rae.py:138-139)
    plain: Pretrained
    trained_registers: Pretrained | None = None

    @property
    def backbones(self) -> list[str]:
        return ["plain", "trained_registers"] if self.trained_registers else ["plain"]

    def weights_of(self, backbone: str) -> Pretrained:
        """Those of a backbone; ValueError where the study has none."""
        weights = {"plain": self.plain, "trained_registers": self.trained_registers}[backbone]
        if weights is None:
            raise ValueError(f"encoder has no {backbone}")
        return weights

    def image_statistics(self, backbone: str) -> ImageStatistics:
        return FAMILIES[self.weights_of(backbone).family].image_statistics

    def fed(self, image_size: int) -> tuple[int, str]:
        return self.image_size, "encoder.image_size"


class VaeSection(EncoderSection):
    """AutoencoderKL of diffusers, encoder and decoder. Latents are drawn from its posterior and scaled."""

    decodes_itself = True

    channels: Count
    downsampling: Count

    @property
    def text(self) -> str:
        return "AutoencoderKL"

    @property
    def latent_channels(self) -> int:
        return self.channels

    def latent_side(self, image_size: int) -> int:
        return image_size // self.downsampling

    def check(self, image_size: int, planted: list[Population]) -> None:
        if image_size % self.downsampling:
            raise ValueError(f"encoder.downsampling {self.downsampling} does not divide data.image_size {image_size}")


class VaeEncoder(VaeSection):
    """Published, encoder and decoder in one folder."""

    kind: Literal["vae"]
    scale: Positive
    weights: Asset


class TrainedVae(VaeSection):
    """A small one trained in the DAG: L1 plus `kl` times the KL divergence, each a mean over its values.

    The factor on its latents is no setting, but 1 / standard deviation of the training latents, stored with the weights.
    """

    kind: Literal["trained_vae"]
    downsampling: Annotated[int, Field(ge=2)]  # a power of two
    width: Annotated[int, Field(multiple_of=8)]  # of the first level; each halving of the side doubles it; 8 groups of the norms divide it
    kl: NonNegative
    training: Training

    @property
    def trained_with(self) -> Training:
        return self.training

    @model_validator(mode="after")
    def _halves(self) -> "TrainedVae":
        if self.downsampling & (self.downsampling - 1):
            raise ValueError(f"encoder.downsampling {self.downsampling} is not a power of two")
        return self


class PixelEncoder(EncoderSection):
    """No encoder: the denoiser works on pixels in [-1, 1]."""

    decodes_itself = True

    kind: Literal["pixels"]

    @property
    def latent_channels(self) -> int:
        return 3

    def latent_side(self, image_size: int) -> int:
        return image_size


ENCODERS: dict[str, type[EncoderSection]] = {
    "trained": TrainedEncoder,
    "pretrained": PretrainedEncoder,
    "vae": VaeEncoder,
    "trained_vae": TrainedVae,
    "pixels": PixelEncoder,
}


class Search(Strict):
    """Search for register neurons (released TTR/shared/algorithms.py), and how they are moved."""

    images: Count
    batch: Count
    layer: int  # whose output is thresholded; -1 = the last
    threshold: Positive | None = None  # norm of an outlier; None: outlier_statistics.factor x median
    highest_layer: Annotated[int, Field(ge=0)]  # neurons of later layers are not considered
    top_k: Count  # neurons taken per round
    sparsity_filter: bool  # keep only neurons that are quiet (|activation| < 0.5) on at least half of the tokens
    max_rounds: Count
    variant: Literal["described", "released"] = "described"
    released_neurons: dict[str, str] = Field(default={})  # encoder variant -> published list to take instead of searching
