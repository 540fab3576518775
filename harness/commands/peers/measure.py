"""Two ways to do one piece of work, timed in turn: ours, the peer's, ours, ... so that what else the machine does meets both."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from harness.machine.progress import Progress
from harness.study.typed import UserError

Values = Sequence[float]  # what a side computed


@dataclass(frozen=True)
class Pair:
    """One row before it is measured. Each side returns its values, which must agree within `tolerance`, relative, without units.

    `floor`: differences below it are none (a distance is the small difference of large traces). `wanted`: a ratio, not asserted.
    """

    work: str
    peer: str
    wanted: str
    ours: Callable[[], Values]
    theirs: Callable[[], Values]
    tolerance: float = 1e-6
    floor: float = 0.0


@dataclass(frozen=True)
class Line:
    """One measured row: `ours` and `theirs` are the rounds in `unit`; `theirs` is empty where there is no peer."""

    work: str
    peer: str
    wanted: str
    unit: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float | None:
        """Median of the peer's over median of ours: above 1, ours is the faster."""
        return median(self.theirs) / median(self.ours) if self.theirs else None


def alternate(pair: Pair, rounds: int) -> Line:
    """Both once without a clock, where their values are compared, then `rounds` of each in turn. UserError if they do not agree."""
    agree(pair, pair.ours(), pair.theirs())
    progress, seconds = Progress(f"{pair.work} / {pair.peer}", 2 * rounds, unit="calls"), ([], [])
    for turn in range(2 * rounds):
        began = time.perf_counter()
        (pair.ours, pair.theirs)[turn % 2]()
        seconds[turn % 2].append(time.perf_counter() - began)
        progress.update(turn + 1)
    return Line(pair.work, pair.peer, pair.wanted, "s", *seconds)


def agree(pair: Pair, ours: Values, theirs: Values) -> None:
    """UserError unless both sides computed the same: the speed of something else says nothing."""
    same = len(ours) == len(theirs) and all(
        math.isclose(one, other, rel_tol=pair.tolerance, abs_tol=pair.floor) for one, other in zip(ours, theirs, strict=False)
    )
    if not same or not ours:
        shown = ["  ".join(f"{value:.9g}" for value in values[:8]) for values in (ours, theirs)]
        raise UserError(f"benchmark {pair.work}: ours gives {shown[0]}, {pair.peer} {shown[1]}: not the same work, so nothing is compared")
