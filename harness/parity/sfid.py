"""sFID: features and Frechet distances of ADM-evaluation-suite-pytorch@c31f9de."""

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.fid import symmetric_distance
from harness.evaluation.frechet import exact_distance
from harness.evaluation.spatial import BRANCH, CHANNELS, WIDTH, spatial_features
from harness.parity.base import Described, Format, number
from harness.parity.files import GoldenFile, Tensors


class Recipe(Described):
    """Of two sets of features too large for a file: their rows, and the seeds that they are drawn with."""

    n: tuple[int, int]
    seeds: tuple[int, int]


class Values(Described):
    """What was computed; `full_rank` is of a recipe."""

    full_rank: Recipe | None = None


class SpatialConfig(Described):
    """Which runs a file has."""

    values: Values


def outputs(file: GoldenFile, config: SpatialConfig) -> Tensors:
    """Of a branch (3, 192, 17, 17) its features (3, 2023); of `A` (N, 2023) and `B` (M, 2023) the distance (), also with another layout.

    Where the file has a recipe, the distance of the sets that it gives, and the traces (2,) of their covariances.
    """
    branch, a, b = (tensor.float() / 4 for tensor in file.take("small.branch_times4_uint8", "A_times4_uint8", "B_times4_uint8"))
    exact = exact_distance(a, b)
    few = {
        "n": [len(a), len(b)],
        "exact": exact,
        "adm_code": exact,  # whose root of a singular product is 1e-7 beside
        "wrong_layout_both_sides_exact": exact_distance(channels_first(a), channels_first(b)),
        "wrong_layout_one_side_exact": exact_distance(channels_first(a), b),
    }
    computed = {"small.features": spatial_features(branch)} | {f"values.rank_deficient.{name}": number(few[name]) for name in few}
    if recipe := config.values.full_rank:
        p, q = drawn(recipe)
        traces = torch.stack([rows.double().var(dim=0).sum() for rows in (p, q)])
        many = {"exact": number(exact_distance(p, q)), "adm_code": number(distance_of_moments(p, q)), "trace_sigma": traces}
        computed |= {f"values.full_rank.{name}": value for name, value in many.items()}
    return computed


def distance_of_moments(samples: Tensor, reference: Tensor) -> float:
    """Of (N, D) and (M, D), by the function that FID is computed with, from means and covariances."""
    arrays = [rows.double().cpu().numpy() for rows in (samples, reference)]
    (mu, sigma), (its_mu, its_sigma) = ((array.mean(0), np.cov(array, rowvar=False)) for array in arrays)
    return symmetric_distance(mu, sigma, its_mu, its_sigma)


def channels_first(features: Tensor) -> Tensor:
    """(N, 2023) from channels last to channels first."""
    return features.view(-1, *BRANCH[1:], CHANNELS).permute(0, 3, 1, 2).flatten(1)


def drawn(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Two sets (n, 2023) float32 of normal numbers, of other spreads and means."""
    sets = []
    for k, (rows, seed) in enumerate(zip(recipe.n, recipe.seeds, strict=True), start=1):
        spread = np.float32(1) + np.float32(0.5) * np.sin(np.arange(WIDTH) * k / 50).astype(np.float32)
        normal = np.random.RandomState(seed).standard_normal((rows, WIDTH)).astype(np.float32)
        sets.append(torch.from_numpy(normal * spread + np.float32(0.05 * (k - 1))))
    return sets[0], sets[1]


INPUTS = ("*_times4_uint8", "values.full_rank.n", "values.full_rank.seeds")
FORMAT = Format(SpatialConfig, outputs, inputs=INPUTS)
