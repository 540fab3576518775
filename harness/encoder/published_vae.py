"""Encoder `vae`: a published AutoencoderKL, and what the study's own shares with it.

diffusers takes seconds to import, so this file imports it where a VAE is needed.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.encoder.base import Decoder, Encoder, EncoderKind, Noise
from harness.machine.device import device
from harness.store import artifacts, assets, foreign
from harness.store.files import emptied
from harness.study.method import EncoderRegisters
from harness.training.network import Network

if TYPE_CHECKING:
    from harness.encoder.vae import Vae


class VaeKind(EncoderKind):
    """Its folder is as `save_pretrained` of diffusers writes it."""

    @abstractmethod
    def read(self, folder: Path) -> "Vae":
        """Frozen; UserError for a folder that is no VAE of the study's sizes."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The AutoencoderKL, with fresh weights from the global generator."""

    def load(self, backbone: Path, registers: Path | None) -> Encoder:
        """Latents are drawn from the posterior, by the noise that is given."""
        artifacts.checked(backbone)
        vae, shape = self.read(backbone).to(device()), self.study.latent_shape

        def encode(pixels: Tensor, noise: Noise) -> tuple[Tensor, None]:
            with torch.no_grad():
                return vae.encode(pixels, noise(shape).to(pixels.device)), None

        return encode

    def decoder(self, backbone: Path) -> Decoder:
        artifacts.checked(backbone)
        return self.read(backbone).to(device()).decode

    def network(self, registers: EncoderRegisters) -> Network:
        size = self.study.data.image_size
        return Network(self.build, (1, 3, size, size), lambda model, x: model.encode(x))

    def decoder_network(self) -> Network:
        return Network(self.build, (1, *self.study.latent_shape), lambda model, x: model.decode(x))


class PublishedVae(VaeKind):
    def make(self, *, backbone: str, data: Path, records: Sequence[Path], state: Path, out: Path) -> dict:
        record = assets.record_of(records, "encoder.weights")
        source = assets.locate(record)
        with artifacts.artifact(out, stage="encoder", module=__name__, config=self.study.encoder, inputs=[record]) as folder:
            vae = self.read(source)
            foreign.check_folder(source)
            vae.model.save_pretrained(emptied(folder))
        return {"encoder": str(source)}

    def read(self, folder: Path) -> "Vae":
        from harness.encoder.vae import load_vae

        section = self.study.encoder
        return load_vae(folder, {"channels": section.channels, "downsampling": section.downsampling}, section.scale)

    def build(self) -> nn.Module:
        """Of Stable Diffusion's widths, which double twice; for plans."""
        from diffusers import AutoencoderKL

        levels = round(math.log2(self.study.encoder.downsampling)) + 1
        return AutoencoderKL(
            block_out_channels=tuple(128 * 2 ** min(level, 2) for level in range(levels)),
            layers_per_block=2,
            latent_channels=self.study.encoder.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )
