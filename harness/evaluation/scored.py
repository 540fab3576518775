"""From numbers to the scores of a file: what cannot be computed, or is not finite, says so in its status, and the others stand."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.evaluation.bootstrap import Measured
from harness.results.schema import Score, Status
from harness.store import artifacts
from harness.study.typed import UserError

WITHOUT = "none: no value"


@dataclass(frozen=True)
class Stop:
    """Why there is no value."""

    status: Status
    reason: str


@dataclass(frozen=True)
class About:
    """What scores are of: `n` images, and the SHA-256 of what they are compared with and of the network that looks."""

    n: int
    reference: str
    extractor: str


def stop_of(*paths: Path) -> Stop | None:
    """The first of these artifacts whose record says that it was not finite, or could not be made."""
    for path in paths:
        record = artifacts.meta(path)
        if record.get("status", "ok") != "ok":
            return Stop(record["status"], record.get("reason") or f"{path.name} has no reason in its record")
    return None


def score(found: Measured | Stop, about: About) -> Score:
    if isinstance(found, Measured) and not math.isfinite(found.value):
        found = Stop("failed", f"the value is {found.value}, not a finite number")
    of = {"n": about.n, "reference": about.reference, "extractor": about.extractor}
    if isinstance(found, Stop):
        return Score(value=None, how=WITHOUT, status=found.status, reason=found.reason, **of)
    return Score(value=found.value, low=found.low, high=found.high, how=found.how, **of)


def attempt(
    names: list[str], about: About, compute: Callable[[], dict[str, Measured]], stop: Stop | None = None, at: str = ""
) -> dict[str, Score]:
    """The scores of these names that `compute` finds, `at` added to each. All have the same status where there is a `stop`, or where it fails."""
    found: dict[str, Measured] = {}
    if stop is None:
        try:
            found = compute()
        except (UserError, ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:  # the libraries' words for degenerate features
            stop = Stop("failed", " ".join(str(error).split()) or type(error).__name__)
    return {f"{name}{at}": score(stop or found[name], about) for name in names}
