"""Kernel Inception Distance by torch-fidelity: cubic polynomial kernel, unbiased, seeded subsets."""

from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from harness.config import UserError
from harness.sections import Evaluation


def kid(samples: Tensor, reference: Tensor, evaluation: Evaluation) -> dict[str, float]:
    """(N, D) and (M, D) features -> `kid`, the mean over the study's subsets."""
    least = min(len(samples), len(reference))
    if least < evaluation.kid_subset:
        raise UserError(f"KID needs evaluation.kid_subset = {evaluation.kid_subset} images on both sides, there are {least}")
    options = {"kid_subset_size": evaluation.kid_subset, "kid_subsets": evaluation.kid_subsets, "verbose": False}
    return {"kid": kid_features_to_metric(samples, reference, **options)[KEY_METRIC_KID_MEAN]}
