"""Typed studies and methods.

A study (harness/studies/*.yaml) is everything but the method: data, models, budgets, protocol, seeds.
A method (baselines/*.py) is one row of a table: what it does to the encoder, to the denoiser and to the loss.
This module is read by the Snakefile, so it must not import torch.
"""

import difflib
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "harness" / "studies"
METHODS = ROOT / "baselines"


class UserError(Exception):
    """Something the person at the keyboard can put right: one line that says what, where and what to do. Exit code 2."""


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------------------------------- studies


class Data(Strict):
    source: Literal["sklearn_digits"]
    image_size: Count  # pixels, after a bicubic resize
    reference: Count  # images held out of all training; the reference of FID, KID, precision and recall
    sha256: str  # of the source's raw arrays, so that a changed source is noticed


class Training(Strict):
    """AdamW with a linear warm-up over 5 % of the steps, then cosine decay to zero."""

    steps: Count
    batch: Count
    lr: Positive
    clip: Annotated[float, Field(ge=0)] = 0.0  # largest norm of the gradient; 0 = no clipping


class Encoder(Strict):
    width: Count
    depth: Count
    heads: Count
    mlp: Count
    patch: Count
    trained_registers: Count  # tokens of the variant that is trained with registers
    training: Training


class Population(Strict):
    """Register neurons to plant: `neurons` of them in `layer` (0-based), firing on a `share` of the tokens."""

    layer: Annotated[int, Field(ge=0)]
    neurons: Count
    share: Share
    activation: Positive  # mean activation where it fires; ordinary neurons stay near 1
    strength: Positive  # norm that one firing token gains, in multiples of the median token norm


class Search(Strict):
    """Search for register neurons (released TTR/shared/algorithms.py)."""

    images: Count
    batch: Count
    layer: int  # whose output is thresholded; -1 = the last
    highest_layer: Annotated[int, Field(ge=0)]  # neurons of later layers are not considered
    top_k: Count  # neurons taken per round
    sparsity_filter: bool  # keep only neurons that are quiet (|activation| < 0.5) on at least half of the tokens
    max_rounds: Count


class Latents(Strict):
    whitening: Literal["channel", "position"]


class Decoder(Strict):
    width: Count
    depth: Count
    heads: Count
    mlp: Count
    noise: Annotated[float, Field(ge=0)]  # sigma of the noise augmentation is uniform in [0, noise], per sample
    training: Training


class DiffusionRegisters(Strict):
    count: Count
    start: Annotated[int, Field(ge=0)]  # block before which the registers are prepended


class Denoiser(Strict):
    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive
    registers: DiffusionRegisters  # for the methods that have them
    time_shift: Positive
    t_min: Share  # the v-loss divides by max(t, t_min)
    class_dropout: Annotated[float, Field(ge=0, lt=1)]
    ema: Annotated[float, Field(ge=0, lt=1)]
    training: Training

    @model_validator(mode="after")
    def _registers_fit(self) -> "Denoiser":
        if self.registers.start >= self.depth:
            raise ValueError(f"registers.start {self.registers.start} is beyond the last of {self.depth} blocks")
        return self


class Sampling(Strict):
    count: Count  # per run
    batch: Count
    grid_points: Annotated[int, Field(ge=2)]  # of the Euler grid; one less is the NFE
    guidance: Annotated[float, Field(ge=1)]  # classifier-free guidance; 1 = off


class Judge(Strict):
    width: Count  # of the features
    training: Training


class Clip(Strict):
    width: Count
    depth: Count
    heads: Count
    training: Training


class Evaluation(Strict):
    judge: Judge
    clip: Clip
    kid_subset: Count
    kid_subsets: Count
    neighbours: Count  # k of precision and recall


class Outliers(Strict):
    """An outlier is a patch token whose L2 norm exceeds `factor` times the median norm of its layer."""

    factor: Annotated[float, Field(gt=1)]
    images: Count
    times: Annotated[list[Share], Field(min_length=1)]


class Study(Strict):
    name: str
    title: str
    seeds: list[int]
    methods: list[str] | None = None  # rows of the table; None: every file in baselines/
    threads: Count  # of each job; fixed, because it changes the last bits of a float
    data: Data
    encoder: Encoder
    outliers: Literal["planted", "none"]
    planted: list[Population]
    search: Search
    latents: Latents
    decoder: Decoder
    denoiser: Denoiser
    sampling: Sampling
    evaluation: Evaluation
    outlier_statistics: Outliers

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        if self.data.image_size % self.encoder.patch:
            raise ValueError(f"encoder.patch {self.encoder.patch} does not divide data.image_size {self.data.image_size}")
        for section in (self.encoder, self.decoder, self.evaluation.clip):
            if section.width % section.heads:
                raise ValueError(f"{type(section).__name__.lower()}.width {section.width} is not a multiple of heads {section.heads}")
        if self.denoiser.width % (4 * self.denoiser.heads):
            raise ValueError(f"denoiser.width {self.denoiser.width} is not a multiple of 4 x heads {self.denoiser.heads}")
        for population in self.planted:
            if population.layer >= self.encoder.depth or population.neurons > self.encoder.mlp:
                raise ValueError(f"planted layer {population.layer} does not exist in an encoder of depth {self.encoder.depth}")
        needs = {"evaluation.kid_subset": self.evaluation.kid_subset, "evaluation.judge.width": self.evaluation.judge.width + 1}
        for what, least in needs.items():
            for where, have in {"sampling.count": self.sampling.count, "data.reference": self.data.reference}.items():
                if have < least:
                    raise ValueError(f"{where} {have} is too few: {what} needs at least {least}")
        check_seeds(self.seeds)
        return self

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.data.image_size // self.encoder.patch


# ---------------------------------------------------------------------------------------------------------------- methods


class EncoderRegisters(Strict):
    """What a method does to the encoder.

    `none`; `trained` (the encoder was trained with registers); `test_time` (register neurons are found and moved, in `rounds`
    rounds of search or until no outlier is left).
    """

    kind: Literal["none", "trained", "test_time"] = "none"
    rounds: Annotated[int, Field(ge=1)] | Literal["until_clean"] = 1

    @property
    def key(self) -> str:
        """Name of the encoder variant; methods with the same key share its latents and its decoder."""
        return {"none": "plain", "trained": "trained_registers", "test_time": f"ttr_{self.rounds}"}[self.kind]

    @classmethod
    def from_key(cls, key: str) -> "EncoderRegisters":
        if match := re.fullmatch(r"ttr_(\d+|until_clean)", key):
            return cls(kind="test_time", rounds=int(match[1]) if match[1].isdigit() else match[1])
        kinds = {"plain": "none", "trained_registers": "trained"}
        return cls(kind=kinds[nearest(key, [*kinds, "ttr_1", "ttr_until_clean"], "encoder")])

    @property
    def backbone(self) -> str:
        return "trained_registers" if self.kind == "trained" else "plain"


class LossMask(Strict):
    """Zero the loss of tokens whose norm exceeds `outlier_statistics.factor` times the median of that norm.

    The paper leaves open which norm (released rae.py:163-189 has all three): `pre_ln` residual stream, `post_ln` (constant, so inert), `whitened` latent.
    """

    norm: Literal["pre_ln", "post_ln", "whitened"]


class Method(Strict):
    """One row of a table. `diffusion_registers=True` takes the study's count and start."""

    title: str
    encoder: EncoderRegisters = EncoderRegisters()
    diffusion_registers: bool | DiffusionRegisters = False
    loss_mask: LossMask | None = None

    def registers(self, study: Study) -> DiffusionRegisters | None:
        if isinstance(self.diffusion_registers, DiffusionRegisters):
            return self.diffusion_registers
        return study.denoiser.registers if self.diffusion_registers else None

    def sort_key(self) -> tuple:
        """Rows go from the untouched pipeline to the one with most registers."""
        encoder = (["none", "test_time", "trained"].index(self.encoder.kind), str(self.encoder.rounds))
        return (*encoder, bool(self.diffusion_registers), self.loss_mask is not None)


def method_names() -> list[str]:
    """Every method in baselines/, `baseline` first."""
    names = [path.stem for path in METHODS.glob("*.py") if not path.stem.startswith("_")]
    return sorted(names, key=lambda name: (name != "baseline", load_method(name).sort_key(), name))


def _method_module(name: str) -> ModuleType:
    path = METHODS / f"{name}.py"
    if not path.is_file():
        known = [p.stem for p in METHODS.glob("*.py") if not p.stem.startswith("_")]
        raise UserError(f"unknown method '{name}'{did_you_mean(name, known)}; a method is a file in baselines/")
    spec = importlib.util.spec_from_file_location(f"baselines.{name}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise UserError(f"baselines/{name}.py: {explain(error, Method)}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"baselines/{name}.py cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(getattr(module, "METHOD", None), Method):
        raise UserError(f"baselines/{name}.py defines no METHOD; write METHOD = Method(title=...)")
    return module


def load_method(name: str) -> Method:
    return _method_module(name).METHOD


def denoiser_hook(name: str) -> Callable | None:
    """The method's optional `modify_denoiser(model) -> model`, for changes that Method has no field for."""
    return getattr(_method_module(name), "modify_denoiser", None)


def method_file(name: str) -> Path:
    return METHODS / f"{name}.py"


# ---------------------------------------------------------------------------------------------------------------- loading


def study_names() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load_study(name: str) -> Study:
    """The study `harness/studies/<name>.yaml`, on top of the one it `extends`."""
    return parse_study(name, _read_study(nearest(name, study_names(), "study")))


def parse_study(name: str, values: dict) -> Study:
    try:
        return Study(name=name, **values)
    except ValidationError as error:
        raise UserError(f"study '{name}': {explain(error, Study)}") from None


def _read_study(name: str) -> dict:
    path = STUDIES / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of study fields")
    parent = values.pop("extends", None)
    return merge(_read_study(nearest(parent, study_names(), "study")), values) if parent else values


def merge(base: dict, changes: dict) -> dict:
    """`base` with `changes` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def check_seeds(seeds: object) -> list[int]:
    whole = isinstance(seeds, list) and all(isinstance(s, int) and not isinstance(s, bool) and 0 <= s < 2**32 for s in seeds)
    if not whole or not seeds:
        raise UserError(f"seeds must be a list of one or more whole numbers from 0 up, such as '[0,1,2]'; got {seeds!r}")
    if len(set(seeds)) != len(seeds):
        raise UserError(f"seeds must differ from one another; got {seeds!r}")
    return seeds


T = TypeVar("T")


def nearest(name: T, known: Iterable[T], what: str) -> T:
    """`name` if it is known; otherwise a UserError that names the nearest known one."""
    known = list(known)
    if name not in known:
        raise UserError(f"unknown {what} '{name}'{did_you_mean(str(name), [str(k) for k in known])}; known: {', '.join(map(str, known))}")
    return name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic in one line, with the nearest valid name for an unknown field."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        for part in first["loc"][:-1]:
            model = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else model
        known = list(getattr(model, "model_fields", {}))
        return f"unknown field '{where}'{did_you_mean(str(first['loc'][-1]), known)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {first['input']!r})" if where and first["type"] != "missing" else f"{where}: {message}".lstrip(": ")


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
