"""The statistics of comparison: means over seeds with Student-t intervals, and differences paired by seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.results.schema import LEVEL

POWER = 0.8  # chance at which a change is called detectable, and seeds enough


@dataclass(frozen=True)
class Estimate:
    """Mean of `n` values with their standard deviation; `half` is half the width of its interval at LEVEL (Student's t).

    NaN where n = 1.
    """

    mean: float
    sd: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval of the mean at LEVEL: Student's t, n - 1 degrees of freedom."""
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 0.5 + LEVEL / 2)) * self.sd / math.sqrt(self.n) if self.n > 1 else math.nan

    @property
    def low(self) -> float:
        """Lower end of that interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of that interval."""
        return self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside of that interval."""
        return abs(self.mean) > self.half  # False where `half` is NaN

    @property
    def p(self) -> float:
        """Two-sided, of the mean being zero; 1 where n = 1. Without any spread: 0, or 1 for a mean of exactly zero."""
        from scipy.special import stdtr

        if self.n < 2 or self.mean == 0:
            return 1.0
        return 2 * float(stdtr(self.n - 1, -abs(self.mean) / (self.sd / math.sqrt(self.n)))) if self.sd else 0.0


def estimate(values: np.ndarray | Sequence[float]) -> Estimate:
    """Of values over seeds (S,); of none, a mean of NaN."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return Estimate(math.nan, math.nan, 0)
    return Estimate(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan, len(values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of one false finding among all of them is at most the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted


def seeds_needed(effect: float, sd: float, *, alpha: float = 1 - LEVEL, power: float = POWER, most: int = 1000) -> int | None:
    """Fewest seeds at which a paired two-sided t-test of `alpha` finds a true mean `effect` of spread `sd` with chance `power`.

    None beyond `most`.
    """
    from scipy.special import nctdtr, stdtrit

    if not effect or not math.isfinite(effect) or not math.isfinite(sd):
        return None
    for n in range(2, most + 1):
        limit = stdtrit(n - 1, 1 - alpha / 2)
        if not sd or 1 - nctdtr(n - 1, abs(effect) / sd * math.sqrt(n), limit) >= power:
            return n
    return None


def by_seed(rows: pd.DataFrame, method: str, score: str) -> pd.Series:
    """Values of a method's score, indexed by seed."""
    chosen = rows.loc[(rows["method"] == method) & (rows["score"] == score), ["seed", "value"]]
    return chosen.set_index("seed")["value"].sort_index()


def difference(rows: pd.DataFrame, method: str, baseline: str, score: str) -> Estimate:
    """Method minus baseline, paired by seed: both had the same first weights, data order and noise."""
    return estimate((by_seed(rows, method, score) - by_seed(rows, baseline, score)).dropna().to_numpy())
