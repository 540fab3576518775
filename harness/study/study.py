"""Typed studies: everything but the method. One YAML file each in harness/studies/. Read by the Snakefile, so no torch here."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from harness.study.counts import filled
from harness.study.folders import CODE, PROJECT, original
from harness.study.names import names_in
from harness.study.sections.asset import Asset
from harness.study.sections.data import SOURCES, DataSection
from harness.study.sections.decoder import DECODERS, DecoderSection
from harness.study.sections.denoiser import ARCHITECTURES, DenoiserSection
from harness.study.sections.encoder import ENCODERS, EncoderSection, Population, Search
from harness.study.sections.evaluation import Evaluation, Outliers
from harness.study.sections.job import Job
from harness.study.sections.latents import LatentSection
from harness.study.sections.pixels import Pixels
from harness.study.sections.released import check_released
from harness.study.sections.sampling import Sampling
from harness.study.seeds import PUBLISHED
from harness.study.typed import OneOf, Strict, Title, UserError, check_seeds, explain, merge, nearest
from harness.study.yaml_file import read_mapping

STUDIES = Path(__file__).resolve().parents[1] / "studies"
OWN = PROJECT / "harness" / "studies"  # of a project beside installed code; in a checkout the same folder


class Study(Strict):
    name: str
    title: Title
    seeds: list[int]
    methods: list[str] | None = None  # rows of the table; None: every file in baselines/
    job: Job = Job()
    data: Annotated[DataSection, OneOf(SOURCES, "source")]
    encoder: Annotated[EncoderSection, OneOf(ENCODERS)]
    outliers: Literal["planted", "none", "natural"]  # natural: whatever the pretrained encoder grows
    planted: list[Population] = Field(default=[])
    search: Search | None = None
    latents: LatentSection
    decoder: Annotated[DecoderSection, OneOf(DECODERS)]
    denoiser: Annotated[DenoiserSection, OneOf(ARCHITECTURES, "architecture", DenoiserSection)]
    sampling: Sampling
    evaluation: Evaluation
    outlier_statistics: Outliers

    @model_validator(mode="after")
    def _weak_model_fits(self) -> "Study":
        if self.sampling.guidance.weak:
            try:
                self.sampling.guidance.weak.check_prediction(self.denoiser.prediction)
            except ValueError as error:
                raise ValueError(f"sampling.guidance.weak: {error}") from None
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        check_seeds(self.seeds)
        self._encoder_fits()
        if self.latent_side % self.denoiser.patch:
            raise ValueError(f"denoiser.patch {self.denoiser.patch} does not divide the latent side {self.latent_side}")
        if (self.sampling.guidance.channels or 0) > self.channels:
            raise ValueError(f"sampling.guidance.channels {self.sampling.guidance.channels} is more than the latent's {self.channels}")
        for shape in filter(None, (self.denoiser, self.sampling.guidance.weak)):
            shape.check(prompts=self.data.prompts)
        for field, decays in (("ema", [self.ema]), ("averages", self.sampling.averages)):
            for decay in decays:
                if decay not in self.denoiser.ema:
                    raise ValueError(f"sampling.{field} {decay} is not one of denoiser.ema {self.denoiser.ema}")
        if self.ema in self.sampling.averages or len(set(self.sampling.averages)) < len(self.sampling.averages):
            raise ValueError(f"sampling.averages names a decay twice, or the one of sampling.ema, {self.ema}: {self.sampling.averages}")
        needs = {"the judge's features": self.features + 1}
        if self.data.prompts:
            needs["GenEval, one image of each prompt,"] = self.classes
        needs |= {"evaluation.kid_subset": self.evaluation.kid_subset, "evaluation.neighbours": self.evaluation.neighbours + 1}
        having = {"sampling.count": self.sampling.count}
        if self.evaluation.reconstruction or not self.evaluation.references:
            having["data.reference"] = self.data.reference
        for what, least in needs.items():
            for where, have in having.items():
                if have < least:
                    lower = f"; take more images, or lower it by {least - have} or more" if what.startswith("evaluation.") else ""
                    raise ValueError(f"{where} {have} is too few: {what} needs at least {least}{lower}")
        return self

    @model_validator(mode="after")
    def _views_fit(self) -> "Study":
        check_released(self)
        kept, search = [*self.snapshots, self.steps], self.sampling.guidance_search
        if len(set(kept)) < len(kept):
            raise ValueError(f"denoiser.snapshots {self.denoiser.snapshots} are not all at different steps: {kept}")
        if search and search.seed in self.seeds:
            raise ValueError(f"sampling.guidance_search.seed {search.seed} is one of the study's seeds; guidance is chosen on another")
        if search and search.count <= self.features:
            raise ValueError(f"sampling.guidance_search.count {search.count} is too few: the judge has {self.features} features")
        return self

    def _encoder_fits(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        encoder.check(self.data.image_size, self.planted)
        if encoder.has_tokens and self.search is None:
            raise ValueError(f"encoder {encoder.kind} makes tokens, so the study needs the section search")
        if decoder.of_encoder and not encoder.decodes_itself:
            raise ValueError(f"encoder {encoder.kind} does not decode itself: decoder must be of another kind than {decoder.kind}")
        if encoder.decodes_itself and not decoder.of_encoder:
            raise ValueError(f"encoder {encoder.kind} decodes itself: decoder must be {{kind: encoder}}")
        decoder.check(self.latent_side, self.data.image_size)
        if decoder.crops and (self.data.copied or self.latents.cache):
            raise ValueError(
                "decoder.crop: random needs images that are not stored cropped: data.source: image_folder, latents.cache: false"
            )
        if self.outliers == "planted" and not encoder.plantable:
            raise ValueError("outliers can be planted only into an encoder that the study trains")

    def values(self) -> dict[str, Any]:
        """As JSON has it, the published weights included, which are no setting of a training."""
        released = {name: one.model_dump(mode="json") for name, one in self.denoiser.released.items()}
        return merge(self.model_dump(mode="json"), {"denoiser": {"released": released} if released else {}})

    def seeds_of(self, method: str, seeds: list[int]) -> list[int]:
        """The runs of a method, where the trained ones have `seeds`: these, or the one of published weights."""
        return [PUBLISHED] if method in self.denoiser.released else seeds

    def trained_seeds(self, methods: Iterable[str], seeds: list[int]) -> list[int]:
        """`seeds`, or none where all of the methods have published weights."""
        return [] if set(methods) <= self.denoiser.released.keys() else seeds

    @property
    def family(self) -> str:
        return family(self.name)

    def average_file(self, out: Path, decay: float) -> Path:
        """Where the weights of an EMA decay are: `out` for the one that is sampled, its neighbour for another."""
        return out if decay == self.ema else out.with_name(f"{out.stem}-ema{decay:g}{out.suffix}")

    def snapshot_file(self, out: Path, step: int) -> Path:
        """Where what `out` is of the last step is of an earlier one."""
        return out.parent / f"step{step}" / out.name

    @property
    def latent_side(self) -> int:
        """Of a latent, in tokens."""
        return self.encoder.latent_side(self.data.image_size)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.encoder.latent_channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, side, side)."""
        return self.channels, self.latent_side, self.latent_side

    def decoded_pixels(self, backbone: str) -> Pixels:
        """What the output of a backbone's decoder is."""
        return self.decoder.pixels(backbone, self.encoder.image_statistics(backbone))

    @property
    def classes(self) -> int:
        """Labels; the null label of classifier-free guidance is one more."""
        return self.data.classes

    @property
    def time_shift(self) -> float:
        return self.denoiser.shift(math.prod(self.latent_shape))

    @property
    def sampling_shift(self) -> float:
        """The time shift of sampling."""
        return self.time_shift if self.sampling.time_shift is None else self.sampling.time_shift

    @property
    def outlier_rows(self) -> list[int]:
        """Numbers of the held-out images whose tokens are looked at: as many as there are and are wanted, of every class."""
        held_out, count = self.data.reference, min(self.outlier_statistics.images, self.data.reference)
        return [place * held_out // count for place in range(count)] if self.data.by_class else list(range(count))

    @property
    def features(self) -> int:
        """Width of the judge's features."""
        return self.evaluation.judge.feature_width

    @property
    def ema(self) -> float:
        """Decay of the weights that are sampled."""
        return self.denoiser.ema[0] if self.sampling.ema is None else self.sampling.ema

    @property
    def sampled(self) -> list[float]:
        """Decays whose weights are sampled: that of every score first."""
        return [self.ema, *self.sampling.averages]

    @property
    def steps(self) -> int:
        """Of the denoiser's training."""
        return self.denoiser.training.length(self.data.train_images)

    @property
    def snapshots(self) -> list[int]:
        """Training steps before the last whose weights are kept, sampled and scored, too."""
        return [self.denoiser.training.in_steps(length, self.data.train_images) for length in self.denoiser.snapshots]

    @property
    def assets(self) -> dict[str, Asset]:
        """Everything that the study's user supplies, by the field that names it; of the decoder, what one of the backbones needs."""
        decoders = [f"decoder.{field}" for backbone in self.encoder.backbones for field in self.decoder.assets_of(backbone)]
        return {
            name: asset
            for name, asset in _assets(self, "")
            if not name.startswith("decoder.") or any(f"{name}.".startswith(f"{field}.") for field in decoders)
        }


def _assets(value: object, where: str) -> Iterator[tuple[str, Asset]]:
    if isinstance(value, Asset):
        yield where, value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _assets(getattr(value, field), f"{where}.{field}".lstrip("."))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _assets(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _assets(item, f"{where}.{getattr(item, 'name', '')}".rstrip("."))


# ---------------------------------------------------------------------------------------------------------------- loading


def family(name: str) -> str:
    """What a study shares with those that tables and figures set beside it: its name up to the first underscore."""
    return name.partition("_")[0]


def _own_names() -> list[str]:
    """Studies that the project has beside those of installed code."""
    return [] if PROJECT in (CODE, original()) else names_in(OWN, ".yaml", "study")


def _names() -> list[str]:
    """Every study file. UserError for one of the project with the name of one that came with the code."""
    own, theirs = _own_names(), names_in(STUDIES, ".yaml", "study")
    if both := {*own} & {*theirs}:
        raise UserError(f"{OWN / min(both)}.yaml: the code has a study of this name; rename yours (it may extend that one)")
    return sorted([*own, *theirs])


def study_names() -> list[str]:
    """Studies that can be run; a file whose name starts with `_` is only there to be extended."""
    return [name for name in _names() if not name.startswith("_")]


def load_study(name: str) -> Study:
    """The study `harness/studies/<name>.yaml`, on top of the one it `extends`."""
    return parse_study(name, read_study(nearest(name, study_names(), "study")))


def parse_study(name: str, values: dict[str, Any]) -> Study:
    """From raw values, with what they leave to be counted."""
    values = filled(name, values)
    try:
        return Study.model_validate({**values, "name": name})
    except ValidationError as error:
        raise UserError(f"study '{name}': {explain(error, Study)}") from None


def read_study(name: str) -> dict[str, Any]:
    """The raw values of a study file, on top of those it `extends`: a name, or a list of them, later over earlier; shared bases once."""
    values: dict[str, Any] = {}
    for own in _files(name).values():
        values = merge(values, own)
    return values


def bases(name: str) -> list[str]:
    """The names that a study file `extends`, as it lists them; UserError where the file cannot be read."""
    return _own(name)[0]


def _files(name: str, above: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Own values of every file that `name` is made of, by file, in the order they are laid; `above` are the files that extend it."""
    layers: dict[str, dict[str, Any]] = {}
    parents, own = _own(name)
    known = [own for own in _names() if own not in (name, *above)]  # no study is its own base
    for parent in parents:
        for base, values in _files(nearest(parent, known, "study"), (name, *above)).items():
            layers.setdefault(base, values)
    return {**layers, name: own}


def _own(name: str) -> tuple[list[str], dict[str, Any]]:
    values = read_mapping((OWN if name in _own_names() else STUDIES) / f"{name}.yaml", "study fields")
    parents = values.pop("extends", None) or []
    parents = parents if isinstance(parents, list) else [parents]
    return parents, values
