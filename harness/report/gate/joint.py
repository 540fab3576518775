"""The statistics of the gate: one test of many lines at once, by the largest of all, whose null distribution keeps their correlation.

A *line* is one score of one method; a column of `values` holds it for every seed. What a line is judged by is the effect over its spread.
The null distribution of the largest of these is made by exchanging whole seeds, so that scores of a seed, and methods that share its noise,
stay together (Westfall and Young 1993):

- where there are splits enough (8 stored against 3 fresh: 165), each is made, or 4,999 are drawn. Then the rate holds whatever the
  distribution: it only takes that fresh seeds are drawn as the stored ones were.
- where there are not (3 against 3: 20), seeds are rotated instead of exchanged (Langsrud 2005): exact for scores that are jointly normal
  on their scale. Lines of scores whose values tie, which are normal on none, must pass Student's t with Bonferroni's correction as well.

Pairs, the same seed on both sides, are the same with signs in the place of splits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

DRAWS = 4999  # rotations, or splits where there are more
OTHERS, WIDEST = 0.3, 1.5  # weight of the other methods' variance, and how many times the line's own it counts as at most
EQUAL = 1e-9  # relative: less is rounding


@dataclass(frozen=True)
class Design:
    """What is exchanged. `weights`: (1 + draws, S), a contrast of the seeds a row; the first is the observed one.

    `exact`: all or drawn splits; else rotations. `paired`: values are differences of pairs, of which the mean is tested.
    """

    weights: np.ndarray
    exact: bool
    paired: bool

    def freedom(self, seeds: np.ndarray) -> np.ndarray:
        """(L,) degrees of freedom of the spread of lines with so many values, (L,)."""
        return np.maximum(seeds - (1 if self.paired else 2), 1)


@cache
def two_samples(stored: int, fresh: int, rate: float, draws: int = DRAWS) -> Design:
    """Of `stored` seeds against `fresh` others, which follow them in the rows of values."""
    seeds, observed = stored + fresh, np.repeat([0.0, 1.0], [stored, fresh])
    splits, rng = math.comb(seeds, fresh), np.random.default_rng(0)
    if splits * rate < (2 if stored == fresh else 1):  # of equal halves a split and its mirror give one value
        return Design(np.vstack([observed, rng.standard_normal((draws, seeds))]), exact=False, paired=False)
    if splits > draws:
        return Design(np.vstack([observed, rng.permuted(np.tile(observed, (draws, 1)), axis=1)]), exact=True, paired=False)
    every = np.zeros((splits, seeds))
    for place, chosen in enumerate(combinations(reversed(range(seeds)), fresh)):  # first the last seeds: the observed one
        every[place, list(chosen)] = 1
    return Design(every, exact=True, paired=False)


@cache
def pairs(seeds: int, rate: float, draws: int = DRAWS) -> Design:
    """Of differences of `seeds` pairs."""
    rng = np.random.default_rng(0)
    if 2**seeds * rate < 2:
        return Design(np.vstack([np.ones(seeds), rng.standard_normal((draws, seeds))]), exact=False, paired=True)
    if 2**seeds > draws:
        return Design(np.vstack([np.ones(seeds), rng.choice([-1.0, 1.0], (draws, seeds))]), exact=True, paired=True)
    return Design(1.0 - 2.0 * (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1), exact=True, paired=True)


@dataclass(frozen=True)
class Lines:
    """What is tested together. `values`: (S, L), NaN where a seed has none; `scores`: (L,) which lines are of one score.

    `over_all`: (L,) bool, lines over all methods. `tied`: (L,) bool, lines of a score whose values tie. `least`: (L,) variance that a
    line has at least, by the images that its values are shares of.
    """

    values: np.ndarray
    scores: np.ndarray
    over_all: np.ndarray
    tied: np.ndarray
    least: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """(L,) each: `adjusted` p of the largest of all lines, and whether a line has no spread to be tested with."""

    adjusted: np.ndarray
    spreadless: np.ndarray


def joint_test(scales: Sequence[Lines], design: Design, rate: float) -> Outcome:
    """Adjusted p of every line: the chance that the largest of all is as large, at most, if nothing has changed.

    `scales`: the same lines on one or more scales, of which each line's larger size counts.
    """
    from scipy.special import stdtr, stdtrit

    lines = scales[0]
    freedom, tests = design.freedom((~np.isnan(lines.values)).sum(0)), family_sizes(lines.over_all)
    sizes = statistics(scales[0], design)
    for other in scales[1:]:
        np.maximum(sizes, statistics(other, design), out=sizes)
    observed = sizes[:, 0].copy()
    sizes /= stdtrit(freedom, 1 - rate / tests / 2)[:, None]  # so that lines over all methods, and of few seeds, weigh alike
    null = np.sort(sizes.max(0))  # the observed one is among them
    adjusted = (len(null) - np.searchsorted(null, sizes[:, 0] * (1 - EQUAL), side="left")) / len(null)
    if not design.exact:
        adjusted = np.where(lines.tied, np.maximum(adjusted, np.minimum(1.0, 2 * stdtr(freedom, -observed) * tests)), adjusted)
    return Outcome(np.where(observed > 0, adjusted, 1.0), np.isinf(observed) & (not design.exact))


def family_sizes(over_all: np.ndarray) -> np.ndarray:
    """(L,) by how many the rate is divided for each line: lines of one method, and those over all methods, get half of it each."""
    count = int(over_all.sum())
    return np.where(over_all, count, len(over_all) - count) * (2 if 0 < count < len(over_all) else 1)


def statistics(lines: Lines, design: Design) -> np.ndarray:
    """(L, 1 + draws) sizes: effect over spread, 0 without an effect, infinite without a spread; Student's |t| where OTHERS is 0.

    The spread is the line's own with a share of that of the same score's other methods, which steadies it where seeds are few; no more than
    WIDEST times its own, since methods differ. Where values tie, the own spread of few seeds says little: it is at least the methods' mean.
    """
    kept = ~np.isnan(lines.values)
    seeds = kept.sum(0)
    values = np.where(kept, lines.values, 0.0)
    scale = np.abs(values).max(0)
    if not design.paired:
        values = np.where(kept, values - values.sum(0) / seeds, 0.0)
    total, nothing = (values**2).sum(0)[:, None], ((EQUAL * scale) ** 2)[:, None]
    along = _along(values, kept, design)
    own = (total - along) / design.freedom(seeds)[:, None]
    own[own <= nothing] = 0.0
    spread = own.copy()
    for score in np.unique(lines.scores):
        of, whole = (np.flatnonzero((lines.scores == score) & (lines.over_all == over_all)) for over_all in (False, True))
        own_of = own[of]
        others = own_of.mean(0)
        if lines.tied[of].all():
            spread[of] = np.maximum(own_of, others)
        else:  # the lines of a score are tied together
            spread[of] = (1 - OTHERS) * own_of + OTHERS * np.minimum(others, WIDEST * own_of)
        if len(whole) and lines.tied[whole].all():  # the mean over methods spreads at least as that of independent ones
            spread[whole] = np.maximum(own[whole], others / len(of))
    np.maximum(spread, lines.least[:, None], out=spread)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.sqrt(np.divide(along, spread, out=spread), out=spread)
    sizes[along <= nothing] = 0.0
    return sizes


def _along(values: np.ndarray, kept: np.ndarray, design: Design) -> np.ndarray:
    """(L, 1 + draws) squares of values (S, L) along each contrast, over the length that it has among the seeds `kept` (S, L)."""
    of = np.ones((len(kept), 1)) if kept.all() else kept.astype(float)  # one length for all lines, where no seed is missing
    length = (of.T @ design.weights.T**2) - (0 if design.paired else (of.T @ design.weights.T) ** 2 / of.sum(0)[:, None])
    length[length <= 1e-9] = math.inf
    along = values.T @ design.weights.T
    along *= along
    along /= length
    return along
