"""AutoencoderKL of diffusers: the encoder and decoder of SiT, published or trained in the DAG."""

from pathlib import Path

from diffusers import AutoencoderKL
from diffusers.utils import logging
from torch import Tensor, nn

from harness.study.sections.encoder import TrainedVae, VaeEncoder
from harness.study.typed import UserError

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


def build(section: TrainedVae) -> AutoencoderKL:
    """With fresh weights from the global generator; one residual block a level."""
    levels = section.downsampling.bit_length()
    return AutoencoderKL(
        block_out_channels=tuple(section.width << level for level in range(levels)),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=section.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )


def load(folder: Path, section: VaeEncoder | TrainedVae) -> Vae:
    """From a folder as `save_pretrained` writes it; UserError if it is none, if weights are missing, or if it has other sizes."""
    try:
        model, info = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder}: not a diffusers AutoencoderKL with safetensors: {str(error).strip().splitlines()[0]}") from None
    if info["missing_keys"] or info["unexpected_keys"]:
        first = [*info["missing_keys"], *info["unexpected_keys"]][0]
        raise UserError(f"{folder}: weights of another architecture: '{first}' is missing or unexpected")
    widths = model.config.block_out_channels
    found = {"channels": model.config.latent_channels, "downsampling": 2 ** (len(widths) - 1), "width": widths[0]}
    for field, value in found.items():
        if value != getattr(section, field, value):
            raise UserError(f"{folder}: encoder.{field} is {value} there, {getattr(section, field)} in the study; is it the right encoder?")
    return Vae(model, section.scale or model.config.scaling_factor).eval().requires_grad_(False)
