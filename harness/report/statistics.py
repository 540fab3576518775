"""The statistics of comparison: means over seeds with Student-t intervals, and differences paired by seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean of `n` values; `half` is half the width of its 95 % interval, NaN where n = 1."""

    mean: float
    half: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        return bool(abs(self.mean) > self.half)  # False where `half` is NaN


def estimate(values: np.ndarray) -> Estimate:
    """Student-t interval over seeds."""
    from scipy.special import stdtrit

    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return Estimate(float(values.mean()), float("nan"), n)
    factor = float(stdtrit(n - 1, 0.5 + LEVEL / 2))
    return Estimate(float(values.mean()), float(factor * values.std(ddof=1) / np.sqrt(n)), n)


def by_seed(rows: pd.DataFrame, method: str, score: str) -> pd.Series:
    """Values of a method's score, indexed by seed."""
    chosen = rows[(rows["method"] == method) & (rows["score"] == score)]
    return chosen.set_index("seed")["value"].sort_index()


def difference(rows: pd.DataFrame, method: str, baseline: str, score: str) -> Estimate:
    """Method minus baseline, paired by seed: both had the same first weights, data order and noise."""
    return estimate((by_seed(rows, method, score) - by_seed(rows, baseline, score)).dropna().to_numpy())
