"""Inception Score by torch-fidelity: mean over 10 splits."""

from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric


def inception_score(logits: Tensor) -> dict[str, float]:
    """(N, classes) logits -> `is`."""
    return {"is": isc_features_to_metric(logits)[KEY_METRIC_ISC_MEAN]}
