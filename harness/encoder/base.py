"""What every kind of encoder provides: how its weights are made and loaded, how it encodes, and its networks, for plans."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.study.method import EncoderRegisters
from harness.study.study import Study
from harness.training.network import Network

# shape of one image's noise -> (B, *shape) standard normal for the images at hand
Noise = Callable[[tuple[int, ...]], Tensor]
# (pixels (B, 3, H, W) in [-1, 1], noise) -> raw latents (B, C, h, w), norms (B, places, P) of the residual stream or None
Encoder = Callable[[Tensor, Noise], tuple[Tensor, Tensor | None]]
# raw latents (B, C, h, w) -> pixels (B, 3, H, W) in about [-1, 1]
Decoder = Callable[[Tensor], Tensor]


def noise_from(generator: torch.Generator, count: int) -> Noise:
    """The noise of `count` images."""
    return lambda shape: torch.randn((count, *shape), generator=generator)


class EncoderKind(ABC):
    """An encoder of a study. Latents are raw here: not whitened."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @abstractmethod
    def make(self, *, backbone: str, data: Path, records: Sequence[Path], state: Path, out: Path) -> dict:
        """Write the artifact `out`, a folder: the backbone `plain` or `trained_registers`. Returns what is printed.

        `records` are those of the study's assets, `state` is for checkpoints.
        """

    @abstractmethod
    def load(self, backbone: Path, registers: Path | None) -> Encoder:
        """Frozen, on the device, from the folder that `make` wrote; `registers`: a list of register neurons to move (stage `registers`)."""

    def decoder(self, backbone: Path) -> Decoder:
        """Of the folder that `make` wrote, on the device; for an encoder that decodes itself."""
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    def network(self, registers: EncoderRegisters) -> Network | None:
        """One image through the encoder, with the registers of a method; None where nothing is computed."""
        return None

    def decoder_network(self) -> Network | None:
        """One latent through the decoder, for an encoder that decodes itself; None where nothing is computed."""
        return None
