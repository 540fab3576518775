"""A decoder's output as pixels."""

import torch
from torch import Tensor

from harness.study.sections.pixels import Pixels


def signed(output: Tensor, pixels: Pixels) -> Tensor:
    """(B, 3, H, W) as a decoder gives it -> pixels in about [-1, 1], not clamped.

    Of `normalised` output as the authors' and RAE's `rae.py` (decode) do it, with the encoder's image statistics; `signed` stays as it is.
    """
    if pixels.range == "signed":
        return output
    mean, std = (torch.tensor(values, device=output.device).view(3, 1, 1) for values in (pixels.mean, pixels.std))
    return output.float() * (2 * std) + (2 * mean - 1)
