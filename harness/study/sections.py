"""The sections of a study: typed, one for each part of the pipeline, with the kinds that it comes in.

An embedded study trains every model itself; a paper-scale one takes an encoder, a decoder and the networks that score from files that its
user supplies, its *assets*. Both are made of these sections.
"""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.study.typed import Count, DiffusionRegisters, Positive, Share, Strict

NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Interval = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]  # of t
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class Asset(Strict):
    """A file or folder from outside: weights, statistics, images. It is looked for at `path` below the assets folder."""

    path: str
    hub: str | None = None  # name on the Hugging Face hub: where `path` is not there, its folder in the hub's local cache is taken
    source: str  # where it is published, for people
    sha256: Sha256 | None = None  # or its first digits; None where none is published: what is found is recorded
    file: str | None = None  # of a folder: the file whose sha256 stands for it; None: the names and sizes of all files do
    bytes: Count | None = None  # size, for the plan


# ------------------------------------------------------------------------------------------------------------------- data


class Digits(Strict):
    """The 1,797 handwritten digits that come with scikit-learn."""

    source: Literal["sklearn_digits"]
    image_size: Count  # pixels, after a bicubic resize
    reference: Count  # images held out of all training; the reference of FID, KID, precision and recall
    sha256: Sha256  # of the source's raw arrays, so that a changed source is noticed
    classes: Literal[10] = 10
    flip: Literal[False] = False  # a mirrored digit is another sign

    @property
    def train_images(self) -> int:
        return 1797 - self.reference


class Shapes(Strict):
    """Drawn shapes with captions: the prompts of harness/data/shapes.py, which are the labels, and a seeded generator of images for them."""

    source: Literal["shapes"]
    image_size: Annotated[int, Field(ge=16)]  # pixels; below, shapes cannot be told apart
    train_images: Count  # of the prompts that training sees, GenEval's six kinds in turn
    reference: Count  # held-out images, of all prompts in turn, as samples are
    sha256: Sha256  # of the prompts and an image of each, so that a changed generator is noticed
    classes: Literal[164] = 164  # prompts
    flip: Literal[False] = False  # mirrored, left is right


class ImageFolder(Strict):
    """A folder of images for training and one of held-out images, each with a sub-folder a class (sorted: labels 0, 1, ...)."""

    source: Literal["image_folder"]
    image_size: Count  # pixels, after ADM's centre crop (released train.py:269-273)
    classes: Count
    train: Asset
    held_out: Asset
    train_images: Count  # how many there must be; the length of an epoch follows from it
    reference: Count  # held-out images that outlier statistics and reconstruction use, evenly spaced through the sorted list
    flip: bool = True  # mirror half of the images in training


Data = Annotated[Digits | Shapes | ImageFolder, Field(discriminator="source")]


# --------------------------------------------------------------------------------------------------------------- training


class Schedule(Strict):
    """Factor on the learning rate: linear warm-up, full rate, then decay. Lengths are in epochs."""

    decay: Literal["constant", "cosine", "linear"] = "cosine"
    warm_up: NonNegative | None = None  # None: 5 % of the steps
    hold: NonNegative = 0.0  # at the full rate after the warm-up
    until: Positive | None = None  # where the decay ends; None: with the training
    final: Annotated[float, Field(ge=0, le=1)] = 0.0  # factor at the end of the decay

    @model_validator(mode="after")
    def _decay_has_room(self) -> "Schedule":
        if self.until is not None and self.until <= (self.warm_up or 0) + self.hold:
            raise ValueError(f"schedule.until {self.until:g} comes before the decay begins, at warm_up + hold")
        return self


class Training(Strict):
    """AdamW. A length in `steps` or in `epochs` (released configs: 1251 steps of 1024 images are one epoch of ImageNet)."""

    steps: Count | None = None
    epochs: Positive | None = None
    batch: Count
    micro_batch: Count | None = None  # images of one forward pass; gradients add up to the whole batch's
    lr: Positive
    schedule: Schedule = Schedule()
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    clip: NonNegative = 0.0  # largest norm of the gradient; 0 = no clipping
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False  # on a GPU; the released train.py:14 switches it on
    compile: bool = False
    skips: Annotated[int, Field(ge=0)] = 10  # steps whose loss or gradient is not finite are left out and counted; more end the training

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("training needs either steps or epochs")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"training.batch {self.batch} is not a multiple of micro_batch {self.micro_batch}")
        return self

    def epoch(self, images: int) -> int:
        """Steps of one epoch over `images`; the remainder is dropped."""
        return max(1, images // self.batch)

    def length(self, images: int) -> int:
        """Steps of the whole training."""
        return self.in_steps(self.epochs if self.steps is None else self.steps, images)

    def in_steps(self, length: float, images: int) -> int:
        """Steps of a `length` that is given as the training's own is: in steps or in epochs."""
        return int(length) if self.steps is not None else max(1, round(length * self.epoch(images)))


# ---------------------------------------------------------------------------------------------------------------- encoder


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


# ---------------------------------------------------------------------------------------------------------------- decoder


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


# --------------------------------------------------------------------------------------------------------------- denoiser


class Head(Strict):
    """The wide head of DiT^DH."""

    width: Count
    depth: Count
    heads: Count


class Shape(Strict):
    """Architecture and size of a denoiser."""

    architecture: Literal["lightningdit", "ditdh", "sit", "jit"]
    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive
    patch: Count = 1
    head: Head | None = None
    in_context: Annotated[int, Field(ge=0)] | None = None  # tokens of JiT's own, beside any registers; None: its 32

    @model_validator(mode="after")
    def _shape(self) -> "Shape":
        if self.width % (4 * self.heads):
            raise ValueError(f"denoiser.width {self.width} is not a multiple of 4 x heads {self.heads}")
        if (self.head is not None) != (self.architecture == "ditdh"):
            raise ValueError("denoiser.head belongs to architecture ditdh, and ditdh needs it")
        if self.in_context is not None and self.architecture != "jit":
            raise ValueError("denoiser.in_context belongs to architecture jit")
        if self.head and self.head.width % (4 * self.head.heads):
            raise ValueError(f"denoiser.head.width {self.head.width} is not a multiple of 4 x heads {self.head.heads}")
        return self


class Denoiser(Shape):
    registers: DiffusionRegisters  # for the methods that have them
    prediction: Literal["data", "velocity"] = "data"
    time: Literal["logit_normal", "uniform"] = "logit_normal"
    time_mean: float = 0.0  # of the logit-normal, before the shift
    time_std: Positive = 1.0
    time_shift: Positive | Literal["latent"]  # latent: sqrt(values of a latent / 4096) (released train.py:152-154)
    t_min: Share  # an x-prediction's velocity divides by max(t, t_min)
    noise_scale: Positive = 1.0  # standard deviation of the noise
    class_dropout: Decay
    ema: Annotated[list[Decay], Field(min_length=1)]  # decays; one set of weights is kept for each
    ema_warm_up: bool = True  # EDM's; the released code has none
    training: Training
    snapshots: list[Positive] = Field(default=[])  # earlier ends to keep, sample and score too; in steps or epochs, as training's length

    @model_validator(mode="after")
    def _registers_fit(self) -> "Denoiser":
        if self.registers.start >= self.depth:
            raise ValueError(f"registers.start {self.registers.start} is beyond the last of {self.depth} blocks")
        if len(set(self.ema)) != len(self.ema):
            raise ValueError("denoiser.ema names a decay twice")
        return self

    @model_validator(mode="after")
    def _snapshots_fit(self) -> "Denoiser":
        unit = "epochs" if self.training.steps is None else "steps"
        rising = [*self.snapshots, getattr(self.training, unit)]
        if any(later <= earlier for earlier, later in pairwise(rising)):
            raise ValueError(f"denoiser.snapshots must rise, and end before the training's {rising[-1]:g} {unit}; got {self.snapshots}")
        if unit == "steps" and any(step % 1 for step in self.snapshots):
            raise ValueError(f"denoiser.snapshots are steps here, as the training's length is: whole numbers; got {self.snapshots}")
        return self


class Weak(Shape):
    """The weaker model of autoguidance."""

    weights: Asset


class Guidance(Strict):
    """Classifier-free guidance, or autoguidance where a weaker model is given; inside `interval` of t only."""

    scale: Annotated[float, Field(ge=1)] = 1.0  # 1 = off
    interval: Interval = (0.0, 1.0)
    weak: Weak | None = None

    @property
    def text(self) -> str:
        """`none`, or kind, scale and interval."""
        if self.scale == 1:
            return "none"
        interval = "" if self.interval == (0.0, 1.0) else f" for t in [{self.interval[0]:g}, {self.interval[1]:g}]"
        return f"{'autoguidance' if self.weak else 'classifier-free'}, scale {self.scale:g}{interval}"


class GuidanceSearch(Strict):
    """A grid of guidance, from which each method takes what has the lowest FID with a denoiser of a seed that is scored nowhere."""

    scales: Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=1)]
    intervals: Annotated[list[Interval], Field(min_length=1)] = Field(default=[(0.0, 1.0)])
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of the denoiser and of the noise
    count: Count  # samples of each

    @property
    def grid(self) -> list[tuple[float, Interval]]:
        """(scale, interval) of every candidate; the first is no guidance."""
        return [(1.0, (0.0, 1.0)), *((scale, interval) for scale in self.scales if scale > 1 for interval in self.intervals)]

    @model_validator(mode="after")
    def _differ(self) -> "GuidanceSearch":
        if len(set(self.grid)) < len(self.grid) or len(self.grid) < 2:
            raise ValueError("guidance_search needs at least one scale above 1, and names no scale or interval twice")
        for low, high in self.intervals:
            if low >= high:
                raise ValueError(f"guidance_search.intervals: {low:g} to {high:g} holds no time")
        return self


class Sampling(Strict):
    count: Count  # per run
    batch: Count
    sampler: Literal["euler", "heun", "euler_maruyama"] = "euler"
    grid_points: Annotated[int, Field(ge=3)]  # 50 are 49 Euler steps
    guidance: Guidance = Guidance()
    guidance_search: GuidanceSearch | None = None
    labels: Literal["equal", "random"] = "equal"
    ema: Decay | None = None  # which of denoiser.ema; None: the first
    averages: list[Decay] = Field(default=[])  # further ones of denoiser.ema that are sampled, for FID alone
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def nfe(self) -> int:
        """Evaluations of the velocity for one sample. One under guidance calls two networks."""
        steps = self.grid_points - 1
        return 2 * steps - 1 if self.sampler == "heun" else steps


# ------------------------------------------------------------------------------------------------------------- evaluation


class TrainedJudge(Strict):
    """A small classifier trained in the DAG, in Inception's place."""

    kind: Literal["trained"]
    width: Count  # of the features
    training: Training


class Inception(Strict):
    """torch-fidelity's port of the TensorFlow Inception of FID."""

    kind: Literal["inception"]
    weights: Asset
    features: Literal[64, 192, 768, 2048] = 2048  # the layer that FID, KID, precision and recall use


class TrainedClip(Strict):
    """A small open_clip model trained in the DAG."""

    kind: Literal["trained"]
    width: Count
    depth: Count
    heads: Count
    training: Training


class OpenClip(Strict):
    """A published open_clip model."""

    kind: Literal["open_clip"]
    model: str  # open_clip's name, or `local-dir` where the asset is a folder with its own configuration
    weights: Asset


class Reference(Strict):
    """An ADM reference batch: mu and sigma for FID, images (arr_0) for precision, recall and KID."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    file: Asset


class Evaluation(Strict):
    judge: Annotated[TrainedJudge | Inception, Field(discriminator="kind")]
    clip: Annotated[TrainedClip | OpenClip, Field(discriminator="kind")] | None
    references: list[Reference] = Field(default=[])  # the first is the one of plain `fid`; none: the held-out images
    reconstruction: bool = True  # rFID and PSNR of the decoder on the held-out images
    kid_subset: Count
    kid_subsets: Count
    neighbours: Count  # k of precision and recall
    resamples: Annotated[int, Field(ge=20)] = 200  # of the samples, for the intervals within a run


class Outliers(Strict):
    """An outlier is a patch token whose L2 norm exceeds `factor` times the median norm of its layer."""

    factor: Annotated[float, Field(gt=1)]
    images: Count
    batch: Count = 256
    times: Annotated[list[Share], Field(min_length=1)]
    multiples: list[Positive] = Field(default=[1.5, 2.0, 3.0, 5.0, 10.0])  # of the median: what share a loss mask would leave out there
    norms: list[Positive] = Field(default=[])  # and at these norms


class Job(Strict):
    """What one of the heavy jobs asks of the machine."""

    threads: Count = 1  # fixed, because it changes the last bits of a float
    mem_mb: Count = 1500
    minutes: Count = 120
    gpus: Annotated[int, Field(ge=0, le=1)] = 0  # of one process
    processes: Count = 1  # that train and sample one denoiser together (torchrun); the others' work is shorter
