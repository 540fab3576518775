"""`dsr parity`: does this code compute what the authors' released code does? Compared are recorded inputs, weights and outputs.

A file is a `.safetensors` with random weights (`state.*`), inputs and outputs of the released code, and in its metadata a `config` (JSON)
with the shapes. Its architecture is known from the config. The relative error of a quantity is |ours - theirs| / |theirs|, L2 norms over
all of its values.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.commands.released import Tensors, computed
from harness.machine.device import device
from harness.study.typed import UserError, explain

LIMIT = 1e-5  # float32 of another order of summation stays below; the released code in float64 is within 1.4e-6 of itself
INPUTS = re.compile(r"state\..*|in\..*|loss\.(u|x1|x0_noise)|ode\.noise")  # everything else is an output


class Quantity(BaseModel):
    """A recorded output and how far ours is from it."""

    model_config = ConfigDict(frozen=True)
    name: str
    error: float  # relative; NaN where ours is not a number

    @property
    def ok(self) -> bool:
        """Whether the error is below LIMIT."""
        return self.error < LIMIT


def parity(path: Path) -> list[Quantity]:
    """The error of every output in the file, in the file's order.

    Raises UserError for a file that is not of this format, an architecture or an option that is not implemented here, weights that do
    not fit it, and an output that this code does not compute.
    """
    path = Path(path)
    config, tensors = _read(path)
    try:
        with torch.no_grad():
            ours = computed(path, config, tensors)
    except ValidationError as error:
        raise UserError(f"{path}: its config: {explain(error, BaseModel)}") from None
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (RuntimeError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{path}: its inputs do not fit its config: {str(error).splitlines()[0]}") from None
    outputs = [name for name in tensors if not INPUTS.fullmatch(name)]
    unknown = [name for name in outputs if name not in ours]
    if unknown or not outputs:
        raise UserError(f"{path}: not computed here: {', '.join(unknown)}" if unknown else f"{path}: holds no outputs to compare with")
    for name in outputs:
        if ours[name].shape != tensors[name].shape:
            raise UserError(f"{path}: '{name}' is {tuple(tensors[name].shape)} in the file, {tuple(ours[name].shape)} here")
    return [Quantity(name=name, error=relative_error(ours[name], tensors[name])) for name in sorted(outputs, key=_in_order)]


def parity_report(paths: Sequence[Path]) -> tuple[str, bool]:
    """What `dsr parity` prints: a line for every quantity of every file; and whether all of them stay below the limit."""
    lines, good = [], True
    for path in paths:
        quantities = parity(path)
        width = max(len(quantity.name) for quantity in quantities)
        failed = [quantity for quantity in quantities if not quantity.ok]
        good = good and not failed
        verdict = f"{len(failed)} of {len(quantities)} quantities at or above" if failed else f"all {len(quantities)} quantities below"
        lines.append(f"{path}: {verdict} {LIMIT:g}")
        lines += [f"  {quantity.name:<{width}}  {quantity.error:.1e}{'' if quantity.ok else '  FAILS'}" for quantity in quantities]
    return "\n".join(lines), good


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs| of two tensors of one shape (...), L2 norms over all values in float64.

    Where theirs is all zero: 0 for equal tensors and infinity for others.
    """
    distance, size = (ours.double() - theirs.double()).norm().item(), theirs.double().norm().item()
    return distance / size if size else math.inf if distance else 0.0


def _in_order(name: str) -> list[tuple[bool, int, str]]:
    """block.10 comes after block.9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")]


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("config")
            tensors = {key: file.get_tensor(key).to(device()) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    try:
        config = json.loads(text or "")
    except json.JSONDecodeError:
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its metadata has no 'config' (JSON) with the shapes; weights alone cannot be compared")
    return config, tensors
