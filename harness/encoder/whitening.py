"""Whitening: the statistics of raw latents, and what is done with them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from harness.store import artifacts

EPSILON = 1e-5  # added to the variance, as released (rae.py:179-182)


class LatentMoments:
    """Exact streaming mean and variance in float64, per channel or per channel and position; `none`: mean 0 and variance 1."""

    def __init__(self, whitening: str) -> None:
        self.whitening = whitening
        self.axes = (0, 2, 3) if whitening == "channel" else (0,)
        self.count, self.mean, self.squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def add(self, batch: Tensor) -> None:
        """(B, C, H, W). Chan's update: merges a batch's moments without cancellation."""
        batch = batch.double()
        count = batch.numel() // batch[0].numel() * (batch.shape[2] * batch.shape[3] if len(self.axes) == 3 else 1)
        mean = batch.mean(self.axes, keepdim=True)[0]
        squares = (batch - mean).square().sum(self.axes, keepdim=True)[0]
        delta, total = mean - self.mean, self.count + count
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta.square() * (self.count * count / total)
        self.count = total

    def result(self) -> "Whitening":
        """In float32."""
        if self.whitening == "none":
            return Whitening(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        return Whitening(self.mean.float(), (self.squares / self.count + EPSILON).sqrt().float())


@dataclass(frozen=True)
class Whitening:
    """Mean and standard deviation of raw latents, (C, 1, 1) or (C, H, W)."""

    mean: Tensor
    std: Tensor

    def whiten(self, raw: Tensor) -> Tensor:
        """The encoder's own (B, C, H, W) -> what the denoiser works on, of mean 0 and standard deviation 1."""
        return (raw - self.mean) / self.std

    def unwhiten(self, latents: Tensor) -> Tensor:
        """Whitened (B, C, H, W) -> the encoder's own, what the decoder reads."""
        return latents * self.std + self.mean

    def to(self, place: torch.device) -> "Whitening":
        """On another device."""
        return Whitening(self.mean.to(place), self.std.to(place))


def load_whitening(path: Path) -> Whitening:
    """The statistics of a latents file, without reading its latents; all of it is compared with its record."""
    artifacts.checked(path)
    with safe_open(path, "pt") as file:
        return Whitening(file.get_tensor("mean"), file.get_tensor("std"))
