"""Improved precision and recall by torch-fidelity, k nearest neighbours. The samples are its input 1, the reference is its input 2."""

from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from harness.config import UserError


def precision_recall(samples: Tensor, reference: Tensor, neighbours: int) -> dict[str, float]:
    """(N, D) features of the samples and (M, D) of the reference -> `precision` and `recall`. Distances are made in blocks of 10,000 rows."""
    least = min(len(samples), len(reference))
    if least <= neighbours:
        raise UserError(f"precision and recall need more than evaluation.neighbours = {neighbours} images, there are {least}")
    options = {"prc_neighborhood": neighbours, "save_cpu_ram": True, "verbose": False}  # else all distances at once: 10 GB at 50,000
    found = prc_features_to_metric(samples, reference, **options)
    return {"precision": found[KEY_METRIC_PRECISION], "recall": found[KEY_METRIC_RECALL]}
