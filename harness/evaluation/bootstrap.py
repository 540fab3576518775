"""Intervals within a run: how far a score would move had other images been drawn from the same model. Everything is seeded.

The spread of resamples is used, not their percentiles: a resample repeats images, which shifts a distance such as FID upwards.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist, stdev

import torch
from torch import Tensor

from harness.evaluation.outcome import Measured, without
from harness.machine.streams import stream
from harness.results.schema import LEVEL

SEED = 0  # of every resample: the same for all studies, methods and seeds, so that what they share cancels in differences
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
ERRORS = f"value ± {Z:.2f} standard errors"


def resamples(score: str, n: int, count: int) -> Iterator[Tensor]:
    """`count` times the numbers (n,) of n images drawn with replacement: a function of score, n and place in the sequence alone."""
    generator = stream(SEED, f"bootstrap {score}", n)
    for _ in range(count):
        yield torch.randint(n, (n,), generator=generator)


def around(value: float, error: float, how: str, least: float = -math.inf, most: float = math.inf) -> Measured:
    """`value` ± Z `error`, cut at what a score can be. No interval where the resamples do not differ: they say nothing then."""
    if not math.isfinite(error) or error <= 1e-12 * abs(value):
        return without(value, "resamples do not differ")
    return Measured(value, max(value - Z * error, least), min(value + Z * error, most), how)


def by_resampling(
    value: float, resampled: Sequence[float], of: str = "samples", least: float = -math.inf, most: float = math.inf
) -> Measured:
    """`resampled`: the score of each resample."""
    return around(value, stdev(resampled), f"bootstrap, {len(resampled)} resamples of the {of}, seeded: {ERRORS}", least, most)


def means(score: str, values: Tensor, count: int) -> list[float]:
    """Of `count` resamples of (N,) values, one an image."""
    return [values[rows].mean().item() for rows in resamples(score, len(values), count)]


def share(value: float, n: int) -> Measured:
    """A share of n images, with Wilson's interval: the bootstrap of a share is binomial, and has no width at 0 and 1."""
    middle, half = value + Z**2 / (2 * n), Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + Z**2 / n) for sign in (-1, 1))
    return Measured(value, min(max(low, 0.0), value), max(min(high, 1.0), value), f"Wilson's interval of a share of {n} images")
