"""`dsr plan`: what a study would cost before any of it runs: FLOPs, GPU-hours, disk, and the files that its user has to supply.

Networks are built on the `meta` device and counted by harness.evaluate.cost, so neither weights nor a GPU nor a network are needed. A
training step counts 3 forward passes of an image: one forward, two for the backward. A multiply-add is 2 FLOPs.
"""

import math
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from harness import assets as asset_files
from harness import dag
from harness.config import EncoderRegisters, UserError, denoiser_hook, load_method, method_names
from harness.evaluate import cost
from harness.evaluate.cost import Price
from harness.models.decoder import Layer
from harness.report import paper
from harness.schema import HELD_OUT, references_of
from harness.study import (
    Asset,
    Digits,
    PixelEncoder,
    PretrainedEncoder,
    Study,
    TrainedClip,
    TrainedEncoder,
    TrainedJudge,
    Training,
    VaeEncoder,
    VitDecoder,
    load_study,
)

Precision = Literal["bf16", "tf32", "fp32"]

UTILISATION = 0.4
PEAKS: dict[Precision, float] = {"bf16": 989, "tf32": 494, "fp32": 67}  # TFLOP/s of an H100 SXM, dense, by NVIDIA's data sheet
TRAINED = 3  # forward passes that a forward and a backward cost
FLOAT = 4  # bytes
HASHED = 10**9  # bytes; larger files are left to the run to hash
ADM_IMAGES = 10_000  # in arr_0 of an ADM reference batch
NORM_IMAGES = 10_000  # training images whose token norms are kept beside the statistics (harness.encode)
EXTRA_TOKENS = {"siglip": 0, "dinov2": 1, "dinov2_with_registers": 5}  # CLS, and the four registers of the published weights
INCEPTION_SIDE = 299  # pixels that Inception is fed


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Stage(Frozen):
    """One job: a stage of the DAG for a seed of a method, an encoder variant, or the whole study."""

    name: str
    subject: str = ""  # method or encoder variant
    what: str
    parameters: int = 0
    forward: float = 0  # FLOPs of the network for one image
    images: int = 0  # that pass it, an image once for each evaluation
    flops: float = 0  # of the job, backward passes and other networks included
    precision: Precision = "fp32"
    hours: float | None = None  # on one GPU; None where the study asks for none
    disk: dict[str, int] = {}  # bytes that stay, by kind
    temporary: int = 0  # bytes of its checkpoint while it runs


class MethodPlan(Frozen):
    """What one seed of a method runs on its own, and its denoiser: parameters, and FLOPs of one forward pass."""

    name: str
    title: str
    encoder: str  # variant
    parameters: int  # trainable ones
    all_parameters: int  # fixed tables included
    forward: int
    stages: list[Stage]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)


class AssetPlan(Frozen):
    """A file that the study's user supplies. `bytes`: as found, or else as the study says."""

    name: str
    path: Path
    source: str
    state: str
    bytes: int | None = None


class Plan(Frozen):
    """`peak_tflops`: of every stage; None: that of an H100 in the stage's precision. `utilisation`: share of it that is reached."""

    study: Study
    seeds: int
    utilisation: float
    peak_tflops: float | None
    shared: list[Stage]
    methods: list[MethodPlan]
    assets: list[AssetPlan]

    @property
    def stages(self) -> list[tuple[Stage, int]]:
        """Every job, and how often it runs."""
        return [(stage, 1) for stage in self.shared] + [(stage, self.seeds) for method in self.methods for stage in method.stages]

    @property
    def flops(self) -> float:
        return sum(stage.flops * times for stage, times in self.stages)

    @property
    def hours(self) -> float | None:
        return total_hours(self.stages)

    @property
    def disk(self) -> dict[str, int]:
        """Bytes that stay, by kind."""
        found: dict[str, int] = {}
        for stage, times in self.stages:
            for kind, size in stage.disk.items():
                found[kind] = found.get(kind, 0) + size * times
        return found


def total_hours(stages: Iterable[tuple[Stage, int]]) -> float | None:
    """GPU-hours of (stage, how often); None where the study asks for no GPU."""
    found = [stage.hours * times for stage, times in stages if stage.hours is not None]
    return sum(found) if found else None


# --------------------------------------------------------------------------------------------------------------- counting


def make(
    study: Study,
    *,
    methods: list[str] | None = None,
    seeds: int = 1,
    assets: Path = Path(asset_files.ROOT),
    utilisation: float = UTILISATION,
    peak_tflops: float | None = None,
) -> Plan:
    """The plan of `methods` (None: those of the study) with `seeds` runs each.

    Raises UserError for a method that does not fit the study, fewer than one seed, a utilisation outside (0, 1] or a peak that is not
    positive.
    """
    if seeds < 1 or not 0 < utilisation <= 1 or (peak_tflops is not None and peak_tflops <= 0):
        raise UserError("a plan needs at least 1 seed, a utilisation above 0 and at most 1, and a positive peak in TFLOP/s")
    names = methods or study.methods or method_names()
    for name in names:
        dag.check_fits(study, name)
    counter = _Counter(study, utilisation, peak_tflops)
    variants = list(dict.fromkeys(load_method(name).encoder.key for name in names))
    return Plan(
        study=study,
        seeds=seeds,
        utilisation=utilisation,
        peak_tflops=peak_tflops,
        shared=counter.shared(variants),
        methods=[counter.method(name) for name in names],
        assets=[_asset(name, asset, assets) for name, asset in study.assets.items()],
    )


class VisionTower(nn.Module):
    """The matrices of SigLIP and DINOv2, `extra` tokens beside the patches: pixels (B, 3, H, W) -> (B, patches + extra, width).

    For counting alone: importing transformers takes longer than the rest of a plan.
    """

    def __init__(self, *, width: int, depth: int, heads: int, mlp: int, patch: int, patches: int, extra: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, patches, width))
        self.extra = nn.Parameter(torch.empty(1, extra, width))
        self.layers = nn.Sequential(*(Layer(width, heads, mlp, 1e-6) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.layers(torch.cat([tokens, self.extra.expand(len(tokens), -1, -1)], dim=1)))


class _Counter:
    """Stages of a study, priced. Each network is counted once."""

    def __init__(self, study: Study, utilisation: float, peak_tflops: float | None) -> None:
        self.study, self.utilisation, self.peak_tflops = study, utilisation, peak_tflops
        self.encoders: dict[str, Price] = {}
        self.denoisers: dict[object, Price] = {}
        self.size = study.data.image_size
        self.latent_bytes = FLOAT * math.prod(study.latent_shape)

    def _stage(self, name: str, flops: float = 0, precision: Precision = "fp32", **facts: object) -> Stage:
        rate = (self.peak_tflops or PEAKS[precision]) * 1e12 * self.utilisation
        hours = flops / rate / 3600 if self.study.job.gpus else None
        return Stage(name=name, flops=flops, precision=precision, hours=hours, **facts)

    # -------------------------------------------------------------------------------------------------------- networks

    def encoder(self, variant: str) -> Price:
        if variant not in self.encoders:
            self.encoders[variant] = self._encoder(EncoderRegisters.from_key(variant))
        return self.encoders[variant]

    def _encoder(self, wanted: EncoderRegisters) -> Price:
        section = self.study.encoder
        if isinstance(section, PixelEncoder):
            return Price(0, 0, 0, 0)
        if isinstance(section, VaeEncoder):
            return cost.price(self._vae, 1, 3, self.size, self.size, run=lambda model, x: model.encode(x))
        trained = wanted.kind == "trained"
        extra = int(wanted.kind == "test_time")
        if isinstance(section, TrainedEncoder):
            extra += section.trained_registers if trained else 0
        else:
            extra += EXTRA_TOKENS[(section.trained_registers if trained else section.plain).family]
        shape = {name: getattr(section, name) for name in ("width", "depth", "heads", "mlp", "patch")}
        side = self.study.grid * section.patch
        return cost.price(lambda: VisionTower(**shape, patches=self.study.grid**2, extra=extra), 1, 3, side, side)

    def _vae(self) -> nn.Module:
        """Stable Diffusion's AutoencoderKL, whose widths double twice."""
        from diffusers import AutoencoderKL

        levels = round(math.log2(self.study.encoder.downsampling)) + 1
        return AutoencoderKL(
            block_out_channels=tuple(128 * 2 ** min(level, 2) for level in range(levels)),
            layers_per_block=2,
            latent_channels=self.study.encoder.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )

    @cached_property
    def decoder(self) -> Price:
        if isinstance(self.study.encoder, PixelEncoder):
            return Price(0, 0, 0, 0)
        if isinstance(self.study.encoder, VaeEncoder):
            return cost.price(self._vae, 1, *self.study.latent_shape, run=lambda model, x: model.decode(x))
        from harness.train import decoder as decoders

        return cost.price(lambda: decoders.build(self.study), 1, self.study.grid**2, self.study.channels)

    @cached_property
    def judge(self) -> Price:
        if isinstance(self.study.evaluation.judge, TrainedJudge):
            from harness.train.judge import build

            return cost.price(lambda: build(self.study), 1, 3, self.size, self.size)
        from torchvision.models import inception_v3

        side = INCEPTION_SIDE
        return cost.price(lambda: inception_v3(aux_logits=False, init_weights=False), 1, 3, side, side)

    @cached_property
    def clip(self) -> Price | None:
        """An image through the image tower; parameters of both towers. None for a model that only its file describes."""
        import open_clip

        section = self.study.evaluation.clip
        if isinstance(section, TrainedClip):
            from harness import data
            from harness.models import clip as clips

            words = clips.WordTokenizer.of(data.captions(self.study.data, range(self.study.classes)))
            config, side = clips.model_config(section, self.size, words), self.size
        elif section is not None and (config := open_clip.get_model_config(section.model)):
            side = config["vision_cfg"]["image_size"]
        else:
            return None
        return cost.price(lambda: open_clip.CLIP(**config), 1, 3, side, side, run=lambda model, x: model.encode_image(x))

    def denoiser(self, method_name: str) -> Price:
        hook = denoiser_hook(method_name)
        key = method_name if hook else load_method(method_name).registers(self.study)
        if key not in self.denoisers:
            self.denoisers[key] = cost.of_method(self.study, method_name)
        return self.denoisers[key]

    # ---------------------------------------------------------------------------------------------------- shared stages

    def shared(self, variants: list[str]) -> list[Stage]:
        """What is computed once, whatever the number of methods and seeds."""
        stages = [self._data()] if isinstance(self.study.data, Digits) else []
        backbones = dict.fromkeys(EncoderRegisters.from_key(variant).backbone for variant in variants)
        stages += [self._backbone(name) for name in backbones if not isinstance(self.study.encoder, PixelEncoder)]
        for variant in variants:
            if EncoderRegisters.from_key(variant).kind == "test_time":
                stages.append(self._registers(variant))
            stages.append(self._latents(variant))
            if isinstance(self.study.decoder, VitDecoder):
                stages.append(self._decoder(variant))
        stages.append(self._judge())
        if self.study.evaluation.clip is not None:
            stages.append(self._clip())
        return [*stages, self._references()]

    def _data(self) -> Stage:
        images = self.study.data.train_images + self.study.data.reference
        return self._stage("data", what="images", images=images, disk={"images": images * 3 * self.size**2})

    def _images(self, training: Training) -> int:
        return training.length(self.study.data.train_images) * training.batch

    def _trained(self, name: str, price: Price, training: Training, **facts: object) -> Stage:
        """A network trained on images alone."""
        images = self._images(training)
        return self._stage(
            name,
            flops=TRAINED * price.flops * images,
            precision=precision_of(training),
            parameters=price.parameters,
            forward=price.flops,
            images=images,
            temporary=3 * FLOAT * price.parameters,
            **facts,
        )

    def _backbone(self, name: str) -> Stage:
        section, price = self.study.encoder, self.encoder(name)
        facts = {"subject": name, "disk": {"encoders": FLOAT * price.stored}}
        if isinstance(section, TrainedEncoder):
            return self._trained("encoder", price, section.training, what=_vit(section), **facts)
        what = _vit(section) if isinstance(section, PretrainedEncoder) else "AutoencoderKL"
        return self._stage("encoder", what=f"{what}, published", parameters=price.all_parameters, forward=price.flops, **facts)

    def _registers(self, variant: str) -> Stage:
        section, rounds = self.study.search, EncoderRegisters.from_key(variant).rounds
        if variant in section.released_neurons:
            return self._stage("registers", subject=variant, what="published list of neurons")
        price, rounds = self.encoder("plain"), section.max_rounds if rounds == "until_clean" else rounds
        images = 2 * rounds * section.images
        what = f"search, {rounds} round{'s' * (rounds > 1)} of 2 passes"
        return self._stage("registers", flops=price.flops * images, subject=variant, what=what, forward=price.flops, images=images)

    def _latents(self, variant: str) -> Stage:
        """Statistics over training images, the held-out images' latents; cached, the training images' too."""
        study, section, price = self.study, self.study.latents, self.encoder(variant)
        encoded = section.cache or section.whitening != "none"
        statistics = min(study.data.train_images, section.images or study.data.train_images) if encoded else 0
        is_vit = isinstance(study.encoder, TrainedEncoder | PretrainedEncoder)
        tokens, depth = (study.grid**2, study.encoder.depth) if is_vit else (0, 0)
        values = {"channel": study.channels, "position": math.prod(study.latent_shape), "none": 1}[section.whitening]
        kept = statistics if section.cache else min(statistics, NORM_IMAGES)
        disk = {
            "whitening statistics": FLOAT * (2 * values + 3 * kept * tokens),
            "latents of held-out images": study.data.reference * (self.latent_bytes + FLOAT * (depth + 1) * tokens),
        }
        if section.cache:
            disk["latents of training images"] = statistics * self.latent_bytes
        images = statistics + study.data.reference
        what = "latents" if section.cache else "statistics"
        return self._stage(
            "latents",
            flops=price.flops * images,
            subject=variant,
            what=what,
            parameters=price.all_parameters,
            forward=price.flops,
            images=images,
            disk=disk,
        )

    def _decoder(self, variant: str) -> Stage:
        section, price = self.study.decoder, self.decoder
        shape = f"ViT {section.width}/{section.depth}/{section.heads}"
        facts = {"subject": variant, "disk": {"decoders": FLOAT * price.stored}, "forward": price.flops}
        if EncoderRegisters.from_key(variant).backbone in section.released:
            return self._stage("decoder", what=f"{shape}, published", parameters=price.parameters, **facts)
        training = section.training
        images, per_image, others = self._images(training), TRAINED * price.flops, 0
        epochs = images / self.study.data.train_images
        if not self.study.latents.cache:
            per_image += self.encoder(variant).flops
        if section.perceptual:
            pair = self._perceptual()
            per_image += 1.5 * pair  # the truth needs no gradient, the reconstruction only that to its pixels
        if section.adversarial:
            judged = self._discriminator()
            others = 3 * judged.parameters
            fooled, against = (
                max(0.0, 1 - start / epochs) for start in (section.adversarial.generator_from, section.adversarial.discriminator_from)
            )
            per_image += fooled * 3 * judged.flops  # forward, and the gradient to the image twice: its weight in the loss is adaptive
            per_image += against * (2 * judged.flops + price.flops)  # a true image and a fresh reconstruction
        return self._stage(
            "decoder",
            flops=per_image * images,
            precision=precision_of(training),
            what=f"{shape}, trained",
            parameters=price.parameters,
            images=images,
            temporary=FLOAT * ((3 + bool(section.ema)) * price.parameters + others),
            **facts,
        )

    def _perceptual(self) -> int:
        """FLOPs of comparing two images."""
        from harness.models.perceptual import Perceptual

        widths = self.study.decoder.perceptual.widths
        return cost.price(lambda: Perceptual(widths), 1, 3, self.size, self.size, run=lambda model, x: model(x, x)).flops

    def _discriminator(self) -> Price:
        from harness.models.discriminator import Discriminator

        section = self.study.decoder.adversarial
        shape = {"size": section.image_size, "width": section.width, "depth": section.depth, "blocks": section.blocks}
        return cost.price(lambda: Discriminator(**shape, attention_heads=section.heads), 1, 3, self.size, self.size)

    def _judge(self) -> Stage:
        section, facts = self.study.evaluation.judge, {"disk": {"judge and CLIP": FLOAT * self.judge.stored}}
        if isinstance(section, TrainedJudge):
            return self._trained("judge", self.judge, section.training, what="classifier", **facts)
        return self._stage("judge", what="Inception-v3, published", parameters=self.judge.parameters, forward=self.judge.flops, **facts)

    def _clip(self) -> Stage:
        section, price = self.study.evaluation.clip, self.clip
        if price is None:
            return self._stage("clip", what="CLIP of an architecture that is in its file")
        facts = {"disk": {"judge and CLIP": FLOAT * price.stored}}
        if isinstance(section, TrainedClip):
            return self._trained("clip", price, section.training, what="CLIP", **facts)
        return self._stage("clip", what=f"CLIP {section.model}, published", parameters=price.parameters, forward=price.flops, **facts)

    def _references(self) -> Stage:
        names, width = references_of(self.study), self.study.features
        images = sum(self.study.data.reference if name == HELD_OUT else ADM_IMAGES for name in names)
        disk = {"features of references": images * FLOAT * width + len(names) * 8 * (width + width**2)}
        what = ", ".join(name.replace("_", "-") for name in names)
        return self._stage("references", flops=self.judge.flops * images, what=what, forward=self.judge.flops, images=images, disk=disk)

    # --------------------------------------------------------------------------------------------------- a method's own

    def method(self, name: str) -> MethodPlan:
        method, price = load_method(name), self.denoiser(name)
        return MethodPlan(
            name=name,
            title=method.title,
            encoder=method.encoder.key,
            parameters=price.parameters,
            all_parameters=price.all_parameters,
            forward=price.flops,
            stages=[self._train(name, price), self._sample(name, price), self._score(name), self._outliers(name, price)],
        )

    def _train(self, name: str, price: Price) -> Stage:
        section, training = self.study.denoiser, self.study.denoiser.training
        images, encoder = self._images(training), self.encoder(load_method(name).encoder.key)
        per_image = TRAINED * price.flops + (0 if self.study.latents.cache else encoder.flops)
        return self._stage(
            "denoiser",
            flops=per_image * images,
            precision=precision_of(training),
            subject=name,
            what=_shape(self.study),
            parameters=price.parameters,
            forward=price.flops,
            images=images,
            disk={"denoisers": FLOAT * price.stored * len(section.ema)},
            temporary=FLOAT * price.parameters * (3 + len(section.ema)),
        )

    def _sample(self, name: str, price: Price) -> Stage:
        section = self.study.sampling
        plain, guided = evaluations(self.study)
        second = price.flops
        if guided and section.guidance.weak:
            from harness.train.denoiser import of_shape

            second = cost.denoiser(self.study, lambda: of_shape(self.study, section.guidance.weak)).flops
        per_image = (plain + guided) * price.flops + guided * second + self.decoder.flops
        return self._stage(
            "samples",
            flops=section.count * per_image,
            precision=section.precision,
            subject=name,
            what=f"{section.sampler}, NFE {plain + guided}{f', {guided} of them guided' if guided else ''}",
            parameters=price.parameters,
            forward=price.flops,
            images=section.count * (plain + 2 * guided),
            disk={"samples": section.count * (3 * self.size**2 + 8)},
        )

    def _score(self, name: str) -> Stage:
        count, held_out = self.study.sampling.count, self.study.data.reference if self.study.evaluation.reconstruction else 0
        clip = self.clip.flops if self.study.evaluation.clip and self.clip else 0
        flops = count * (self.judge.flops + clip) + held_out * (self.judge.flops + self.decoder.flops)
        return self._stage("scores", flops=flops, subject=name, what="judge, CLIP, reconstruction", images=count + held_out)

    def _outliers(self, name: str, price: Price) -> Stage:
        section = self.study.outlier_statistics
        images = min(section.images, self.study.data.reference) * len(section.times)
        what = f"token norms at {len(section.times)} noise levels"
        return self._stage("outliers", flops=price.flops * images, subject=name, what=what, forward=price.flops, images=images)


def precision_of(training: Training) -> Precision:
    return "bf16" if training.precision == "bf16" else "tf32" if training.tf32 else "fp32"


def evaluations(study: Study) -> tuple[int, int]:
    """Evaluations of the velocity for one sample: without guidance, and within its interval, where two networks are called."""
    from harness.models import samplers
    from harness.sample import grid_of

    section, times = study.sampling, []

    def record(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.item())
        return x

    start = grid_of(study).new_zeros(1, 1, 1, 1)
    samplers.integrate(section.sampler, record, start, grid_of(study), noise_at=lambda _step: start)
    (low, high), scale = section.guidance.interval, section.guidance.scale
    guided = sum(low - samplers.ROUNDING <= t <= high + samplers.ROUNDING for t in times) if scale > 1 else 0
    return len(times) - guided, guided


def _vit(section: TrainedEncoder | PretrainedEncoder) -> str:
    return f"ViT {section.width}/{section.depth}/{section.heads}"


def _shape(study: Study) -> str:
    """Width, depth, heads."""
    shape = study.denoiser
    head = f" + head {shape.head.width}/{shape.head.depth}/{shape.head.heads}" if shape.head else ""
    return f"{ARCHITECTURES[shape.architecture]} {shape.width}/{shape.depth}/{shape.heads}{head}"


ARCHITECTURES = {"lightningdit": "LightningDiT", "ditdh": "DiT^DH", "sit": "SiT", "jit": "JiT"}


# ----------------------------------------------------------------------------------------------------------------- assets


def _asset(name: str, asset: Asset, root: Path) -> AssetPlan:
    """Its state, in little time: only a file with a known sha256 and of at most HASHED bytes is hashed, and no folder is walked."""
    path = Path(root) / asset.path
    facts = {"name": name, "path": path, "source": asset.source}
    if not path.exists():
        return AssetPlan(**facts, state="missing", bytes=asset.bytes)
    if path.is_dir():
        return AssetPlan(**facts, state="present", bytes=asset.bytes)
    size = path.stat().st_size
    if asset.bytes and size != asset.bytes:
        return AssetPlan(**facts, state=f"wrong size: {bytes_text(size)}, not {bytes_text(asset.bytes)}", bytes=size)
    if asset.sha256 is None or size > HASHED:
        return AssetPlan(**facts, state="present, not hashed" if asset.sha256 else "present", bytes=size)
    found = asset_files.look(name, asset, root)
    return AssetPlan(**facts, state="wrong sha256" if found.state == "wrong" else found.state, bytes=size)


# -------------------------------------------------------------------------------------------------------------- rendering


def plan(
    study: Study,
    *,
    methods: list[str] | None = None,
    seeds: int = 1,
    assets: Path = Path(asset_files.ROOT),
    utilisation: float = UTILISATION,
    peak_tflops: float | None = None,
) -> str:
    """The plan as Markdown; arguments and errors as those of `make`."""
    return markdown(make(study, methods=methods, seeds=seeds, assets=assets, utilisation=utilisation, peak_tflops=peak_tflops))


def markdown(found: Plan) -> str:
    """Totals, what each method runs, what they share, disk, files to supply, notes."""
    sections = [
        f"# Compute plan: {found.study.title}",
        _headline(found),
        "## Methods\n\n" + _methods(found),
        "## Shared by all methods and seeds\n\n" + _shared(found),
        "## Disk\n\n" + _disk(found),
        "## Files to supply\n\n" + _assets(found),
        "## Notes\n\n" + "\n".join(f"- {line}" for line in _notes(found)),
    ]
    return "\n\n".join(sections) + "\n"


def _headline(found: Plan) -> str:
    methods, seeds = len(found.methods), found.seeds
    runs = f"Study `{found.study.name}`: {methods} method{'s' * (methods > 1)} × {seeds} seed{'s' * (seeds > 1)}."
    disk = bytes_text(sum(found.disk.values()))
    if found.hours is None:
        return f"{runs} In total **{flops_text(found.flops)}** and **{disk}** of disk; it runs on a CPU, so there are no GPU-hours."
    gpu = f"a GPU of {found.peak_tflops:g} TFLOP/s" if found.peak_tflops else "an H100"
    longest = max((stage for stage, _ in found.stages), key=lambda stage: stage.hours)
    return (
        f"{runs} In total **{flops_text(found.flops)}**, **{hours_text(found.hours)} GPU-hours** on {gpu} at {found.utilisation:.0%} of its "
        f"peak, and **{disk}** of disk. The longest job, `{longest.name}` of `{longest.subject}`, takes {_days(longest.hours)} on one GPU."
    )


def _methods(found: Plan) -> str:
    base, gpu = found.methods[0], found.hours is not None
    unit = "FLOPs (GPU-hours)" if gpu else "FLOPs"
    heading = ["Method", "Encoder", "Parameters, M", "GFLOPs per forward", f"Training, {unit}", f"Sampling, {unit}", f"Scoring, {unit}"]
    total = f"Total of {found.seeds} seed{'s' * (found.seeds > 1)}, {'GPU-hours' if gpu else 'FLOPs'}"
    rows = []
    for method in found.methods:
        more = f" (+{method.forward / base.forward - 1:.1%})" if method.forward > base.forward else ""
        own = [(stage, found.seeds) for stage in method.stages]
        scoring = [method.stage("scores"), method.stage("outliers")]
        rows.append([
            method.title, f"`{method.encoder}`", millions(method.parameters), gflops_text(method.forward) + more,
            _cost([method.stage("denoiser")]), _cost([method.stage("samples")]), _cost(scoring),
            hours_text(total_hours(own)) if gpu else flops_text(sum(stage.flops * times for stage, times in own)),
        ])  # fmt: skip
    shared = [(stage, 1) for stage in found.shared]
    for name, stages in (("shared stages", shared), ("**total**", found.stages)):
        rows.append([name, *[""] * 6, hours_text(total_hours(stages)) if gpu else flops_text(sum(s.flops * times for s, times in stages))])
    train, sample = base.stage("denoiser"), base.stage("samples")
    under = f"Training: {train.what}, {train.images:,} images, {train.precision}. Sampling: {found.study.sampling.count:,} images, {sample.what}, {sample.precision}."
    return table([*heading, total], rows, left=2) + f"\n\nColumns before the last are of one seed. {under}"


def _shared(found: Plan) -> str:
    gpu = found.hours is not None
    rows = [
        [
            f"`{stage.name}`", f"`{stage.subject}`" if stage.subject else "", stage.what, millions(stage.parameters),
            gflops_text(stage.forward), f"{stage.images:,}" if stage.images else "–", flops_text(stage.flops),
            *([hours_text(stage.hours)] if gpu else []),
        ]
        for stage in found.shared
    ]  # fmt: skip
    heading = ["Stage", "Of", "What", "Parameters, M", "GFLOPs per forward", "Images", "FLOPs", *(["GPU-hours"] if gpu else [])]
    return table(heading, rows, left=3)


def _disk(found: Plan) -> str:
    rows = [[kind, bytes_text(size)] for kind, size in found.disk.items()]
    rows.append(["**all that stays**", f"**{bytes_text(sum(found.disk.values()))}**"])
    most = max((stage for stage, _ in found.stages), key=lambda stage: stage.temporary)
    supplied = sum(asset.bytes or 0 for asset in found.assets)
    if supplied:
        rows.append(["besides: files to supply, where their size is known", bytes_text(supplied)])
    rows.append(
        [
            f"besides: checkpoint of a training while it runs, at most (`{most.name}`; twice that while it is written)",
            bytes_text(most.temporary),
        ]
    )
    return table(["What", "Size"], rows)


def _assets(found: Plan) -> str:
    if not found.assets:
        return "None: the study trains every model itself."
    rows = [
        [
            f"`{a.name}`",
            f"`{a.path}`",
            a.source,
            a.state if a.state != "missing" else "**missing**",
            bytes_text(a.bytes) if a.bytes else "–",
        ]
        for a in found.assets
    ]
    missing = sum(asset.state == "missing" for asset in found.assets)
    return table(["Field", "Put it at", "From", "State", "Size"], rows, left=4) + f"\n\n{missing} of {len(found.assets)} missing."


def _notes(found: Plan) -> list[str]:
    study, lines = found.study, []
    if found.hours is not None:
        peaks = (
            f"{found.peak_tflops:g} TFLOP/s in every stage"
            if found.peak_tflops
            else "that of an H100 SXM without sparsity: " + ", ".join(f"{peak:g} TFLOP/s in {name}" for name, peak in PEAKS.items())
        )
        lines += [
            f"GPU-hours = FLOPs / (utilisation × peak). Utilisation {found.utilisation:g} is an assumption, not a measurement: the share of the "
            "peak that a job reaches. Measure a few steps and put in your own with `--utilisation`; the hours scale with its inverse.",
            f"Peak: {peaks}. fp32 without TF32: encoding for statistics, scoring, and sampling where the study says so.",
        ]
        over = [stage for stage, _ in found.stages if stage.hours * 60 > study.job.minutes]
        if over:
            lines.append(
                f"A job runs on one GPU, and the study lets it take {_days(study.job.minutes / 60)} (`job.minutes`): too little for "
                f"{', '.join(f'`{stage.name}` of `{stage.subject}`' for stage in over)}. A job that is stopped goes on from its checkpoint."
            )
    online = "" if study.latents.cache else ", and one of the encoder, which encodes at every step"
    lines += [
        f"FLOPs count 2 per multiply-add in matrix products, convolutions and attention, by torch's counter. Training: 3 forward passes an image{online}.",
        "Sampling: every evaluation of the velocity is one forward pass, two inside the interval of guidance; then one of the decoder.",
        "Not counted: reading and decoding images, the optimiser and the averages, compilation, training that is repeated or tuned, "
        "the text tower of CLIP, FID's matrix root, and waiting for the file system.",
    ]
    if found.assets:
        lines.append(
            f"`verified`: the sha256 is the published one. `present`: there, nothing to compare with. Files above {bytes_text(HASHED)} are not "
            "hashed here (`not hashed`); the run hashes them before it uses them. Folders are not looked into."
        )
    return lines


def table(heading: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned left."""
    lines = [f"| {' | '.join(heading)} |", "|" + ":--|" * left + "--:|" * (len(heading) - left)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _cost(stages: list[Stage]) -> str:
    hours = total_hours((stage, 1) for stage in stages)
    return flops_text(sum(stage.flops for stage in stages)) + (f" ({hours_text(hours)})" if hours is not None else "")


def millions(parameters: int) -> str:
    return f"{parameters / 1e6:,.{2 if parameters >= 1e5 else 4}f}" if parameters else "–"


def gflops_text(flops: float) -> str:
    return f"{flops / 1e9:,.{1 if flops >= 1e9 else 5}f}" if flops else "–"


def flops_text(flops: float) -> str:
    """With a prefix, three significant digits: 73.1 EFLOP."""
    return _scaled(flops, 1000, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"])


def bytes_text(size: float) -> str:
    return _scaled(size, 1000, ["B", "kB", "MB", "GB", "TB", "PB"])


def _scaled(value: float, base: int, units: list[str]) -> str:
    if not value:
        return "–"
    power = min(int(math.log(value, base) + 1e-9), len(units) - 1)
    scaled = value / base**power
    return f"{scaled:,.{max(0, 2 - int(math.log10(scaled)))}f} {units[power]}"


def hours_text(hours: float | None) -> str:
    if not hours:
        return "–"
    return "< 0.01" if hours < 0.01 else f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}"


def _days(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


# ------------------------------------------------------------------------------------------------- against the paper's values


class Sizes(Frozen):
    """A denoiser without and with a study's diffusion registers, beside what the paper prints for its baseline and for DSR."""

    study: Study
    plain: Price
    registers: Price
    encoder: int  # FLOPs of the encoder for one image, at every step of the training
    printed: dict[str, dict[str, paper.Printed]]  # method -> score

    def match(self, method: str, score: str) -> bool | None:
        """Whether our count is the printed one; None where the paper prints none."""
        printed, ours = self.printed.get(method, {}).get(score), self.plain if method == "baseline" else self.registers
        if printed is None:
            return None
        if score == "gflops":
            return printed.matches(ours.flops / 1e9)
        return printed.matches(ours.parameters if printed.counts == "trainable" else ours.all_parameters)


def sizes(study: Study) -> Sizes:
    """Counted for the denoiser of a study."""
    from harness.train.denoiser import of_shape

    section, counter = study.denoiser, _Counter(study, UTILISATION, None)
    count, start = section.registers.count, section.registers.start
    return Sizes(
        study=study,
        plain=cost.denoiser(study, lambda: of_shape(study, section)),
        registers=cost.denoiser(study, lambda: of_shape(study, section, registers=count, register_start=start)),
        encoder=0 if study.latents.cache else counter.encoder("plain").flops,
        printed=paper.values(study.name),
    )


def compute_table(studies: list[str], utilisation: float = UTILISATION) -> str:
    """The content of reports/compute.md: sizes of the paper-scale denoisers, our counts beside the paper's, and what training takes."""
    found = [sizes(load_study(name)) for name in studies]
    hours = 1e12 * utilisation * 3600
    counts, trainings = [], []
    for one in found:
        section, study = one.study.denoiser, one.study
        model, registers = f"{_shape(study)}, {_input(study)}", f"{section.registers.count} @ {section.registers.start}"
        for method, price in (("baseline", one.plain), ("dsr", one.registers)):
            counts.append([
                model if method == "baseline" else f"+ registers {registers}", f"{price.parameters / 1e6:.2f}",
                f"{price.all_parameters / 1e6:.2f}", *_beside(one, method, "parameters"),
                f"{price.flops / 1e9:.1f}", *_beside(one, method, "gflops"),
                "" if method == "baseline" else f"+{price.flops / one.plain.flops - 1:.1%}",
            ])  # fmt: skip
        epoch = section.training.epoch(study.data.train_images) * section.training.batch
        precision = precision_of(section.training)
        row = [f"{model}, {precision}"]
        for epochs in (80, 800):
            for price in (one.plain, one.registers):
                flops = (TRAINED * price.flops + one.encoder) * epoch * epochs
                row.append(f"{flops_text(flops)} ({hours_text(flops / (PEAKS[precision] * hours))})")
        trainings.append(row)
    heading = ["Model: width/depth/heads, input", "Parameters, M", "all, M", "paper, M", "match", "GFLOPs", "paper", "match", "more FLOPs"]
    training_heading = ["Model, precision", "80 epochs", "80, with registers", "800 epochs", "800, with registers"]
    sources = dict.fromkeys(
        source
        for one in found
        for scores in one.printed.values()
        for score in ("parameters", "gflops")
        if score in scores
        for source in scores[score].sources
    )
    missed = [one.study.name for one in found for m in ("baseline", "dsr") for s in ("parameters", "gflops") if one.match(m, s) is False]
    verdict = f"Mismatches: {', '.join(missed)}." if missed else "Every value that the paper prints is matched at its printed precision."
    notes = [
        f"{verdict} Paper: {'; '.join(sources)}. Empty: not printed there.",
        "GFLOPs: one forward pass of one image, counted by torch (2 per multiply-add, attention included). Registers: count @ the block before "
        "which they are prepended. The paper states 36 @ 8; its GFLOPs of the two models with 12 blocks are those of 36 @ 4.",
        "Parameters: trainable ones; `all` adds the fixed position table and Fourier frequencies, which are parameters in the released code. "
        "The paper's 676M is the trainable count with its decimals cut off, its 839M the count of all, rounded; no one convention gives both.",
        f"Training: 3 forward passes an image and one of the encoder, where there is one; in brackets GPU-hours on an H100 (TF32 {PEAKS['tf32']:g}, bf16 "
        f"{PEAKS['bf16']:g} TFLOP/s) at an assumed utilisation of {utilisation:g}. An epoch is what is left of {found[0].study.data.train_images:,} images in whole batches.",
    ]
    return (
        "# Compute: this code beside the paper\n\n"
        f"{table(heading, counts)}\n\n## Training\n\n{table(training_heading, trainings)}\n\n"
        + "\n".join(f"- {line}" for line in notes)
        + "\n"
    )


def _beside(one: Sizes, method: str, score: str) -> list[str]:
    """The printed value and whether ours is it."""
    match = one.match(method, score)
    return ["", ""] if match is None else [one.printed[method][score].text, "yes" if match else "**no**"]


def _input(study: Study) -> str:
    channels, side, _ = study.latent_shape
    return f"{channels}×{side}×{side}" + (f", patch {study.denoiser.patch}" if study.denoiser.patch > 1 else "")
