"""AutoencoderKL of diffusers: the encoder and decoder of SiT, published or trained in the DAG."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils import logging
from torch import Tensor, nn

from harness.study.typed import UserError, first_line

logging.set_verbosity_error()
logging.disable_progress_bar()


def draw_posterior(posterior: DiagonalGaussianDistribution, noise: Tensor) -> Tensor:
    """(B, C, h, w), by `noise`, which is standard normal and of that shape."""
    return posterior.mean + posterior.std * noise


def divergence_of(posterior: DiagonalGaussianDistribution) -> Tensor:
    """KL divergence from the standard normal, a scalar: the mean over the values of (B, C, h, w)."""
    return 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()


class Vae(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] <-> latents (B, C, H / f, W / f), multiplied by `scale` (released SiT train.py: 0.18215)."""

    def __init__(self, model: AutoencoderKL, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """A draw from the posterior; `noise` is standard normal, of the latents' shape."""
        return draw_posterior(self.model.encode(pixels).latent_dist, noise) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, H / f, W / f) -> (B, 3, H, W)."""
        return self.model.decode(latents / self.scale).sample


def load_vae(folder: Path, sizes: Mapping[str, int], scale: float | None = None) -> Vae:
    """From a folder as `save_pretrained` writes it. `scale`: factor on the latents; None: the one in the folder.

    UserError if it is no such folder, if weights are missing, or if it has other `sizes` (channels, downsampling, width) than the study.
    """
    try:
        model, info = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder}: not a diffusers AutoencoderKL with safetensors: {first_line(error)}") from None
    if info["missing_keys"] or info["unexpected_keys"]:
        first = [*info["missing_keys"], *info["unexpected_keys"]][0]
        raise UserError(f"{folder}: weights of another architecture: '{first}' is missing or unexpected")
    widths = model.config.block_out_channels
    there = {"channels": model.config.latent_channels, "downsampling": 2 ** (len(widths) - 1), "width": widths[0]}
    for field, wanted in sizes.items():
        if there[field] != wanted:
            raise UserError(f"{folder}: encoder.{field} is {there[field]} there, {wanted} in the study; is it the right encoder?")
    return Vae(model, scale or model.config.scaling_factor).eval().requires_grad_(False)
