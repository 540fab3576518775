"""Frechet distance by torch-fidelity, checked against a second computation from the same statistics.

Beyond 512 features torch-fidelity's eigenvalues of a product that is not symmetric take most of the time, and those of a symmetric one give
the same to 1e-12 (tests/evaluation/test_metrics.py): they are reported. Their sum and their sum of squares must be those of the product
itself, and what rounding can do to the distance must be small; where either is not so, it is computed from the other side as well.
"""

import numpy as np
import torch
from cleanfid.fid import frechet_distance
from scipy.linalg.lapack import dsygst
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.evaluation.reference_statistics import ReferenceStatistics, cholesky, factor_of, trace_of_root
from harness.results.scores import CLEAN_FID_WIDEST
from harness.study.typed import UserError

TOLERANCE = 1e-3  # relative; measured difference is below 1e-6 where samples outnumber features
Moments = tuple[np.ndarray, np.ndarray]  # mean (D,) and covariance (D, D)


def fid(samples: Tensor, reference: ReferenceStatistics) -> dict[str, float]:
    """(N, D) features -> `fid`, and `fid_clean` (clean-fid's) up to 512 features.

    UserError for too few samples, or if two computations disagree: torch-fidelity's and clean-fid's; beyond 512 features the two sides of
    `symmetric_distance`, or where a covariance is singular, torch-fidelity's and the symmetric one.
    """
    width = samples.shape[1]
    if len(samples) <= width:
        raise UserError(f"FID needs more samples than features: got {len(samples)} for {width} features")
    moments = fid_features_to_statistics(samples)
    first, second = (moments["mu"], moments["sigma"]), (reference.mu, reference.sigma)
    if width > CLEAN_FID_WIDEST:
        return {"fid": _wide(first, second)}
    values = _torch_fidelity(first, second), float(frechet_distance(*first, *second))
    _check(first, second, dict(zip(("torch-fidelity", "clean-fid"), values, strict=True)))
    return dict(zip(("fid", "fid_clean"), values, strict=True))


def _wide(first: Moments, second: Moments) -> float:
    lower = [cholesky(torch.from_numpy(sigma).double()) for _, sigma in (first, second)]
    if lower[0] is None or lower[1] is None:
        ours = _torch_fidelity(first, second)
        _check(first, second, {"torch-fidelity": ours, "its symmetric form": symmetric_distance(*first, *second)})
        return ours
    ours, error = with_error(*first, *second, lower[0])
    if not error <= _allowed(ours, first, second):
        other = symmetric_distance(*second, *first, lower[1])
        _check(first, second, {"the symmetric form": ours, "the same from the other side": other})
    return ours


def _allowed(value: float, first: Moments, second: Moments) -> float:
    return TOLERANCE * max(abs(value), 1e-3 * float(first[1].trace() + second[1].trace()))


def _check(first: Moments, second: Moments, values: dict[str, float]) -> None:
    """UserError where two distances, by what computed them, disagree."""
    (name, ours), (library, check) = values.items()
    if not abs(ours - check) <= _allowed(ours, first, second):
        raise UserError(f"FID: {name} gives {ours:.6g} and {library} {check:.6g} on the same features; the features are degenerate")


def _torch_fidelity(first: Moments, second: Moments) -> float:
    (mu1, sigma1), (mu2, sigma2) = first, second
    if mu1.dtype != mu2.dtype:  # given statistics may be in double precision
        mu1, mu2 = mu1.astype(np.float64), mu2.astype(np.float64)
    return fid_statistics_to_metric({"mu": mu1, "sigma": sigma1}, {"mu": mu2, "sigma": sigma2}, verbose=False)[KEY_METRIC_FID]


def symmetric_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray, factor: Tensor | None = None) -> float:
    """Frechet distance of two normal distributions, means (D,) and covariances (D, D), in float64; `factor`: of sigma1, if it is known."""
    first, other = torch.from_numpy(sigma1).double(), torch.from_numpy(sigma2).double()
    return _distance(mu1, first, mu2, other, trace_of_root(factor_of(first) if factor is None else factor, other))


def _distance(mu1: np.ndarray, sigma1: Tensor, mu2: np.ndarray, sigma2: Tensor, roots: Tensor) -> float:
    means = [torch.from_numpy(mu).double() for mu in (mu1, mu2)]
    return ((means[0] - means[1]).square().sum() + sigma1.trace() + sigma2.trace() - 2 * roots).item()


def with_error(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray, factor: Tensor) -> tuple[float, float]:
    """The distance as `symmetric_distance` gives it, with Cholesky's `factor` of sigma1, and how far rounding can take it.

    Rounding moves a symmetric matrix, and so each of its eigenvalues (Weyl), by sqrt(D) epsilon of its factors' norms (Higham and Mary
    2019). Infinite where the eigenvalues have not the sum and the sum of squares of sigma1 sigma2, which takes no factor.
    """
    first, other = torch.from_numpy(sigma1).double(), torch.from_numpy(sigma2).double()
    turned, _ = dsygst(other.numpy().T, factor.numpy(), itype=2, lower=1)  # lower half of factor^T sigma2 factor
    values, product, width = torch.linalg.eigvalsh(torch.from_numpy(turned), UPLO="L"), first @ other, len(first)
    norms = first.norm() * other.norm()
    noise = width**0.5 * torch.finfo(torch.float64).eps * norms
    sums = values.sum() - product.trace(), values.square().sum() - (product * product.T).sum()
    roots = values.clamp(min=0).sqrt()
    distance = _distance(mu1, first, mu2, other, roots.sum())
    if not (sums[0].abs() <= width * noise and sums[1].abs() <= 2 * width * noise * norms):
        return distance, float("inf")
    return distance, 2 * torch.minimum(noise.sqrt(), noise / roots).sum().item()
