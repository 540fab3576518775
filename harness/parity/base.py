"""What a format of golden files is, and what formats of denoisers share.

A new format: a module of its own here with a FORMAT, named in registry.py by the `model` of its files' config, or by something that only
they have.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from harness.parity.files import GoldenFile, Tensors

ANOTHER_LIBRARY = "not compared: it follows another library's step control"  # of dopri5


class Described(BaseModel):
    """What a file says of itself. Literal fields are options of its code of which only the one value is implemented."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Arguments(Described):
    """Arguments of the originals' constructor. An option that is not known here changes nothing where it is switched off."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _options_that_are_off(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value or name in cls.model_fields}


@dataclass(frozen=True)
class Format:
    """`outputs`: (file, its config as `config`) -> every output that this code computes from the file's inputs, by its name in the file.

    `inputs`: names of inputs beside state.*, in.*, loss.u, loss.x1, loss.x0_noise and ode.noise. `left_out`: outputs that are not compared,
    and why. `sizes`: of outputs that vanish, being differences of larger numbers, what their error is relative to. A name with * is a
    pattern, as of files.
    """

    config: type[Described]
    outputs: Callable[[GoldenFile, Any], Tensors]
    inputs: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sizes: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def pattern_of(name: str, patterns: Iterable[str]) -> str | None:
    """The first of these patterns that a name fits."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def number(value: float | list[int]) -> Tensor:
    """() or (N,) float64."""
    return torch.tensor(value, dtype=torch.float64)


def blocks_of(model: nn.Module, call: Callable[[], Tensor]) -> Tensors:
    """What `call` returns as `out`, and what each of model.blocks puts out on the way, (B, N, D), as `block.i`."""
    blocks: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _module, _inputs, output: blocks.append(output)) for block in model.blocks]
    try:
        out = call()
    finally:
        for handle in handles:
            handle.remove()
    return {"out": out} | {f"block.{index}": output for index, output in enumerate(blocks)}
