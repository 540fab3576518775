"""Encoder `trained_vae`: a small AutoencoderKL that the study trains; the scale of its latents is measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from harness.data.stage import load_data
from harness.encoder.published_vae import VaeKind
from harness.machine.device import device
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.files import emptied
from harness.training.loop import fit
from harness.training.order import batch_indices

if TYPE_CHECKING:
    from harness.encoder.vae import Vae

SEED = 0  # the encoder is part of the study; the run's seed does not reach it


class OwnVae(VaeKind):
    def make(self, *, backbone: str, data: Path, records: Sequence[Path], state: Path, out: Path) -> dict:
        """The `scaling_factor` in the folder is 1 / standard deviation of the training latents, as for Stable Diffusion's
        (arXiv 2112.10752, D.1).
        """
        from harness.encoder.vae import divergence_of, draw_posterior

        section, split = self.study.encoder, load_data(data, "train")
        pixels = split.pixels().to(device())
        with artifacts.trained_artifact(out, state=state, stage="encoder", module=__name__, config=section, inputs=[data]) as (
            folder,
            checkpoints,
        ):
            seed_initialisation(SEED)
            model = self.build().to(device())

            def encode(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
                """Latents drawn from the posterior, and its KL divergence."""
                posterior = model.encode(images).latent_dist
                noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
                return draw_posterior(posterior, noise), divergence_of(posterior)

            def loss(step: int, generator: torch.Generator) -> torch.Tensor:
                images = pixels[batch_indices(SEED, step, len(split), section.training.batch)]
                latents, divergence = encode(images, generator)
                return F.l1_loss(model.decode(latents).sample, images) + section.kl * divergence

            fit(model, loss, section.training, images=len(split), name="VAE", seed=SEED, state=checkpoints)
            with torch.no_grad():
                parts = enumerate(pixels.split(256))
                latents = torch.cat([encode(images, stream(SEED, "scale", index, device()))[0] for index, images in parts])
            scale = 1 / latents.double().std().item()
            model.register_to_config(scaling_factor=scale)
            model.save_pretrained(emptied(folder))
        return {"scale": scale}

    def read(self, folder: Path) -> "Vae":
        from harness.encoder.vae import load_vae

        section = self.study.encoder
        return load_vae(folder, {"channels": section.channels, "downsampling": section.downsampling, "width": section.width})

    def build(self) -> nn.Module:
        """One residual block a level."""
        from diffusers import AutoencoderKL

        section = self.study.encoder
        levels = section.downsampling.bit_length()
        return AutoencoderKL(
            block_out_channels=tuple(section.width << level for level in range(levels)),
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=section.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )
