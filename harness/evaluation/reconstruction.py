"""rFID and PSNR: the decoder on the held-out images' own latents."""

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics

from harness.data.images import Split
from harness.evaluation.bootstrap import by_resampling, means, resamples
from harness.evaluation.fid import fid, symmetric_distance
from harness.evaluation.outcome import Measured
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.study.typed import UserError

OF = "held-out images"


def psnr(images: np.ndarray, truth: Split, resampled: int) -> Measured:
    """Of reconstructions (N, H, W, 3) uint8 of the images of `truth`: dB, mean over images."""
    error = np.array([((image.astype(np.float64) - truth[i]) ** 2).mean() for i, image in enumerate(images)])
    values = 10 * np.log10(255**2 / np.maximum(error, 1e-3))
    return by_resampling(float(values.mean()), means("psnr", torch.from_numpy(values), resampled), OF)


def rfid(features: Tensor, reference: ReferenceStatistics, resampled: int) -> Measured:
    """FID of reconstructions by their (N, D) features.

    A resample takes each image with its reconstruction, as both are of the same image.
    """
    value = fid(features, reference)["fid"]
    return by_resampling(value, paired(features, reference.features, resampled), OF)


def paired(features: Tensor, originals: Tensor, resampled: int) -> list[float]:
    """Frechet distances of resamples of (N, D) features and those (N, D) of the images that they are reconstructions of."""
    if len(features) != len(originals):
        raise UserError(f"rFID compares each image with its reconstruction: {len(originals)} images, {len(features)} reconstructions")
    distances = []
    for rows in resamples("rfid", len(features), resampled):
        first, second = (fid_features_to_statistics(side[rows].double()) for side in (features, originals))
        distances.append(symmetric_distance(first["mu"], first["sigma"], second["mu"], second["sigma"]))
    return distances
