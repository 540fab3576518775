"""MIND, the Monge inception distance (arXiv 2605.06797): sliced squared Wasserstein distance of features, times 3 D.

Directions and subsample as torch-fidelity@5e211a9 `mind_features_to_metric` and diffusionbench-evals@01c437f `mind_from_features` draw
them; arithmetic in float64, where theirs is float32 (1e-7 beside).
"""

from statistics import stdev

import torch
from torch import Tensor

from harness.evaluation.bootstrap import ERRORS, around, means
from harness.evaluation.outcome import Measured
from harness.evaluation.sets import checked

DRAW, DIRECTIONS = 2020, 1000  # of both programs: the seed of subsample and directions, and how many directions
COLUMNS = 32  # projections at once: memory is that of the features and of so many values a row


def mind(samples: Tensor, reference: Tensor, resampled: int, seed: int = DRAW, directions: int = DIRECTIONS) -> Measured:
    """(N, D) and (M, D) features -> the distance; of the larger set min(N, M) rows, drawn with `seed`.

    The rows that are drawn move the value more than the directions do. UserError for fewer than two rows or features that do not fit.
    Its standard error is that of the samples: the bootstrap of each sample's first-order share in the distance.
    """
    samples, reference = checked("MIND", 2, samples=samples, reference=reference)
    value, shares = distance(samples, reference, seed, directions)
    n = len(shares)
    how = f"{ERRORS}: bootstrap, {resampled} resamples of {n} samples, seeded, linearised; {n} of each side, draw {seed}"
    return around(value, stdev(means("mind", shares, resampled)), how, least=0.0)


def draws(counts: tuple[int, int], width: int, seed: int = DRAW, directions: int = DIRECTIONS) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows (n,) of sets of these sizes are compared, n the smaller of them, and along which unit vectors (directions, width) float64.

    By one generator: a permutation of the larger set, where one is larger, then the directions, normalised in float32.
    """
    generator, n = torch.Generator().manual_seed(seed), min(counts)
    first, second = (torch.randperm(count, generator=generator)[:n] if count > n else torch.arange(n) for count in counts)
    drawn = torch.randn(directions, width, generator=generator)
    return first, second, (drawn / drawn.norm(dim=1, keepdim=True)).double()


def distance(samples: Tensor, reference: Tensor, seed: int = DRAW, directions: int = DIRECTIONS) -> tuple[float, Tensor]:
    """(N, D) and (M, D) features -> MIND, and the share (n,) float64 of each of the n = min(N, M) samples that it is of.

    A share is the mean over directions of the Kantorovich potential at the sample, by which the distance varies in first order.
    """
    first, second, units = draws((len(samples), len(reference)), samples.shape[1], seed, directions)
    own, other = samples[first.to(samples.device)].double(), reference[second.to(reference.device)].double()
    total, shares = 0.0, torch.zeros(len(own), dtype=torch.float64, device=own.device)
    for part in units.to(own.device).split(COLUMNS):
        (x, order), y = (own @ part.T).sort(dim=0), (other @ part.T).sort(dim=0).values
        total += (x - y).square().sum().item()
        steps = (x[1:] - x[:-1]) * (x[1:] + x[:-1] - y[1:] - y[:-1])
        potentials = torch.cat([torch.zeros_like(x[:1]), steps.cumsum(dim=0)])
        shares.index_add_(0, order.flatten(), (potentials - potentials.mean(dim=0)).flatten())
    scale = 3 * samples.shape[1] / directions
    return scale * total / len(own), (scale * shares).cpu()
