"""What a denoiser's space is made of: an encoder from pixels to raw latents, and a decoder back. A ViT, a VAE, or the pixels themselves."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from harness.encoder.tower import VisionEncoder

# shape of one image's noise -> (B, *shape) standard normal for the images at hand
Noise = Callable[[tuple[int, ...]], Tensor]
# (pixels (B, 3, H, W) in [-1, 1], noise) -> raw latents (B, C, h, w), norms (B, depth + 1, P) of the residual stream or None
Encoder = Callable[[Tensor, Noise], tuple[Tensor, Tensor | None]]
# raw latents -> pixels
Decoder = Callable[[Tensor], Tensor]


def noise_from(generator: torch.Generator, count: int) -> Noise:
    """The noise of `count` images."""
    return lambda shape: torch.randn((count, *shape), generator=generator)


def vit_encoder(model: "VisionEncoder") -> Encoder:
    def encode(pixels: Tensor, _noise: Noise) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            tokens, norms = model.encode(pixels)
        return tokens.transpose(1, 2).unflatten(2, (model.grid, model.grid)), norms

    return encode


def vit_decoder(model: torch.nn.Module) -> Decoder:
    """The decoder reads tokens (B, P, C)."""
    return lambda raw: model(raw.flatten(2).transpose(1, 2))


def vae_encoder(vae: torch.nn.Module) -> Encoder:
    """Draws from the posterior, by `noise`."""

    def encode(pixels: Tensor, noise: Noise) -> tuple[Tensor, None]:
        config = vae.model.config
        side = pixels.shape[-1] // 2 ** (len(config.block_out_channels) - 1)
        with torch.no_grad():
            return vae.encode(pixels, noise((config.latent_channels, side, side)).to(pixels.device)), None

    return encode


def pixel_encoder(pixels: Tensor, _noise: Noise) -> tuple[Tensor, None]:
    return pixels, None
