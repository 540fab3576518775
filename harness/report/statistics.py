"""The statistics of comparison: means over seeds with Student-t intervals, and differences paired by seed."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import pandas as pd

from harness.results.schema import LEVEL
from harness.study.seeds import PUBLISHED

POWER = 0.8  # chance at which a change is called detectable, and seeds enough
SKEW = 1.0  # sigma of the log-normal seeds up to which `skewed_p` keeps its level


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
        return half_width(self.sd, self.n) if self.n > 1 else math.nan

    @property
    def low(self) -> float:
        """Lower end of that interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of that interval."""
        return self.mean + self.half

    @property
    def spreads(self) -> bool:
        """Whether the values differ by more than rounding. Equal ones (of a share with few steps, say) are no proof of certainty."""
        return self.n > 1 and self.sd > 1e-9 * abs(self.mean)

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside of that interval; False without a spread."""
        return self.spreads and abs(self.mean) > self.half

    @property
    def t(self) -> float:
        """Mean over its standard error; 0 without a spread."""
        return self.mean / (self.sd / math.sqrt(self.n)) if self.spreads else 0.0

    @property
    def p(self) -> float:
        """Two-sided, of the mean being zero, by Student's t; 1 without a spread."""
        from scipy.special import stdtr

        return 2 * float(stdtr(self.n - 1, -abs(self.t))) if self.spreads else 1.0


Sd = TypeVar("Sd", float, np.ndarray)


def half_width(sd: Sd, n: int) -> Sd:
    """Of the interval at LEVEL of the mean of n > 1 values with standard deviation `sd`: Student's t, n - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * sd / math.sqrt(n)


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


@cache
def skewed_null(n: int) -> np.ndarray:
    """Sorted |t| (draws,) of the mean of n log-normal values of sigma SKEW, less their true mean: seeded draws, fewer of larger n.

    Values crowd on one side of their mean, and where all that were drawn do, they look certain (Johnson 1978, JASA 73).
    """
    rng = np.random.default_rng(0)
    values = np.exp(SKEW * rng.standard_normal((max(1_000_000 // max(n, 10), 4_000), n))) - math.exp(SKEW**2 / 2)
    return np.sort(np.abs(values.mean(1)) / (values.std(1, ddof=1) / math.sqrt(n)))


def skewed_p(side: Estimate) -> float:
    """Two-sided, of the mean being zero, for seeds that are normal or skewed to either side, up to log-normal of sigma SKEW."""
    if not side.spreads:
        return 1.0
    null = skewed_null(side.n)
    return max(side.p, (1 + len(null) - int(np.searchsorted(null, abs(side.t)))) / (1 + len(null)))


def critical(n: int, alpha: float, *, skewed: bool = False) -> float:
    """|t| over n seeds beyond which p is below `alpha`; `skewed`: of `skewed_p`."""
    from scipy.special import stdtrit

    student = float(stdtrit(n - 1, 1 - alpha / 2))
    if not skewed:
        return student
    null = skewed_null(n)
    return max(student, float(null[min(math.ceil((1 - alpha) * len(null)), len(null) - 1)]))


def detectable(n: int, alpha: float, *, skewed: bool = False) -> float:
    """Mean, in standard deviations over seeds, that n seeds find with chance POWER at level `alpha`."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(n - 1, 1 - POWER, critical(n, alpha, skewed=skewed))) / math.sqrt(n)


def seeds_needed(size: float, *, alpha: float = 1 - LEVEL, most: int = 1000, skewed: bool = False) -> int | None:
    """Fewest seeds that find a true mean of `size` standard deviations with chance POWER, by a two-sided t-test of level `alpha`.

    None beyond `most`.
    """
    from scipy.special import nctdtr

    def enough(n: int) -> bool:
        return bool(1 - nctdtr(n - 1, size * math.sqrt(n), critical(n, alpha, skewed=skewed)) >= POWER)

    first = seeds_needed(size, alpha=alpha, most=most) if skewed else 2  # skewed seeds take no fewer
    if first is None or not size > 0:
        return None
    last = first
    while last < most and not enough(last):
        last = min(2 * last, most)
    return bisect_left(range(last), True, lo=first, key=enough) if enough(last) else None


def seeds_range(side: Estimate, *, alpha: float, most: int = 1000, skewed: bool = False) -> tuple[int | None, int | None]:
    """Fewest and most seeds needed, of the interval at LEVEL of the true mean over the true spread (noncentral t); None beyond `most`."""
    from scipy.special import nctdtrinc, stdtr

    tail, freedom, t = (1 - LEVEL) / 2, side.n - 1, abs(side.t)
    largest = float(nctdtrinc(freedom, tail, t)) / math.sqrt(side.n)
    smallest = float(nctdtrinc(freedom, 1 - tail, t)) / math.sqrt(side.n) if stdtr(freedom, t) > 1 - tail else 0.0
    fewest, needed = (seeds_needed(size, alpha=alpha, most=most, skewed=skewed) for size in (largest, smallest))
    return fewest, needed


def by_seed(rows: pd.DataFrame, method: str, score: str) -> pd.Series:
    """Values of a method's score, indexed by seed."""
    chosen = rows.loc[(rows["method"] == method) & (rows["score"] == score), ["seed", "value"]]
    return chosen.set_index("seed")["value"].sort_index()


def difference(rows: pd.DataFrame, method: str, baseline: str, score: str) -> Estimate:
    """Method minus baseline, paired by seed: both had the same first weights, data order and noise. Published weights have no pair."""
    pairs = by_seed(rows, method, score) - by_seed(rows, baseline, score)
    return estimate(pairs.drop(PUBLISHED, errors="ignore").dropna().to_numpy())
