"""Rows on the Frechet distance: of one set of features, and of one bootstrap resample."""

import torch
from cleanfid.fid import frechet_distance
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.commands.peers.measure import Line, Pair, Values, alternate
from harness.evaluation.fid import fid
from harness.evaluation.frechet import Frechet
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.machine.streams import stream

DISTANCE = (2500, 2048)  # samples and reference, features
RESAMPLE = (2500, 512)


def _features(n: int, width: int) -> tuple[Tensor, ReferenceStatistics]:
    """Samples and reference, correlated, with other means and spreads."""
    generator = stream(0, "benchmark distances")
    mix = torch.randn(width, width, generator=generator) / width**0.5 + torch.eye(width)
    samples, real = (torch.randn(n, width, generator=generator) @ mix for _ in range(2))
    return 1.1 * samples + 0.1, ReferenceStatistics.of_features("benchmark", real)


def _torch_fidelity(samples: Tensor, reference: ReferenceStatistics) -> Values:
    other = {"mu": reference.mu, "sigma": reference.sigma}
    return [float(fid_statistics_to_metric(fid_features_to_statistics(samples), other, verbose=False)[KEY_METRIC_FID])]


def _clean_fid(samples: Tensor, reference: ReferenceStatistics) -> Values:
    moments = fid_features_to_statistics(samples)  # clean-fid has no function of its own for them
    return [float(frechet_distance(moments["mu"], moments["sigma"], reference.mu, reference.sigma))]


def distance(rounds: int, size: tuple[int, int] = DISTANCE) -> list[Line]:
    """Mean, covariance and distance, ours with its own check included."""
    samples, reference = _features(*size)
    work = f"Fréchet distance, {size[0]:,} samples, D = {size[1]:,}, our check included"

    def ours() -> Values:
        return [fid(samples, reference)["fid"]]

    peers = (("clean-fid", "10", _clean_fid), ("torch-fidelity", "1.2", _torch_fidelity))
    return [alternate(Pair(work, name, wanted, ours, lambda f=f: f(samples, reference), 1e-5), min(rounds, 3)) for name, wanted, f in peers]


def resample(rounds: int, size: tuple[int, int] = RESAMPLE) -> list[Line]:
    """One resample of a bootstrap, whose table is made once for all."""
    samples, reference = _features(*size)
    beside = Frechet(samples, reference, 2)
    rows = torch.randint(len(samples), (len(samples),), generator=stream(0, "benchmark resample"))
    work = f"one bootstrap resample, {size[0]:,} samples, D = {size[1]:,}"

    def ours() -> Values:
        return [beside.distance(beside.sums(rows))]

    peers = (("torch-fidelity", "3.9", _torch_fidelity), ("clean-fid", "6.4", _clean_fid))
    return [alternate(Pair(work, name, wanted, ours, lambda f=f: f(samples[rows], reference), 1e-5), rounds) for name, wanted, f in peers]
