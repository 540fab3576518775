"""Typed methods, and what every configuration shares: errors for people, strict models, merging, digests.

A method (baselines/*.py) is one row of a table: what it does to the encoder, to the denoiser and to the loss. Studies are in harness.study.study.
This module is read by the Snakefile, so it must not import torch.
"""

import difflib
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from harness.study.study import Study

ROOT = Path(__file__).resolve().parents[2]
METHODS = ROOT / "baselines"


class UserError(Exception):
    """Something the person at the keyboard can put right: one line that says what, where and what to do. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # what it quotes may have several


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DiffusionRegisters(Strict):
    count: Count
    start: Annotated[int, Field(ge=0)]  # block before which the registers are prepended


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

    def registers(self, study: "Study") -> DiffusionRegisters | None:
        if isinstance(self.diffusion_registers, DiffusionRegisters):
            return self.diffusion_registers
        return study.denoiser.registers if self.diffusion_registers else None

    def sort_key(self) -> tuple:
        """Rows go from the untouched pipeline to the one with most registers."""
        encoder = (["none", "test_time", "trained"].index(self.encoder.kind), str(self.encoder.rounds))
        own = self.diffusion_registers if isinstance(self.diffusion_registers, DiffusionRegisters) else None
        return (*encoder, bool(self.diffusion_registers), self.loss_mask is not None, (own.start, own.count) if own else (-1, -1))


def method_names() -> list[str]:
    """Every method in baselines/, `baseline` first. Their variants (`load_method`) are not listed."""
    return in_order(_files())


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of a table's rows, `baseline` first."""
    return sorted(set(methods), key=lambda name: (name != "baseline", load_method(name).sort_key(), name))


NORMS = {"pre_ln": "before the final norm", "post_ln": "after the final norm", "whitened": "after whitening"}
VARIANT = re.compile(rf"(?P<file>.+?)-(?:count(?P<count>[1-9]\d*)-start(?P<start>0|[1-9]\d*)|(?P<norm>{'|'.join(NORMS)}))")


def _files() -> list[str]:
    return [file.removesuffix(".py") for file in os.listdir(METHODS) if file.endswith(".py") and not file.startswith("_")]


def _variant(name: str) -> re.Match | None:
    """What a name says beyond that of its file; None for the name of a file."""
    return None if name in _files() else VARIANT.fullmatch(name)


def _method_module(name: str) -> ModuleType:
    path, known = method_file(name), _files()
    if path.stem not in known or path.parent != METHODS:
        raise UserError(
            f"unknown method '{name}'{did_you_mean(name.partition('-')[0], known)}; a method is a file in baselines/, "
            "or one with other diffusion registers (NAME-count16-start2) or another norm of its loss mask (NAME-whitened)"
        )
    return _executed(path, path.read_bytes())


@cache
def _executed(path: Path, content: bytes) -> ModuleType:
    """The module of a method's file, as long as it has this content."""
    name = path.stem
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
    """A method, or a variant of one: `FILE-count16-start2` has other diffusion registers, `FILE-whitened` another norm of its loss mask."""
    method, variant = _method_module(name).METHOD, _variant(name)
    if variant is None:
        return method
    field = "loss_mask" if variant["norm"] else "diffusion_registers"
    if not getattr(method, field):
        raise UserError(f"method '{name}': baselines/{variant['file']}.py has no {field}, so that there is no such variant of it")
    if variant["norm"]:
        changes = {"loss_mask": LossMask(norm=variant["norm"])}
        return method.model_copy(update=changes | {"title": f"{method.title} (norm {NORMS[variant['norm']]})"})
    registers = DiffusionRegisters(count=int(variant["count"]), start=int(variant["start"]))
    return method.model_copy(
        update={"diffusion_registers": registers, "title": f"{method.title} ({registers.count} from block {registers.start})"}
    )


def denoiser_hook(name: str) -> Callable | None:
    """The method's optional `modify_denoiser(model) -> model`, for changes that Method has no field for."""
    return getattr(_method_module(name), "modify_denoiser", None)


def method_file(name: str) -> Path:
    """The file of a method or of the method that it is a variant of."""
    variant = _variant(name)
    return METHODS / f"{variant['file'] if variant else name}.py"


# ---------------------------------------------------------------------------------------------------------------- reading


def merge(base: dict, changes: dict) -> dict:
    """`base` with `changes` laid over it, mapping by mapping; a mapping of another `kind` replaces the old one whole."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(value, dict) and isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        merged[key] = merge(old, value) if both else value
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
    path, candidates, known = [], [model], list(model.model_fields)
    for part in first["loc"]:
        owner = next((m for m in candidates if part in m.model_fields), None)
        if owner is not None:
            candidates = list(_models_in(owner.model_fields[part].annotation))
        elif tagged := [m for m in candidates if part in _tags(m)]:
            candidates = tagged  # pydantic puts the kind of a union's member into the path; the file has no such field
        if owner is not None or not tagged:
            path.append(str(part))
        known = [field for m in candidates for field in m.model_fields] or known
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"unknown field '{where}'{did_you_mean(path[-1], known)}"
    message = first["msg"].removeprefix("Value error, ")
    short = first["type"] == "missing" or isinstance(first["input"], dict)
    return f"{where}: {message}".lstrip(": ") if short or not where else f"{where}: {message} (got {first['input']!r})"


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    """The models that a field's annotation mentions, through unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _tags(model: type[BaseModel]) -> tuple:
    """Values of the field that tells a union's member from the others."""
    return next((get_args(field.annotation) for name, field in model.model_fields.items() if name in ("kind", "source")), ())


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
