"""What samples are compared with: mean, covariance and features of real images."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics

from harness.machine.streams import stream
from harness.results.schema import NONE
from harness.study.typed import UserError

SPLITS = 2  # into halves
GIVEN = "given"  # mu and sigma, not of the features


@dataclass(frozen=True)
class ReferenceStatistics:
    """`mu` (D,) and `sigma` (D, D) for FID, `features` (n, D) float32 for KID, precision and recall; `sha256` of the source.

    `content` is the sha256 of the images as the judge read them, and of mu and sigma where they are given.
    `statistics` says where mu and sigma come from: `given`, or `from n images`. `extractor` is the sha256 of the judge's weights.
    """

    name: str
    mu: np.ndarray
    sigma: np.ndarray
    features: Tensor
    sha256: str
    statistics: str
    extractor: str
    content: str = NONE

    @property
    def n(self) -> int:
        """Images that the features are of."""
        return len(self.features)

    @cached_property
    def factor(self) -> Tensor:
        """Of sigma (D, D), float64."""
        return factor_of(torch.from_numpy(self.sigma).double())

    @cached_property
    def halves(self) -> list["ReferenceStatistics"]:
        """Both halves of the images, of SPLITS random splits. None where mu and sigma are not of them, or a half has no full rank."""
        if self.statistics == GIVEN or self.n // 2 <= self.features.shape[1]:
            return []
        orders = [torch.randperm(self.n, generator=stream(0, f"halves of a reference, {split}", self.n)) for split in range(SPLITS)]
        return [self.of_features(self.name, self.features[half]) for order in orders for half in order.tensor_split(2)]

    @classmethod
    def of_features(cls, name: str, features: Tensor, sha256: str = "", extractor: str = "", content: str = NONE) -> "ReferenceStatistics":
        """Mean and covariance of (n, D) features. UserError if they are too few for a covariance of full rank."""
        if len(features) <= features.shape[1]:
            raise UserError(
                f"reference {name}: FID needs more reference images than features: got {len(features)} for {features.shape[1]} features"
            )
        moments = fid_features_to_statistics(features)
        return cls(name, moments["mu"], moments["sigma"], features, sha256, f"from {len(features)} images", extractor, content)


def factor_of(sigma: Tensor) -> Tensor:
    """f (D, D) with f f^T = sigma, positive semi-definite: Cholesky's, or the symmetric root, fifty times as slow, where sigma is singular.

    The eigenvalues of f^T other f are those of sigma other.
    """
    lower = cholesky(sigma)
    if lower is not None:
        return lower
    values, vectors = torch.linalg.eigh(sigma)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def cholesky(sigma: Tensor) -> Tensor | None:
    """None where sigma is not positive definite."""
    lower, failed = torch.linalg.cholesky_ex(sigma)
    return None if failed else lower


def trace_of_root(factor: Tensor, other: Tensor) -> Tensor:
    """Trace of the root of sigma other, (D, D) each, by a `factor` of sigma: the eigenvalues of a symmetric matrix."""
    return torch.linalg.eigvalsh(factor.T @ other @ factor).clamp(min=0).sqrt().sum()
