"""Inception Score by torch-fidelity: mean over 10 splits of the shuffled samples, 5000 images each at the usual 50,000; and unsplit.

It is biased low by few images in a split, so that at small N the two differ. Which images share a split is drawn, and moves the score: two
rules are in use, which agree at no N.
"""

from statistics import mean
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from harness.evaluation.bootstrap import by_resampling, resamples
from harness.evaluation.outcome import Measured
from harness.machine.device import device
from harness.study.typed import UserError

SPLITS = 10
EPSILON = 1e-10  # in the logarithms of diffusionbench-evals
Rule = Literal["torch-fidelity", "diffusionbench-evals"]


def inception_score(logits: Tensor, resampled: int, splits: int = SPLITS, rule: Rule = "torch-fidelity") -> Measured:
    """Of (N, classes) logits. UserError for fewer samples than splits.

    `rule`: torch-fidelity, and FD-Loss with it, draws with seed 2020 and splits all images; diffusionbench-evals draws with seed 0, and
    leaves out what is no whole split. The standard error is of the first's splits for both.
    """
    value = inception_score_value(logits, splits, rule)
    p = logits.to(device()).double().softmax(1)
    certainty = torch.special.entr(p).sum(1).neg()
    part = torch.arange(len(p)) * splits // len(p)
    return by_resampling(value, [_of_rows(p, certainty, rows, part, splits) for rows in resamples("is", len(p), resampled)])


def inception_score_value(logits: Tensor, splits: int = SPLITS, rule: Rule = "torch-fidelity") -> float:
    """The score alone. UserError for fewer samples than splits."""
    if len(logits) < splits:
        raise UserError(f"the Inception Score needs at least {splits} samples, there are {len(logits)}")
    if rule == "torch-fidelity":
        return isc_features_to_metric(logits, splits=splits)[KEY_METRIC_ISC_MEAN]
    return of_whole_splits(logits, splits)


def of_whole_splits(logits: Tensor, splits: int = SPLITS) -> float:
    """The score of (N, classes) logits as diffusionbench-evals@01c437f splits them: N // splits each, in an order drawn with seed 0."""
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(logits)))
    p = logits.double().softmax(1)[order.to(logits.device)]
    scores = []
    for part in p[: len(p) // splits * splits].split(len(p) // splits):
        kl = (part * ((part + EPSILON).log() - (part.mean(0) + EPSILON).log())).sum(1)
        scores.append(kl.mean().exp().item())
    return mean(scores)


def _of_rows(p: Tensor, certainty: Tensor, rows: Tensor, part: Tensor, splits: int) -> float:
    """The score of these rows of (N, classes) probabilities; `certainty` (N,) is the sum of p log p, `part` (N,) the split of each row."""
    counts = (part * len(p) + rows).bincount(minlength=splits * len(p)).view(splits, len(p)).to(p)
    weights = counts / counts.sum(1, keepdim=True)
    return (weights @ certainty + torch.special.entr(weights @ p).sum(1)).exp().mean().item()
