"""Vendi score (arXiv 2210.02410; orders: arXiv 2310.12952): how many different images there seem to be. A diagnostic: copies of training
images score as these do.

As dgm-eval@74c79f7 `compute_vendi_score` with its linear kernel, in float64 (float32 there, 5e-6 beside), from the eigenvalues of
X^T X / N, which are those of the kernel matrix X X^T / N but for zeros: memory is that of D x D, whatever N.
"""

import math
from statistics import stdev

import torch
from torch import Tensor

from harness.evaluation.bootstrap import ERRORS, around, means
from harness.evaluation.outcome import Measured
from harness.evaluation.sets import unit
from harness.study.typed import UserError

ROWS = 8192  # at once
ZERO = 1e-13  # of the largest eigenvalue: what is below is rounding


def vendi(features: Tensor, resampled: int, order: float = 1.0) -> Measured:
    """(N, D) features, each of norm 1 -> exp of the entropy of `order` q of the eigenvalues; between 1 and N. `math.inf`: 1 / the largest.

    Its standard error is the bootstrap of each image's first-order share; few images bias it low. UserError for another norm.
    """
    (features,) = unit("the Vendi score", 2, features=features)
    if not order > 0:
        raise UserError(f"the Vendi score's order must be above 0, got {order}")
    value, shares = score(features, order)
    how = f"{ERRORS}: bootstrap, {resampled} resamples of the images, seeded, linearised"
    return around(value, stdev(means("vendi", shares, resampled)), how, least=1.0, most=len(features))


def vendi_per_class(features: Tensor, labels: Tensor, resampled: int, order: float = 1.0) -> dict[int, Measured]:
    """(N, D) features of norm 1 with labels (N,) of any numbers -> the score of each class, which must have two images."""
    if labels.shape != features.shape[:1]:
        raise UserError(f"the Vendi score per class needs a label an image: {len(features)} images, labels {tuple(labels.shape)}")
    labels = labels.to(features.device)
    return {int(label): vendi(features[labels == label], resampled, order) for label in labels.unique()}


def score(features: Tensor, order: float) -> tuple[float, Tensor]:
    """The score of (N, D) features, and the share (N,) float64 of each image, with whose mean it varies in first order."""
    second = sum(part.double().T @ part.double() for part in features.split(ROWS)) / len(features)
    values, vectors = torch.linalg.eigh(second)
    positive = values > ZERO * values[-1]
    values, vectors = values[positive], vectors[:, positive]
    if order == 1:
        result = torch.special.entr(values).sum().exp()
        slopes = -result * values.log()
    elif math.isinf(order):
        result = 1 / values[-1]
        slopes = -result.square() * (values == values[-1])
    else:
        powers = values.pow(order).sum()
        result = powers.pow(1 / (1 - order))
        slopes = result / powers * order / (1 - order) * values.pow(order - 1)
    parts = [(part.double() @ vectors).square() - values for part in features.split(ROWS)]
    return result.item(), torch.cat([part @ slopes for part in parts]).cpu()
