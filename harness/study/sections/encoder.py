"""Sections `encoder`, `planted`, `search` and `latents`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.study.sections.asset import Asset, NonNegative
from harness.study.sections.training import Training
from harness.study.typed import Count, Positive, Share, Strict


class TrainedEncoder(Strict):
    """A small SigLIP tower trained in the DAG, without and with registers."""

    kind: Literal["trained"]
    width: Count
    depth: Count
    heads: Count
    mlp: Count
    patch: Count
    trained_registers: Count  # tokens of the variant that is trained with registers
    label_weight: NonNegative = 1.0  # of telling labels apart, beside giving back pixels
    training: Training


class Pretrained(Strict):
    """Weights of a transformers vision tower: a local folder, as `save_pretrained` writes it."""

    family: Literal["siglip", "dinov2", "dinov2_with_registers"]
    weights: Asset


class PretrainedEncoder(Strict):
    """A published vision tower. The sizes are what its configuration must say; the plan is made from them."""

    kind: Literal["pretrained"]
    image_size: Count  # what it is fed; other images are resized, bicubic (released rae.py:138-139)
    patch: Count
    width: Count
    depth: Count
    heads: Count
    mlp: Count
    plain: Pretrained
    trained_registers: Pretrained | None = None


class VaeEncoder(Strict):
    """AutoencoderKL of diffusers, encoder and decoder in one folder. Latents are drawn from its posterior and scaled."""

    kind: Literal["vae"]
    channels: Count
    downsampling: Count
    scale: Positive
    weights: Asset


class TrainedVae(Strict):
    """A small AutoencoderKL of diffusers trained in the DAG: L1 plus `kl` times the KL divergence, each a mean over its values."""

    kind: Literal["trained_vae"]
    channels: Count
    downsampling: Annotated[int, Field(ge=2)]  # a power of two
    width: Annotated[int, Field(multiple_of=8)]  # of the first level; each halving of the side doubles it; 8 groups of the norms divide it
    kl: NonNegative
    training: Training

    @property
    def scale(self) -> None:
        """Factor on the latents: no setting, but 1 / standard deviation of the training latents, stored with the weights."""

    @model_validator(mode="after")
    def _halves(self) -> "TrainedVae":
        if self.downsampling & (self.downsampling - 1):
            raise ValueError(f"encoder.downsampling {self.downsampling} is not a power of two")
        return self


class PixelEncoder(Strict):
    """No encoder: the denoiser works on pixels in [-1, 1]."""

    kind: Literal["pixels"]


EncoderSection = Annotated[TrainedEncoder | PretrainedEncoder | VaeEncoder | TrainedVae | PixelEncoder, Field(discriminator="kind")]


class Population(Strict):
    """Register neurons to plant: `neurons` of them in `layer` (0-based), firing on a `share` of the tokens."""

    layer: Annotated[int, Field(ge=0)]
    neurons: Count
    share: Share
    activation: Positive  # mean activation where it fires; ordinary neurons stay near 1
    strength: Positive  # norm that one firing token gains, in multiples of the median token norm


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


class LatentSection(Strict):
    whitening: Literal["channel", "position", "none"]
    cache: bool = True  # keep the training latents in one file; false: encode at every step
    images: Count | None = None  # training images that the whitening statistics are taken over; None: all

    @model_validator(mode="after")
    def _all_of_a_cache(self) -> "LatentSection":
        if self.cache and self.images:
            raise ValueError("latents.images belongs to latents.cache: false; a cache holds all of the training images")
        return self
