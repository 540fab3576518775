"""Seeds of unchanged code, by the thousand: 8 methods with 14 scores each, from distributions that scores over seeds can have."""

from collections.abc import Callable

import numpy as np

from harness.report.gate.joint import joint_test, two_samples
from harness.report.gate.matrix import Matrix
from harness.results.views import View

METHODS = 8
SCORES = [
    "fid", "fid_infinity", "fid_clean", "is", "kid", "precision", "recall", "clip_score", "accuracy", "denoiser_outlier_share",
    "denoiser_outlier_share@block1", "denoiser_max_over_median", "denoiser_middle_blocks", "denoiser_noise_fall",
]  # fmt: skip
KEYS = [(score, View(0.98, 1500, "none"), f"method{method}") for method in range(METHODS) for score in SCORES]
RATE = 0.05


def correlated(rng, seeds):
    """As in digits: the three FIDs nearly the same, the methods of a seed and the scores of a run alike."""
    shape = (seeds, METHODS, len(SCORES))
    values = rng.normal(size=shape)
    values[:, :, 1:3] = values[:, :, :1] + 0.1 * values[:, :, 1:3]
    common = rng.normal(size=(seeds, 1, 1)) + rng.normal(size=(seeds, 1, shape[2])) + 1.6 * rng.normal(size=(seeds, METHODS, 1))
    return 100 + 0.5 * common + values


NULLS: dict[str, Callable] = {  # (generator, shape) -> values of that shape
    "normal": lambda rng, shape: 100 + rng.normal(size=shape),
    "t with 3 degrees": lambda rng, shape: 100 + rng.standard_t(3, size=shape),
    "correlated": lambda rng, shape: correlated(rng, shape[0]),
    "log-normal .25": lambda rng, shape: np.exp(0.25 * rng.normal(size=shape)),
    "log-normal .5": lambda rng, shape: np.exp(0.5 * rng.normal(size=shape)),
    "log-normal .75": lambda rng, shape: np.exp(0.75 * rng.normal(size=shape)),
    "log-normal 1": lambda rng, shape: np.exp(rng.normal(size=shape)),
    "spikes": lambda rng, shape: np.where(rng.random(shape) < 0.9, 0.0, 0.1 * rng.random(shape)),
    "counts": lambda rng, shape: rng.poisson(1, size=shape) / 1000,
}


def redraw(null, seeds, rng):
    """(seeds, METHODS, SCORES)."""
    return NULLS[null](rng, (seeds, METHODS, len(SCORES)))


def judged(stored, fresh, draws=499):
    """(what the gate finds, the matrix that it was found in) of (S, METHODS, SCORES) stored and fresh values."""
    flat = [side.reshape(len(side), -1) for side in (stored, fresh)]
    seeds = list(range(len(stored))), list(range(100, 100 + len(fresh)))
    matrix = Matrix(KEYS, *seeds, *flat, np.zeros(len(KEYS))).with_means()
    design = two_samples(len(stored), len(fresh), RATE, draws)
    return joint_test(matrix.lines(both_scales=design.exact or len(stored) == len(fresh)), design, RATE), matrix


def rates(null, stored, fresh, redraws, *, draws=499, seed=0):
    """(share of redraws with a difference, share that cannot be decided)."""
    rng, alarms, undecided = np.random.default_rng(seed), 0, 0
    for _ in range(redraws):
        found, _ = judged(redraw(null, stored, rng), redraw(null, fresh, rng), draws)
        alarm = bool((found.adjusted[~found.spreadless] <= RATE).any())
        alarms += alarm
        undecided += not alarm and bool(found.spreadless.any())
    return alarms / redraws, undecided / redraws


def power(null, stored, fresh, redraws, change, *, over_all=False, draws=499, seed=0):
    """Share of redraws in which a change of one method's FID, or of all methods', is found. `change`: fresh values -> changed ones."""
    rng, hits = np.random.default_rng(seed), 0
    for number in range(redraws):
        before, after = redraw(null, stored, rng), redraw(null, fresh, rng)
        method = slice(None) if over_all else number % METHODS
        after[:, method, 0] = change(after[:, method, 0])
        found, matrix = judged(before, after, draws)
        place = [
            key[0] == "fid" and (key[2] == "all methods" if over_all else key[2] == f"method{number % METHODS}") for key in matrix.keys
        ]
        hits += bool((found.adjusted[place] <= RATE).all())
    return hits / redraws
