"""AutoencoderKL of diffusers: the encoder and decoder of SiT."""

from pathlib import Path

from diffusers import AutoencoderKL
from diffusers.utils import logging
from torch import Tensor, nn

from harness.config import UserError

logging.set_verbosity_error()
logging.disable_progress_bar()


class Vae(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] <-> latents (B, C, H / f, W / f), multiplied by `scale` (released SiT train.py: 0.18215)."""

    def __init__(self, model: AutoencoderKL, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """A draw from the posterior; `noise` is standard normal, of the latents' shape."""
        posterior = self.model.encode(pixels).latent_dist
        return (posterior.mean + posterior.std * noise) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents / self.scale).sample


def load(folder: Path, scale: float) -> Vae:
    """From a folder as `save_pretrained` writes it; UserError if it is none, or if weights are missing."""
    try:
        model, info = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder}: not a diffusers AutoencoderKL with safetensors: {str(error).strip().splitlines()[0]}") from None
    if info["missing_keys"] or info["unexpected_keys"]:
        first = [*info["missing_keys"], *info["unexpected_keys"]][0]
        raise UserError(f"{folder}: weights of another architecture: '{first}' is missing or unexpected")
    return Vae(model, scale).eval().requires_grad_(False)
