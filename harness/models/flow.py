"""Flow matching on the linear path x_t = (1 - t) data + t noise: t = 0 is data, t = 1 is noise (released src/stage2/transport)."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


def shift_time(t: Tensor, shift: float) -> Tensor:
    """t -> s t / (1 + (s - 1) t): more time near the noise for shift > 1 (released `transport.py:186`)."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal_time(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """(count,) times in (0, 1): sigmoid of a standard normal, then shifted."""
    return shift_time(torch.randn(count, generator=generator).sigmoid(), shift)


def at_time(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t for (B, C, H, W) data and noise and (B,) t."""
    t = t[:, None, None, None]
    return (1 - t) * data + t * noise


def velocity(x_t: Tensor, prediction: Tensor, t: Tensor, t_min: float) -> Tensor:
    """Velocity noise - data that an x-prediction implies; t is clamped from below (released `transport.py:219-228`)."""
    return (x_t - prediction) / t[:, None, None, None].clamp(min=t_min)


def v_loss(data: Tensor, noise: Tensor, t: Tensor, prediction: Tensor, t_min: float) -> Tensor:
    """(B, C, H, W) squared error of the velocity of an x-prediction."""
    return (velocity(at_time(data, noise, t), prediction, t, t_min) - (noise - data)).square()


def euler_grid(points: int, shift: float) -> Tensor:
    """(points,) times from 1 to 0, evenly spaced before the shift; `points - 1` evaluations."""
    return shift_time(1 - torch.linspace(0, 1, points), shift)


@torch.no_grad()
def euler(denoise: Callable[[Tensor, Tensor], Tensor], noise: Tensor, grid: Tensor, t_min: float) -> Tensor:
    """Integrate the ODE from `noise` along `grid`. denoise(x_t, t (B,)) -> x-prediction. Returns (B, C, H, W)."""
    x = noise
    for now, then in itertools.pairwise(grid):
        t = now.expand(len(x))
        x = x + (then - now) * velocity(x, denoise(x, t), t, t_min)
    return x
