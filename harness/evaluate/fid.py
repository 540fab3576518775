"""Frechet distance by torch-fidelity, checked against clean-fid's on the same features."""

from cleanfid.fid import frechet_distance
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.config import UserError

TOLERANCE = 1e-3  # relative; measured difference is below 1e-6 where samples outnumber features


def fid(samples: Tensor, reference: Tensor) -> dict[str, float]:
    """(N, D) and (M, D) features -> `fid` and `fid_clean`. UserError for too few samples, or if the two libraries disagree."""
    for what, features in (("samples", samples), ("reference images", reference)):
        if len(features) <= features.shape[1]:
            raise UserError(f"FID needs more {what} than features: got {len(features)} for {features.shape[1]} features")
    first, second = fid_features_to_statistics(samples), fid_features_to_statistics(reference)
    ours = fid_statistics_to_metric(first, second, verbose=False)[KEY_METRIC_FID]
    check = float(frechet_distance(first["mu"], first["sigma"], second["mu"], second["sigma"]))
    scale = float(first["sigma"].trace() + second["sigma"].trace())
    if not abs(ours - check) <= TOLERANCE * max(abs(ours), 1e-3 * scale):
        raise UserError(f"FID: torch-fidelity gives {ours:.6g} and clean-fid {check:.6g} on the same features; the features are degenerate")
    return {"fid": ours, "fid_clean": check}
