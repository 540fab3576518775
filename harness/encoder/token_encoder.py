"""What encoders with tokens share: vision towers, loaded with test-time registers, whose patch tokens are the latents.

transformers takes 3 s to import, so this file imports it where a tower is needed.
"""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.encoder.base import Encoder, EncoderKind, Noise
from harness.encoder.vit_layer import Layer
from harness.machine.device import device
from harness.store import artifacts
from harness.study.method import EncoderRegisters
from harness.study.study import Study
from harness.training.network import Network

if TYPE_CHECKING:
    from harness.encoder.tower import VisionEncoder


class TokenEncoder(EncoderKind):
    """Its folder is one that harness.encoder.tower_files writes."""

    def load(self, backbone: Path, registers: Path | None) -> Encoder:
        model = load_vision_encoder(self.study, backbone, registers)

        def encode(pixels: Tensor, _noise: Noise) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                tokens, norms = model.encode(pixels)
            return model.as_latents(tokens), norms

        return encode

    @abstractmethod
    def extra_tokens(self, backbone: str) -> int:
        """Tokens beside the patches that the backbone has of its own: CLS, trained registers."""

    def network(self, registers: EncoderRegisters) -> Network:
        section, side = self.study.encoder, self.study.latent_side
        extra = self.extra_tokens(registers.backbone) + int(registers.searched)
        shape = {"width": section.width, "depth": section.depth, "heads": section.heads, "mlp": section.mlp, "patch": section.patch}
        pixels = side * section.patch
        return Network(lambda: TowerMatrices(**shape, patches=side**2, extra=extra), (1, 3, pixels, pixels))


def load_vision_encoder(study: Study, backbone: Path, registers: Path | None) -> "VisionEncoder":
    """The tower in the folder `backbone`, on the device, with test-time registers where a neuron list is given and not empty."""
    from harness.encoder.test_time_registers import TestTimeRegisters
    from harness.encoder.tower_files import load_tower

    model = load_tower(backbone).to(device())
    neurons = artifacts.read_json(registers)["neurons"] if registers else {}
    if neurons:  # no outliers found: nothing to move, the encoder stays as it is
        listed = {int(layer): units for layer, units in neurons.items()}
        TestTimeRegisters(model, listed, variant=study.search.variant)
    return model


class TowerMatrices(nn.Module):
    """The matrices of SigLIP and DINOv2, `extra` tokens beside the patches: pixels (B, 3, H, W) -> (B, patches + extra, width).

    For counting alone: importing transformers takes longer than the rest of a plan.
    """

    def __init__(self, *, width: int, depth: int, heads: int, mlp: int, patch: int, patches: int, extra: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, patches, width))
        self.extra = nn.Parameter(torch.empty(1, extra, width))
        self.layers = nn.Sequential(*(Layer(width, heads, mlp, 1e-6) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.layers(torch.cat([tokens, self.extra.expand(len(tokens), -1, -1)], dim=1)))
