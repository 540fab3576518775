"""Frechet distances of many parts or resamples of one set of features, in float64: the bootstrap of FID, and FID-infinity.

With f f^T the reference's covariance, f made once, the distance needs the eigenvalues of f^T sigma f, which is the covariance of the
features times f. A set of rows costs a matrix product (rows x D x D) and the eigenvalues of a D x D matrix, on the run's device.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import stdev

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.bootstrap import ERRORS, SEED, around, resamples
from harness.evaluation.outcome import Measured
from harness.evaluation.reference_statistics import ReferenceStatistics, trace_of_root
from harness.evaluation.sets import checked
from harness.machine.device import device
from harness.machine.streams import stream

ROWS = 8192  # at once: the copy of a resample's rows stays small
BLOCKS, FROM, ROTATIONS = 30, 16, 3  # of FID-infinity
LEAST, ENOUGH = 4, 10  # samples a feature: below the first no straight line, below the second a warning


@dataclass(frozen=True)
class RowSums:
    """Of `count` rows of a Frechet's table: their sum, and the products (D, D) of features times factor."""

    count: int
    total: Tensor
    products: Tensor

    def __add__(self, other: "RowSums") -> "RowSums":
        return RowSums(self.count + other.count, self.total + other.total, self.products + other.products)


class Frechet:
    """Of (N, D) features against a reference. `resampled`: how many resamples the standard error is of.

    At 50,000 x 2048 it holds 1.6 GB; a resample is 4e11 FLOPs in float64 and the eigenvalues of one matrix: 20 to 40 s on a
    core, 0.07 s on an H100.
    """

    def __init__(self, features: Tensor, reference: ReferenceStatistics, resampled: int) -> None:
        factor = reference.factor.to(device())
        self.n, self.width, self.resampled, self.reference = *features.shape, resampled, reference
        self.trace = torch.from_numpy(reference.sigma).double().trace().item()
        centred = features.to(device()).double() - torch.from_numpy(reference.mu).double().to(device())
        self.table = torch.cat([centred @ factor, centred, centred.square().sum(1, keepdim=True)], dim=1)

    def sums(self, rows: Tensor) -> RowSums:
        """Of the rows with these numbers (n,), which may repeat."""
        sums = []
        for part in rows.to(device()).split(ROWS):
            table = self.table[part]
            turned = table[:, : self.width]
            sums.append(RowSums(len(part), table.sum(0), turned.T @ turned))
        return sum(sums[1:], sums[0])

    def distance(self, of: RowSums) -> float:
        """Frechet distance of the rows to the reference."""
        mean = of.total / of.count
        turned, centred, squares = mean.split([self.width, self.width, 1])
        covariance = (of.products - of.count * torch.outer(turned, turned)) / (of.count - 1)
        roots = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt().sum()
        shift = centred @ centred
        return (shift + (squares[0] - shift) * of.count / (of.count - 1) + self.trace - 2 * roots).item()

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) less the reference's, and covariance (D, D), of all rows."""
        rows = self.table[:, self.width : 2 * self.width]
        mean = rows.mean(0)
        return mean, (rows.T @ rows - self.n * torch.outer(mean, mean)) / (self.n - 1)

    def distance_to(self, other: ReferenceStatistics) -> float:
        """Of all rows to another reference."""
        mean, covariance = self.moments
        own, mu = (torch.from_numpy(of.mu).to(mean) for of in (self.reference, other))
        roots = trace_of_root(other.factor.to(mean.device), covariance)
        return ((mean + own - mu).square().sum() + covariance.trace() + float(np.trace(other.sigma)) - 2 * roots).item()

    @cached_property
    def resampled_distances(self) -> list[float]:
        """Of the resamples, which are the same rows for all features of as many samples."""
        return [self.distance(self.sums(rows)) for rows in resamples("fid", self.n, self.resampled)]

    @cached_property
    def error(self) -> float:
        """Standard error of the distance, by bootstrap. Somewhat too wide where N is below 20 D, or the distance near its bias."""
        return stdev(self.resampled_distances)

    def with_interval(self, value: float) -> Measured:
        """`value`: the distance, as a library computes it."""
        return around(value, self.error, f"bootstrap, {self.resampled} resamples of the samples, seeded: {ERRORS}")

    def line(self) -> tuple[float, float]:
        """Intercept at 1/N = 0 of the distances of parts against 1 / their size, and its standard error in the fit.

        Chong and Forsyth 2020 fit one random part at each of 15 sizes. Here the samples, shuffled once, are 30 blocks on a circle; the
        parts are all arcs of 16 to 30 blocks (15 sizes, evenly in N) that start at three points a third apart, and each size has the mean
        of its three. Every sample is in about as many of them, so what a single sample does cancels in the slope: the intercept then varies
        no more than FID itself does (one random part a size: a fifth to two fifths more).
        """
        order = torch.randperm(self.n, generator=stream(SEED, "fid_infinity", self.n))
        blocks = [self.sums(rows) for rows in order.tensor_split(BLOCKS)]
        inverse, distances = np.zeros(BLOCKS), np.zeros(BLOCKS)
        for first in range(0, BLOCKS, BLOCKS // ROTATIONS):
            arc = blocks[first]
            for size in range(2, BLOCKS + 1):
                arc = arc + blocks[(first + size - 1) % BLOCKS]
                if size >= FROM:
                    inverse[size - 1] += 1 / arc.count / ROTATIONS
                    distances[size - 1] += self.distance(arc) / ROTATIONS
        (_, intercept), covariance = np.polyfit(inverse[FROM - 1 :], distances[FROM - 1 :], 1, cov=True)
        return float(intercept), float(np.sqrt(covariance[1, 1]))

    def infinity(self) -> Measured:
        """FID-infinity; only where there are not `too_few` samples."""
        value, error = self.line()
        how = f"{ERRORS}: of FID's {self.resampled} resamples and of the straight line in 1/N, in quadrature"
        return around(value, float(np.hypot(self.error, error)), how)


def exact_distance(samples: Tensor, reference: Tensor) -> float:
    """Frechet distance of (N, D) and (M, D) features in float64, exact to rounding where a covariance is singular, too.

    With A^T A and B^T B the covariances, the trace of the root of their product is the sum of the singular values of A B^T: nothing is
    squared, so that no root of a rounding error is added. Of fewer rows than features it is a number to compare programs by, and no score.
    """
    factors, total, means = [], 0.0, []
    for rows in checked("the Frechet distance", 2, samples=samples, reference=reference):
        means.append(rows.double().mean(0))
        factor = (rows.double() - means[-1]) / (len(rows) - 1) ** 0.5
        total += factor.square().sum().item()
        factors.append(torch.linalg.qr(factor, mode="r").R if len(factor) > factor.shape[1] else factor)
    roots = torch.linalg.svdvals(factors[0] @ factors[1].T).sum().item()
    return (means[0] - means[1]).square().sum().item() + total - 2 * roots


def reference_bias(beside: Frechet) -> float | None:
    """What the reference's finite number of images adds to the distance; None where it has no `halves`.

    To first order it is inverse to that number, as FID's own bias is to N (Chong and Forsyth 2020): half as many add twice as much.
    """
    halves = beside.reference.halves
    return sum(map(beside.distance_to, halves)) / len(halves) - beside.distance_to(beside.reference) if halves else None


def too_few(n: int, width: int) -> str:
    """Why there is no FID-infinity; empty where there is."""
    least = max(LEAST * width, 2 * BLOCKS)
    if n >= least:
        return ""
    return f"{n} samples for {width} features are too few for a straight line in 1/N: set sampling.count to {least} or more"


def scarce(n: int, width: int, biases: list[float]) -> str:
    """A warning where N is small for the width; `biases`: FID less FID-infinity of runs."""
    if n >= ENOUGH * width:
        return ""
    bias = f", about {sum(biases) / len(biases):.3g} too high here (FID less FID∞)" if biases else ""
    return f"N = {n} samples for {width} features: FID is biased{bias}; set sampling.count to {ENOUGH * width} or more"
