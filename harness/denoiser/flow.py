"""Flow matching on the linear path x_t = (1 - t) data + t noise: t = 0 is data, t = 1 is noise (released src/stage2/transport).

Batches are (B, C, H, W) with one t per element, (B,), unless a docstring says otherwise.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from harness.study.typed import UserError

Prediction = Literal["data", "velocity"]


def shift_time(t: Tensor, shift: float) -> Tensor:
    """t -> s t / (1 + (s - 1) t): more time near the noise for shift > 1 (released `transport.py:186`)."""
    return shift * t / (1 + (shift - 1) * t)


def shift_of_dimension(dimension: int, base: int = 4096) -> float:
    """Shift for data of `dimension` values: sqrt(dimension / base) (released `train.py:152-154`).

    16 x 16 tokens of 768 channels: 6.928. The released SigLIP2-So400M configs keep that although 1152 channels give 8.485.
    """
    return math.sqrt(dimension / base)


def sample_time(
    count: int,
    distribution: Literal["logit_normal", "uniform"],
    shift: float,
    generator: torch.Generator,
    mean: float = 0.0,
    std: float = 1.0,
) -> Tensor:
    """(count,) training times in [0, 1], shifted, on the generator's device.

    logit_normal: sigmoid of a normal with `mean` and `std`; uniform: `mean` and `std` are unused. The released code cuts the times of a
    velocity model at 0.999 before the shift (`Transport.check_interval`); this does not. Raises UserError for another distribution.
    """
    match distribution:
        case "logit_normal":
            t = (torch.randn(count, generator=generator, device=generator.device) * std + mean).sigmoid()
        case "uniform":
            t = torch.rand(count, generator=generator, device=generator.device)
        case _:
            raise UserError(f"time distribution '{distribution}': choose logit_normal or uniform")
    return shift_time(t, shift)


def at_time(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t for (B, C, H, W) data and noise and (B,) t."""
    t = t[:, None, None, None]
    return (1 - t) * data + t * noise


def velocity(x_t: Tensor, output: Tensor, t: Tensor, prediction: Prediction, t_min: float) -> Tensor:
    """(B, C, H, W) velocity noise - data that a model's output stands for.

    data: (x_t - output) / max(t, t_min) (released `transport.py:219-228`); velocity: the output itself, `t_min` unused. Raises UserError
    for another prediction.
    """
    match prediction:
        case "data":
            return (x_t - output) / t[:, None, None, None].clamp(min=t_min)
        case "velocity":
            return output
        case _:
            raise UserError(f"prediction '{prediction}': choose data or velocity")


def clean_of(x_t: Tensor, output: Tensor, t: Tensor, prediction: Prediction, t_min: float) -> Tensor:
    """(B, C, H, W) data that a model's output stands for: where its velocity leads from x_t in a straight line."""
    return x_t - t[:, None, None, None] * velocity(x_t, output, t, prediction, t_min)


def flow_loss(data: Tensor, noise: Tensor, t: Tensor, output: Tensor, prediction: Prediction, t_min: float) -> Tensor:
    """(B, C, H, W) squared error of the velocity against noise - data; `output` is the model's at `at_time(data, noise, t)`."""
    return (velocity(at_time(data, noise, t), output, t, prediction, t_min) - (noise - data)).square()
