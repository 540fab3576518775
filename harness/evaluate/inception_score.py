"""Inception Score by torch-fidelity: mean over 10 splits of the shuffled samples, 5000 images each at the usual 50,000."""

from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from harness.config import UserError

SPLITS = 10


def inception_score(logits: Tensor) -> dict[str, float]:
    """(N, classes) logits -> `is`. UserError for fewer samples than splits."""
    if len(logits) < SPLITS:
        raise UserError(f"the Inception Score needs at least {SPLITS} samples, there are {len(logits)}")
    return {"is": isc_features_to_metric(logits, splits=SPLITS)[KEY_METRIC_ISC_MEAN]}
