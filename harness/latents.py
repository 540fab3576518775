"""Whitened latents: the statistics that whiten, the file that caches, the container that the later stages read."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness import artifacts
from harness.config import LossMask

EPSILON = 1e-5  # added to the variance, as released (rae.py:179-182)
NORMS = ("pre_ln", "post_ln", "whitened")


class Moments:
    """Exact streaming mean and variance in float64, per channel or per channel and position."""

    def __init__(self, whitening: str) -> None:
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

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, float32, (C, 1, 1) or (C, H, W)."""
        return self.mean.float(), (self.squares / self.count + EPSILON).sqrt().float()


@dataclass(frozen=True)
class Latents:
    """Whitened latents (N, C, H, W), norms (N, depth + 1, P) of the encoder's residual stream, token norms (N, P) by name, labels (N,), whitening."""

    latents: Tensor
    layer_norms: Tensor
    norms: dict[str, Tensor]
    labels: Tensor
    mean: Tensor
    std: Tensor

    def to_tokens(self, latents: Tensor) -> Tensor:
        """Whitened (B, C, H, W) -> encoder tokens (B, P, C), what the decoder reads."""
        return (latents * self.std + self.mean).flatten(2).transpose(1, 2)

    def loss_weights(self, mask: LossMask, factor: float) -> Tensor:
        """(N, 1, H, W) of 0 and 1: 0 where the token's norm exceeds `factor` times the median of that norm (released train.py:419-422)."""
        norms = self.norms[mask.norm]
        return (norms <= factor * norms.median()).float().unflatten(1, self.latents.shape[2:]).unsqueeze(1)


def load(path: Path, split: str) -> Latents:
    tensors, _ = artifacts.load_tensors(path)
    norms = {name: tensors[f"{split}.norm.{name}"] for name in NORMS}
    return Latents(
        tensors[f"{split}.latents"], tensors[f"{split}.norms"], norms, tensors[f"{split}.labels"], tensors["mean"], tensors["std"]
    )
