"""From images of 8 bits to what a network is fed: one square, in the way that a score's own program makes it.

Sources: FD-Loss `TimmReprModel` and EDM2 `calculate_metrics.py` (torch_bicubic), dgm-eval `models/dinov2.py` (pil_bicubic) and `resizer.py`
(pil_bicubic_float), torch-fidelity `interpolate_compat_tensorflow.py` (tf1_bilinear), cmmd-pytorch `io_util.py` (crop_pil_bicubic).
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from harness.study.sections.extractors import ExtractorInfo

LEVELS = 255


def prepare(images: Tensor, info: ExtractorInfo) -> Tensor:
    """Images (N, 3, H, W) uint8 -> (N, 3, side, side) float32, (pixels in [0, 1] - mean) / std by channel."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images (N, 3, H, W) of uint8 are wanted, not {tuple(images.shape)} of {images.dtype}")
    pixels = RESIZES[info.resize](images, info.side) / LEVELS
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in info.statistics)
    return (pixels - mean) / std


def torch_bicubic(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, side, side), beyond 0 and 255 where it overshoots: bicubic with antialias, stretched to the square."""
    pixels = images.float()
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)


def tf1_bilinear(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, side, side): corners at 0, no antialias, stretched to the square."""
    return interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(side, side), align_corners=False)


def pil_bicubic(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 -> whole numbers (N, 3, side, side): Pillow's bicubic, which has antialias, stretched to the square."""
    return _each(images, lambda image: _resized(image, side))


def pil_bicubic_float(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, side, side) in 0..255: Pillow's bicubic of each channel in float32, clipped, not rounded."""

    def resized(image: np.ndarray) -> np.ndarray:
        channels = [_resized(image[..., channel].astype(np.float32), side) for channel in range(3)]
        return np.stack(channels, axis=-1).clip(0, LEVELS)

    return _each(images, resized)


def crop_pil_bicubic(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 -> whole numbers (N, 3, side, side): the square in the centre, then Pillow's bicubic."""
    height, width = images.shape[-2:]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    return pil_bicubic(images[..., top : top + square, left : left + square], side)


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {
    resize.__name__: resize for resize in (torch_bicubic, tf1_bilinear, pil_bicubic, pil_bicubic_float, crop_pil_bicubic)
}


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def _each(images: Tensor, resized: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Images (N, 3, H, W) one by one as (H, W, 3); what comes of them as one tensor, float32, where the images are."""
    arrays = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    stacked = torch.from_numpy(np.stack([resized(image) for image in arrays]))
    return stacked.permute(0, 3, 1, 2).float().to(images.device)
