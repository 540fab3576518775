"""The judge of the embedded studies: a small classifier whose features take the place of Inception's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Judge(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> features (B, width) and logits (B, classes).

    Features are standardised by `calibrate`, so that distances in them have a scale: each varies by 1 over real images.
    """

    def __init__(self, width: int, classes: int, image_size: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)
        )  # fmt: skip
        self.features = nn.Linear(32 * (image_size // 4) ** 2, width)
        self.logits = nn.Linear(width, classes)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.convolutions(pixels).flatten(1))
        return (features - self.mean) / self.std, self.logits(F.gelu(features))

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        features, _ = self(pixels)
        self.std.copy_(features.std(0))
        self.mean.copy_(features.mean(0))
