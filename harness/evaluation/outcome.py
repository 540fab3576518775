"""What a scoring function returns, and how that becomes a score of a file.

What cannot be computed, or is not finite, says so, and the others stand.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from harness.results.schema import NONE, Score
from harness.results.scores import ScoreInfo, score_info
from harness.results.views import Status
from harness.store import artifacts
from harness.study.typed import UserError

WITHOUT = "none: no value"


@dataclass(frozen=True)
class Measured:
    """A number with its interval, and `how` that was made, or why there is none (`low` and `high` are None then)."""

    value: float
    low: float | None
    high: float | None
    how: str


@dataclass(frozen=True)
class Stop:
    """Why there is no value."""

    status: Status
    reason: str


Outcome = Measured | Stop


def without(value: float, why: str) -> Measured:
    """A number that has no interval."""
    return Measured(value, None, None, f"none: {why}")


@dataclass(frozen=True)
class About:
    """What scores are of: `n` images, and the SHA-256 of what they are compared with, of the network that looks and of the images that are
    compared with, by their pixels.
    """

    n: int
    reference: str
    extractor: str
    content: str = NONE


class Subject:
    """What scores are of: a function of a score asks it for arrays. What several of them need is computed once, when the first asks.

    `n` images; `compared_with`: SHA-256 of what they are compared with; `content`: of its pixels; `networks`: of those that
    look, by their names in descriptions; `stop`: why there is nothing to score.
    """

    n: int = 0
    compared_with: str = NONE
    content: str = NONE
    networks: Mapping[str, str] = {}
    stop: Stop | None = None

    def about(self, info: ScoreInfo) -> About:
        reference, content = (self.compared_with, self.content) if info.compared else (NONE, NONE)
        return About(self.n, reference, self.networks[info.seen_by] if info.seen_by else NONE, content)

    def stopped(self, _info: ScoreInfo) -> Stop | None:
        """Why the score has no value, if that is known before it is computed."""
        return self.stop

    def at(self, place: str) -> Self:
        """As it is seen at a place of a score's name, such as a reference or a block; empty: of the plain name."""
        if place:
            raise ValueError(f"no scores at a place such as '{place}'")
        return self


def stop_of(*paths: Path) -> Stop | None:
    """The first of these artifacts whose record says that it was not finite, or could not be made."""
    for path in paths:
        record = artifacts.meta(path)
        if record.get("status", "ok") != "ok":
            return Stop(record["status"], record.get("reason") or f"{path.name} has no reason in its record")
    return None


def finite(outcome: Outcome) -> Outcome:
    """A Stop in the place of a number that is not finite."""
    if isinstance(outcome, Measured) and not math.isfinite(outcome.value):
        return Stop("failed", f"the value is {outcome.value}, not a finite number")
    return outcome


def attempt(compute: Callable[[], Outcome], about: About, stop: Stop | None = None) -> Score:
    """The score that `compute` gives; without a value where there is a `stop`, or where it fails."""
    outcome: Outcome | None = stop
    if outcome is None:
        try:
            outcome = finite(compute())
        except (UserError, ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:  # the libraries' words for degenerate features
            outcome = Stop("failed", " ".join(str(error).split()) or type(error).__name__)
    of = {"n": about.n, "reference": about.reference, "extractor": about.extractor, "content": about.content}
    if isinstance(outcome, Stop):
        return Score(value=None, how=WITHOUT, status=outcome.status, reason=outcome.reason, **of)
    return Score(value=outcome.value, low=outcome.low, high=outcome.high, how=outcome.how, **of)


def scores_by(functions: Mapping[str, Callable[[Any], Outcome]], names: Iterable[str], subject: Subject) -> dict[str, Score]:
    """The scores of these names, each by the function that is registered under it, of `subject`."""
    names, scores = list(names), {}
    for place in dict.fromkeys(name.partition("@")[2] for name in names):  # one after the other: what a place needs is freed then
        here = subject.at(place)
        for name in names:
            base, _, own = name.partition("@")
            if own == place:
                info = score_info(name)
                scores[name] = attempt(lambda base=base, here=here: functions[base](here), here.about(info), here.stopped(info))
    return scores
