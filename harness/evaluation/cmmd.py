"""CMMD (arXiv 2401.09603): maximum mean discrepancy of unit CLIP embeddings under a Gaussian kernel, biased V-statistic, times 1000.

As cmmd-pytorch@f7673a9 `distance.mmd`, in float64: in its float32 the terms cancel to 1e-5.
"""

from statistics import stdev

import torch
from torch import Tensor

from harness.evaluation.bootstrap import ERRORS, around, means
from harness.evaluation.neighbours import ROWS, products
from harness.evaluation.outcome import Measured
from harness.evaluation.sets import unit

SIGMA, SCALE = 10.0, 1000.0


def cmmd(samples: Tensor, reference: Tensor, resampled: int) -> Measured:
    """(N, D) and (M, D) embeddings, each of norm 1 -> the discrepancy, x 1000.

    Its standard error is that of the samples: the bootstrap of each sample's first-order share. UserError for embeddings of another norm.
    """
    samples, reference = unit("CMMD", 2, samples=samples, reference=reference)
    value, shares = discrepancy(samples, reference)
    how = f"{ERRORS}: bootstrap, {resampled} resamples of the samples, seeded, linearised"
    return around(value, stdev(means("cmmd", shares, resampled)), how, least=0.0)


def discrepancy(samples: Tensor, reference: Tensor) -> tuple[float, Tensor]:
    """(N, D) and (M, D), of any norm -> the discrepancy x 1000, and the share (N,) float64 of each sample.

    A share is 2 x 1000 (mean kernel with the samples - mean kernel with the reference); the value varies with their mean in first order.
    """
    own, between, other = (mean_kernels(*pair) for pair in ((samples, samples), (samples, reference), (reference, reference)))
    value = SCALE * (own.mean() + other.mean() - 2 * between.mean()).item()
    return value, (2 * SCALE * (own - between)).cpu()


def mean_kernels(rows: Tensor, others: Tensor) -> Tensor:
    """(N, D) and (M, D) -> (N,) float64: the mean over others of exp(-|row - other|^2 / (2 sigma^2))."""
    others = others.double()
    return torch.cat([torch.exp(products(part.double(), others) / (-2 * SIGMA**2)).mean(1) for part in rows.split(ROWS)])
