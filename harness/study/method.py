"""Methods, typed: one file in baselines/ each, which says what a row does to the encoder, to the denoiser and to the loss."""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from harness.study.folders import PROJECT
from harness.study.names import names_in
from harness.study.typed import Count, Strict, Title, UserError, did_you_mean, explain, name_in, nearest

METHODS = PROJECT / "baselines"


NORMS = {"pre_ln": "before the final norm", "post_ln": "after the final norm", "whitened": "after whitening"}  # of a latent's tokens


class DiffusionRegisters(Strict):
    count: Count
    start: Annotated[int, Field(ge=0)]  # block before which the registers are prepended


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
    def changes(self) -> bool:
        """Whether it does anything to the encoder."""
        return self.kind != "none"

    @property
    def trained(self) -> bool:
        """Whether it takes an encoder that was trained with registers."""
        return self.kind == "trained"

    @property
    def searched(self) -> bool:
        """Whether register neurons are searched for, in the encoder as it is."""
        return self.kind == "test_time"

    @property
    def backbone(self) -> str:
        """The encoder's weights: `plain`, or `trained_registers`."""
        return "trained_registers" if self.trained else "plain"


class LossMask(Strict):
    """Zero the loss of tokens whose norm exceeds `threshold` times the median of that norm; None: `outlier_statistics.factor` times.

    `absolute`: of those whose norm is not below `threshold` itself (released train.py:419-422). The others' loss is divided by their share
    of the whole batch, or, `normalised` as released (train.py:542-548), of their own micro-batch, the images that one process passes
    through the network at once.

    The paper leaves open which norm (released rae.py:163-189 has all three): `pre_ln` residual stream, `post_ln` (constant, so inert),
    `whitened` latent.
    """

    norm: Annotated[str, name_in(NORMS)]
    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    absolute: bool = False
    normalised: Literal["batch", "micro_batch"] = "batch"

    @model_validator(mode="after")
    def _absolute_of_something(self) -> "LossMask":
        if self.absolute and self.threshold is None:
            raise ValueError("absolute needs a threshold, a norm: LossMask(norm='whitened', threshold=100, absolute=True)")
        return self


class Method(Strict):
    """One row of a table. `diffusion_registers=True` takes the study's count and start."""

    title: Title
    encoder: EncoderRegisters = EncoderRegisters()
    diffusion_registers: bool | DiffusionRegisters = False
    loss_mask: LossMask | None = None

    def registers(self, default: DiffusionRegisters) -> DiffusionRegisters | None:
        """Its diffusion registers; `default` are the study's."""
        if isinstance(self.diffusion_registers, DiffusionRegisters):
            return self.diffusion_registers
        return default if self.diffusion_registers else None

    def sort_key(self) -> tuple[Any, ...]:
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


VARIANT = re.compile(rf"(?P<file>.+?)-(?:count(?P<count>[1-9]\d*)-start(?P<start>0|[1-9]\d*)|(?P<norm>{'|'.join(NORMS)}))")


def _files() -> list[str]:
    return [name for name in names_in(METHODS, ".py", "method") if not name.startswith("_")]


def _variant(name: str) -> re.Match[str] | None:
    """What a name says beyond that of its file; None for the name of a file."""
    match = VARIANT.fullmatch(name)
    return match if match and name not in _files() else None  # the folder is read for such a name alone


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
    spec = importlib.util.spec_from_file_location(f"baselines.{name.replace('.', '_')}", path)  # a dot would make it a package
    if spec is None or spec.loader is None:
        raise UserError(f"baselines/{name}.py cannot be read: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.parents[1])) not in sys.path:  # for `from baselines._shared import ...`
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        part = next((part for part in (EncoderRegisters, DiffusionRegisters, LossMask) if part.__name__ == error.title), None)
        raise UserError(f"baselines/{name}.py: {f'{error.title}: ' if part else ''}{explain(error, part or Method)}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"baselines/{name}.py cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(getattr(module, "METHOD", None), Method):
        raise UserError(f"baselines/{name}.py defines no METHOD; write METHOD = Method(title=...)")
    return module


def load_method(name: str) -> Method:
    """A method, or a variant of one: `FILE-count16-start2` has other diffusion registers, `FILE-whitened` another norm of its loss mask."""
    method: Method = _method_module(name).METHOD
    variant = _variant(name)
    if variant is None:
        return method
    field = "loss_mask" if variant["norm"] else "diffusion_registers"
    if not getattr(method, field):
        raise UserError(f"method '{name}': baselines/{variant['file']}.py has no {field}, so that there is no such variant of it")
    if method.loss_mask and variant["norm"]:
        mask = LossMask.model_validate({**method.loss_mask.model_dump(), "norm": variant["norm"]})
        return method.model_copy(update={"loss_mask": mask, "title": f"{method.title} (norm {NORMS[variant['norm']]})"})
    registers = DiffusionRegisters(count=int(variant["count"]), start=int(variant["start"]))
    return method.model_copy(
        update={"diffusion_registers": registers, "title": f"{method.title} ({registers.count} from block {registers.start})"}
    )


def denoiser_hook(name: str) -> Callable[..., Any] | None:
    """The method's optional `modify_denoiser(model) -> model`, for changes that Method has no field for."""
    return getattr(_method_module(name), "modify_denoiser", None)


def method_file(name: str) -> Path:
    """The file of a method or of the method that it is a variant of."""
    variant = _variant(name)
    return METHODS / f"{variant['file'] if variant else name}.py"
