"""What the gate says: a line for each comparison, and of all of them the exit code."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from harness.report.statistics import Estimate, estimate
from harness.results.views import View

EVERY = "all methods"

# difference: exit code 1. undecided: too little to say. moved: another single draw. note: told, not judged.
GateVerdict = Literal["difference", "undecided", "moved", "note", "no difference", "identical"]
ORDER: tuple[GateVerdict, ...] = ("difference", "undecided", "moved", "note", "no difference", "identical")
NeuronLists = dict[str, dict[str, list[int]]]  # of methods with test-time registers: layer -> register neurons
Key = tuple[str, View, str]  # score, what its samples were drawn with, method


@dataclass(frozen=True)
class GateLine:
    """One comparison. `low`, `high`: interval at LEVEL of fresh minus stored, and `p`, of Student's t of this line alone; `adjusted`: among
    all lines. NaN untested.
    """

    method: str
    score: str
    view: View | None = None
    verdict: GateVerdict = "no difference"
    why: str = ""
    better: str = "neither"
    stored: Estimate | None = None
    fresh: Estimate | None = None
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    adjusted: float = math.nan

    @property
    def effect(self) -> float:
        """Fresh minus stored mean."""
        return self.fresh.mean - self.stored.mean if self.fresh and self.stored else math.nan

    @property
    def tested(self) -> bool:
        """Whether there was a test over seeds."""
        return not math.isnan(self.adjusted)


@dataclass(frozen=True)
class GateReport:
    """All lines, worst first, and remarks on the whole."""

    lines: list[GateLine]
    remarks: list[str]

    def of(self, verdict: GateVerdict) -> list[GateLine]:
        """The lines with this verdict."""
        return [line for line in self.lines if line.verdict == verdict]

    @property
    def identical(self) -> bool:
        """Whether every line is."""
        return all(line.verdict == "identical" for line in self.lines)

    @property
    def exit_code(self) -> int:
        """0: no difference found. 1: a difference. 2: cannot decide."""
        if self.of("difference"):
            return 1
        untested = self.of("moved") and not any(line.tested for line in self.lines)
        return 2 if self.of("undecided") or untested else 0


@dataclass(frozen=True)
class Tests:
    """How many tests over seeds there were, of single methods and over all; of how many seeds; whether seeds could be exchanged."""

    own: int = 0
    over_all: int = 0
    stored: int = 0
    fresh: int = 0
    pairs: int = 0
    exact: bool = True


@dataclass
class ScoreBySeed:
    """One score of one method: values by seed, and the status of the seeds that have none."""

    shared: bool
    better: str
    values: dict[int, float] = field(default_factory=dict)
    without: dict[int, str] = field(default_factory=dict)
    half: float = math.nan  # of the interval within a run, over images; of the last row
    n: int = 0  # images that a value is of

    @property
    def estimate(self) -> Estimate | None:
        """Over the seeds that have a value; None where none has."""
        return estimate(list(self.values.values())) if self.values else None

    def fails_more_than(self, stored: "ScoreBySeed", rate: float) -> bool:
        """Whether seeds fail that did not, or more of them than chance gives: where stored seeds failed too, by the hypergeometric test."""
        if not self.without or not stored.values:
            return False
        if not self.values or not stored.without or set(self.without) & set(stored.values):
            return True
        fresh, before = (len(side.values) + len(side.without) for side in (self, stored))
        failed = len(self.without) + len(stored.without)
        as_many = sum(math.comb(fresh, k) * math.comb(before, failed - k) for k in range(len(self.without), min(fresh, failed) + 1))
        return as_many / math.comb(fresh + before, failed) <= rate

    @property
    def failures(self) -> str:
        """How many seeds have no value, by status, in words."""
        counts = ", ".join(f"{count} {status}" for status, count in Counter(self.without.values()).items())
        return f"{counts} of {len(self.without) + len(self.values)} seeds" if counts else "ok"


def by_score(rows: pd.DataFrame) -> dict[Key, ScoreBySeed]:
    """The rows by score, view and method."""
    scores: dict[Key, ScoreBySeed] = {}
    for row in rows.to_dict("records"):
        view = View(row["ema"], row["step"], row["guidance"])
        cell = scores.setdefault((row["score"], view, row["method"]), ScoreBySeed(row["shared"], row["better"]))
        if row["status"] == "ok":
            cell.values[row["seed"]] = row["value"]
            cell.half, cell.n = (row["high"] - row["low"]) / 2, row["n"]
        else:
            cell.without[row["seed"]] = row["status"]
    return scores
