"""`dsr parity`: every output of a golden file beside what this code computes of the file's weights and inputs.

The relative error of a quantity is |ours - theirs| / |theirs|, L2 norms over all of its values.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from harness.parity.base import pattern_of
from harness.parity.files import read
from harness.parity.registry import format_of
from harness.study.typed import UserError, explain, first_line

LIMIT = 1e-5  # float32 of another order of summation stays below; the originals in float64 are within 1.4e-6 of themselves
INPUTS = re.compile(r"state\..*|in\..*|loss\.(u|x1|x0_noise)|ode\.noise")  # of every format; what is no input is an output


class Quantity(BaseModel):
    """A recorded output and how far ours is from it."""

    model_config = ConfigDict(frozen=True)
    name: str
    error: float = 0.0  # relative; NaN where ours is not a number
    left_out: str = ""  # why it is not compared

    @property
    def ok(self) -> bool:
        """Whether the error is below LIMIT; also where it is not compared."""
        return bool(self.left_out) or self.error < LIMIT

    @property
    def text(self) -> str:
        """The error, or why there is none."""
        return self.left_out or f"{self.error:.1e}{'' if self.ok else '  FAILS'}"


def parity(path: Path) -> list[Quantity]:
    """The error of every output in the file, in the file's order.

    Raises UserError for a file that is not of this format, an architecture or an option that is not implemented here, weights that do
    not fit it, and an output that this code does not compute.
    """
    file = read(Path(path))
    of = format_of(file)
    try:
        with torch.no_grad():
            ours = of.outputs(file, of.config(**file.config))
    except ValidationError as error:
        raise UserError(f"{path}: its config: {explain(error, of.config)}") from None
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (RuntimeError, LookupError, ArithmeticError, ValueError, TypeError) as error:
        raise UserError(f"{path}: its inputs do not fit its config: {first_line(error)}") from None
    outputs = [name for name in file.tensors if not INPUTS.fullmatch(name) and not pattern_of(name, of.inputs)]
    left_out = {name: of.left_out[pattern] for name in outputs if (pattern := pattern_of(name, of.left_out))}
    compared = [name for name in outputs if name not in left_out]
    unknown = [name for name in compared if name not in ours]
    if unknown or not compared:
        raise UserError(f"{path}: not computed here: {', '.join(unknown)}" if unknown else f"{path}: holds no outputs to compare with")
    for name in compared:
        if ours[name].shape != file.tensors[name].shape:
            raise UserError(f"{path}: '{name}' is {tuple(file.tensors[name].shape)} in the file, {tuple(ours[name].shape)} here")
    quantities = [Quantity(name=name, left_out=why) for name, why in left_out.items()]
    for name in compared:
        size = of.sizes[pattern] if (pattern := pattern_of(name, of.sizes)) else None
        quantities.append(Quantity(name=name, error=relative_error(ours[name], file.tensors[name], size)))
    return sorted(quantities, key=lambda quantity: _in_order(quantity.name))


def parity_report(paths: Sequence[Path]) -> tuple[str, bool]:
    """What `dsr parity` prints: a line for every quantity of every file, or why the file cannot be compared; and whether all agree."""
    lines, good = [], True
    for path in paths:
        try:
            quantities = parity(path)
        except UserError as error:
            good = False
            lines.append(f"error: {error}")
            continue
        width = max(len(quantity.name) for quantity in quantities)
        failed = [quantity for quantity in quantities if not quantity.ok]
        good = good and not failed
        count = sum(not quantity.left_out for quantity in quantities)
        verdict = f"{len(failed)} of {count} quantities at or above" if failed else f"all {count} quantities below"
        lines.append(f"{path}: {verdict} {LIMIT:g}")
        lines += [f"  {quantity.name:<{width}}  {quantity.text}" for quantity in quantities]
    return "\n".join(lines), good


def relative_error(ours: Tensor, theirs: Tensor, size: float | None = None) -> float:
    """|ours - theirs| / |theirs| of two tensors of one shape (...), L2 norms over all values in float64; `size`: in place of |theirs|.

    Where theirs is all zero: 0 for equal tensors and infinity for others.
    """
    distance = (ours.double() - theirs.double()).norm().item()
    size = theirs.double().norm().item() if size is None else size
    return distance / size if size else math.inf if distance else 0.0


def _in_order(name: str) -> list[tuple[bool, int, str]]:
    """block.10 comes after block.9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")]
