"""LPIPS with VGG16 (Zhang et al. 2018), the perceptual part of RAE's stage-1 loss.

From released files: the input's scale, the five layers and the unit-length features are those of `lpips/lpips.py` and
`lpips/pretrained_networks.py` (github.com/richzhang/PerceptualSimilarity), which RAE keeps in `src/disc/lpips.py`; its weight 1.0 and
its start at epoch 0 are `perceptual_weight` and `lpips_start` in DSR's `configs/stage1/training`.

Two files, read from local paths, never downloaded:
- `vgg16-397923af.pth`, torchvision's VGG16: https://download.pytorch.org/models/vgg16-397923af.pth, sha256 397923af8e79cdbb...
- `vgg.pth`, the five linear heads: `lpips/weights/v0.1/vgg.pth` of github.com/richzhang/PerceptualSimilarity, sha256 a78928a0af1e5f0f...
  torch-fidelity's `weights-vgg16-lpips.pth` holds the same five names. `v0.0/vgg.pth` beside it is another metric: compare the sha256.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from harness.store import foreign
from harness.store.tensors import load_weights
from harness.study.sections.decoder import VGG16_WIDTHS

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of VGG16, between its poolings


class Perceptual(nn.Module):
    """Frozen: no gradient to its weights, gradient to its inputs. Weights are random until `from_files`, for tests at toy widths."""

    def __init__(self, widths: Sequence[int] = VGG16_WIDTHS) -> None:
        super().__init__()
        layers = [x for width, count in zip(widths, CONVOLUTIONS, strict=True) for x in (*[width] * count, "M")]
        self.vgg = nn.ModuleDict({"features": make_layers(layers)[:-1]})
        # named as in the file, where a dropout comes before each convolution
        heads = [nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False)) for width in widths]
        self.heads = nn.ModuleDict({f"lin{i}": nn.ModuleDict({"model": head}) for i, head in enumerate(heads)})
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def from_files(
        cls,
        vgg: Path | str,
        heads: Path | str,
        widths: Sequence[int] = VGG16_WIDTHS,
        named: tuple[str | None, str | None] = (None, None),
    ) -> Self:
        """With the published weights. VGG's classifier is skipped. `named`: of several containers in a file, the one that is meant.

        UserError, one line, for a file that is missing, damaged or of another architecture.
        """
        model = cls(widths)
        model.taken = {}
        tensors, model.taken["vgg"] = foreign.read_container(vgg, named[0])
        load_weights(model.vgg, {name: x for name, x in tensors.items() if not name.startswith("classifier.")}, vgg)
        tensors, model.taken["heads"] = foreign.read_container(heads, named[1])
        load_weights(model.heads, tensors, heads)
        return model

    def features(self, images: Tensor) -> Iterator[Tensor]:
        """Before each pooling and at the end, of unit length over the channels: five of (B, width, H / 2^i, W / 2^i)."""
        x = (images - self.shift) / self.scale
        for layer in self.vgg["features"]:
            if isinstance(layer, nn.MaxPool2d):
                yield F.normalize(x, dim=1, eps=1e-10)
            x = layer(x)
        yield F.normalize(x, dim=1, eps=1e-10)

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        """(B, 3, H, W) twice, in [-1, 1], H and W at least 16 -> (B,), 0 for equal images. RAE takes the mean over the batch."""
        pairs = zip(self.heads.values(), self.features(images), self.features(references), strict=True)
        return torch.stack([head["model"]((a - b).square()).mean((1, 2, 3)) for head, a, b in pairs]).sum(0)
