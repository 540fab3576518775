"""Improved precision and recall by torch-fidelity, k nearest neighbours."""

from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from harness.config import UserError


def precision_recall(samples: Tensor, reference: Tensor, neighbours: int) -> dict[str, float]:
    """(N, D) features of the samples and (M, D) of the reference -> `precision` and `recall`."""
    least = min(len(samples), len(reference))
    if least <= neighbours:
        raise UserError(f"precision and recall need more than evaluation.neighbours = {neighbours} images, there are {least}")
    found = prc_features_to_metric(samples, reference, prc_neighborhood=neighbours, verbose=False)
    return {"precision": found[KEY_METRIC_PRECISION], "recall": found[KEY_METRIC_RECALL]}
