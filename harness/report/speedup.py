"""How much sooner a method is where the baseline ends: "reaches the baseline's final FID in 1/x of the steps". Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.report.statistics import Estimate, estimate


@dataclass(frozen=True)
class Speedup:
    """`logs`: over seeds, of the logarithm of the factor x; `of_seeds`: x of every seed that gets there.

    `never`: seeds that do not get there; `without`: seeds that lack a value (diverged). With any of them there is no factor: one of the
    other seeds would be a mean over survivors. `at_once`: seeds that are there at the first step that was measured, so that their x is at
    least what is taken.
    """

    logs: Estimate
    never: list[int]
    without: list[int]
    at_once: list[int]
    of_seeds: dict[int, float]

    @property
    def known(self) -> bool:
        """Whether every seed has a factor."""
        return not self.never and not self.without and self.logs.n > 0

    @property
    def factor(self) -> float:
        """Geometric mean over seeds; NaN where a seed has none."""
        return math.exp(self.logs.mean) if self.known else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Ends at LEVEL, Student's t of the logarithms; NaN for one seed, and where one is only known to be at least something."""
        return (math.exp(self.logs.low), math.exp(self.logs.high)) if self.known and not self.at_once else (math.nan, math.nan)

    @property
    def text(self) -> str:
        """The factor with its interval, or why there is none."""
        if not self.known:
            reasons = (("not reached by", self.never), ("no value for", self.without))
            return "; ".join(f"{reason} {_seeds(seeds)}" for reason, seeds in reasons if seeds) or "no value"
        low, high = self.interval
        spread = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        return f"{'≥ ' if self.at_once else ''}{self.factor:.2f}{spread}"


def crossing(steps: Sequence[float], values: Sequence[float] | np.ndarray, target: float) -> float | None:
    """The first step at which a falling score is at `target`: linear between its points in the logarithm of the step. None: never."""
    for place, (step, value) in enumerate(zip(steps, values, strict=True)):
        if value <= target:
            if place == 0:
                return step
            before, above = steps[place - 1], values[place - 1]
            return before * (step / before) ** ((above - target) / (above - value))
    return None


def speedup(rows: pd.DataFrame, method: str, baseline: str) -> Speedup:
    """Of rows of one score, lower being better, at several steps: last step over the step at which `method` is where `baseline` ends.

    Each seed is compared with the baseline of the same seed: both had the same first weights, data order and noise.
    """
    factors, never, without, at_once = {}, [], [], []
    table = rows.pivot_table(index="step", columns=["method", "seed"], values="value", dropna=False).sort_index()
    steps = list(table.index)
    for seed in sorted(map(int, rows.loc[rows["method"] == method, "seed"].unique())):
        own = table[method, seed].to_numpy()
        target = table[baseline, seed].iloc[-1] if (baseline, seed) in table else math.nan
        if not np.isfinite([*own, target]).all():
            without.append(seed)
            continue
        reached = crossing(steps, own, target)
        if reached is None:
            never.append(seed)
            continue
        if reached == steps[0]:
            at_once.append(seed)
        factors[seed] = steps[-1] / reached
    return Speedup(estimate(np.log(list(factors.values()))), never, without, at_once, factors)


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
