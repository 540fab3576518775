"""Frechet distance by torch-fidelity, checked against a second computation from the same statistics.

Beyond 512 features torch-fidelity's eigenvalues of a product that is not symmetric take most of the time, and those of a symmetric one give
the same to 1e-12 (tests/evaluation/test_metrics.py): they are reported, and checked with the factor of the other side.
"""

import numpy as np
import torch
from cleanfid.fid import frechet_distance
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.evaluation.reference_statistics import ReferenceStatistics, cholesky, factor_of, trace_of_root
from harness.results.scores import CLEAN_FID_WIDEST
from harness.study.typed import UserError

TOLERANCE = 1e-3  # relative; measured difference is below 1e-6 where samples outnumber features
Moments = tuple[np.ndarray, np.ndarray]  # mean (D,) and covariance (D, D)


def fid(samples: Tensor, reference: ReferenceStatistics) -> dict[str, float]:
    """(N, D) features -> `fid`, and `fid_clean` (clean-fid's) up to 512 features.

    UserError for too few samples, or if two computations disagree: torch-fidelity's and clean-fid's, beyond 512 features two of
    `symmetric_distance`; where a covariance is singular there, torch-fidelity's and the symmetric one.
    """
    width = samples.shape[1]
    if len(samples) <= width:
        raise UserError(f"FID needs more samples than features: got {len(samples)} for {width} features")
    moments = fid_features_to_statistics(samples)
    first, second = (moments["mu"], moments["sigma"]), (reference.mu, reference.sigma)
    if width <= CLEAN_FID_WIDEST:
        values = {"torch-fidelity": _torch_fidelity(first, second), "clean-fid": float(frechet_distance(*first, *second))}
    else:
        values = _wide(first, second)
    (name, ours), (library, check) = values.items()
    scale = float(first[1].trace() + second[1].trace())
    if not abs(ours - check) <= TOLERANCE * max(abs(ours), 1e-3 * scale):
        raise UserError(f"FID: {name} gives {ours:.6g} and {library} {check:.6g} on the same features; the features are degenerate")
    return {"fid": ours, "fid_clean": check} if width <= CLEAN_FID_WIDEST else {"fid": ours}


def _wide(first: Moments, second: Moments) -> dict[str, float]:
    lower = [cholesky(torch.from_numpy(sigma).double()) for _, sigma in (first, second)]
    if lower[0] is None or lower[1] is None:
        return {"torch-fidelity": _torch_fidelity(first, second), "its symmetric form": symmetric_distance(*first, *second)}
    return {
        "the symmetric form": symmetric_distance(*first, *second, lower[0]),
        "the same from the other side": symmetric_distance(*second, *first, lower[1]),
    }


def _torch_fidelity(first: Moments, second: Moments) -> float:
    (mu1, sigma1), (mu2, sigma2) = first, second
    if mu1.dtype != mu2.dtype:  # given statistics may be in double precision
        mu1, mu2 = mu1.astype(np.float64), mu2.astype(np.float64)
    return fid_statistics_to_metric({"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2}, verbose=False)[KEY_METRIC_FID]


def symmetric_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray, factor: Tensor | None = None) -> float:
    """Frechet distance of two normal distributions, means (D,) and covariances (D, D), in float64; `factor`: of sigma1, if it is known."""
    mu1, sigma1, mu2, sigma2 = (torch.from_numpy(array).double() for array in (mu1, sigma1, mu2, sigma2))
    roots = trace_of_root(factor_of(sigma1) if factor is None else factor, sigma2)
    return ((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * roots).item()
