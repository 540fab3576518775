"""Frechet distance by torch-fidelity, checked against a second computation from the same statistics."""

import numpy as np
import torch
from cleanfid.fid import frechet_distance
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.evaluation.reference_statistics import ReferenceStatistics, symmetric_root
from harness.results.scores import CLEAN_FID_WIDEST
from harness.study.typed import UserError

TOLERANCE = 1e-3  # relative; measured difference is below 1e-6 where samples outnumber features


def fid(samples: Tensor, reference: ReferenceStatistics) -> dict[str, float]:
    """(N, D) features -> `fid`, and `fid_clean` (clean-fid's) up to 512 features.

    UserError for too few samples, or if the second computation disagrees: clean-fid's, beyond 512 features a symmetric one in float64.
    """
    width = samples.shape[1]
    if len(samples) <= width:
        raise UserError(f"FID needs more samples than features: got {len(samples)} for {width} features")
    first = fid_features_to_statistics(samples)
    mu, sigma = reference.mu, reference.sigma
    if mu.dtype != first["mu"].dtype:  # given statistics may be in double precision
        first["mu"], mu = first["mu"].astype(np.float64), mu.astype(np.float64)
    ours = fid_statistics_to_metric(first, {"mu": mu, "sigma": sigma}, verbose=False)[KEY_METRIC_FID]
    library, second = ("clean-fid", frechet_distance) if width <= CLEAN_FID_WIDEST else ("its symmetric form", symmetric_distance)
    check = float(second(first["mu"], first["sigma"], mu, sigma))
    scale = float(first["sigma"].trace() + sigma.trace())
    if not abs(ours - check) <= TOLERANCE * max(abs(ours), 1e-3 * scale):
        raise UserError(f"FID: torch-fidelity gives {ours:.6g} and {library} {check:.6g} on the same features; the features are degenerate")
    return {"fid": ours, "fid_clean": check} if width <= CLEAN_FID_WIDEST else {"fid": ours}


def symmetric_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """Frechet distance of two normal distributions, means (D,) and covariances (D, D), in float64.

    The trace of the root of sigma1 sigma2 is from the eigenvalues of r sigma2 r, r = root of sigma1.
    """
    mu1, sigma1, mu2, sigma2 = (torch.from_numpy(array).double() for array in (mu1, sigma1, mu2, sigma2))
    root = symmetric_root(sigma1)
    trace = torch.linalg.eigvalsh(root @ sigma2 @ root).clamp(min=0).sqrt().sum()
    return ((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * trace).item()
