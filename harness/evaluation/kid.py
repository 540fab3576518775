"""Kernel Inception Distance by torch-fidelity: cubic polynomial kernel, unbiased, seeded subsets."""

import math

import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from harness.evaluation.bootstrap import ERRORS, around, resamples
from harness.evaluation.outcome import Measured
from harness.machine.device import device
from harness.study.sections.evaluation import Evaluation
from harness.study.typed import UserError

ROWS = 256  # of kernels at once


def kid(samples: Tensor, reference: Tensor, evaluation: Evaluation) -> Measured:
    """(N, D) and (M, D) features -> the distance, its mean over the study's subsets.

    Its standard error has two parts: that of the samples, by bootstrap of their projections, and that of the mean over random subsets.
    """
    value, of_subsets = kid_value(samples, reference, evaluation)
    projected = projections(samples, reference)
    resampled = torch.stack([projected[rows].mean() for rows in resamples("kid", len(samples), evaluation.resamples)])
    error = math.hypot(resampled.std().item(), of_subsets)
    how = f"{ERRORS}: bootstrap, {evaluation.resamples} resamples of the samples, seeded, linearised; and of the subsets; in quadrature"
    return around(value, error, how)


def kid_value(samples: Tensor, reference: Tensor, evaluation: Evaluation) -> tuple[float, float]:
    """Mean over the study's subsets, and its standard error. UserError for fewer images than a subset has."""
    least = min(len(samples), len(reference))
    if least < evaluation.kid_subset:
        raise UserError(f"KID needs evaluation.kid_subset = {evaluation.kid_subset} images on both sides, there are {least}")
    options = {"kid_subset_size": evaluation.kid_subset, "kid_subsets": evaluation.kid_subsets, "verbose": False}
    values = kid_features_to_metric(samples, reference, **options)
    return values[KEY_METRIC_KID_MEAN], values[KEY_METRIC_KID_STD] / math.sqrt(evaluation.kid_subsets)


def projections(samples: Tensor, reference: Tensor) -> Tensor:
    """(N, D) and (M, D) features -> (N,) float64: 2 (mean kernel with the other samples - mean kernel with the reference).

    The distance varies with their mean in first order.
    """
    samples, reference = samples.to(device()).double(), reference.to(device()).double()

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.T / one.shape[1] + 1) ** 3

    parts = []
    for part in samples.split(ROWS):
        own = (part.square().sum(1) / part.shape[1] + 1) ** 3
        parts.append((kernel(part, samples).sum(1) - own) / (len(samples) - 1) - kernel(part, reference).mean(1))
    return 2 * torch.cat(parts).cpu()
