"""Flow matching on the linear path x_t = (1 - t) data + t noise: t = 0 is data, t = 1 is noise (released src/stage2/transport).

Batches are (B, C, H, W) with one t per element, (B,), unless a docstring says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_time(t: Tensor, shift: float) -> Tensor:
    """t -> s t / (1 + (s - 1) t): more time near the noise for shift > 1 (released `transport.py:186`)."""
    return shift * t / (1 + (shift - 1) * t)


def logit_normal(count: int, generator: torch.Generator, mean: float, std: float) -> Tensor:
    """(count,) sigmoids of a normal with `mean` and `std`."""
    return (torch.randn(count, generator=generator, device=generator.device) * std + mean).sigmoid()


def uniform(count: int, generator: torch.Generator, _mean: float, _std: float) -> Tensor:
    """(count,) in [0, 1)."""
    return torch.rand(count, generator=generator, device=generator.device)


TIMES = {"logit_normal": logit_normal, "uniform": uniform}  # what `denoiser.time` of a study may be


def sample_time(count: int, distribution: str, shift: float, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """(count,) training times in [0, 1], shifted, on the generator's device, of a distribution in TIMES.

    The released code cuts the times of a velocity model at 0.999 before the shift (`Transport.check_interval`); this does not.
    """
    return shift_time(TIMES[distribution](count, generator, mean, std), shift)


def at_time(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t for (B, C, H, W) data and noise and (B,) t."""
    t = t[:, None, None, None]
    return (1 - t) * data + t * noise


@dataclass(frozen=True)
class Prediction:
    """What a model's output stands for.

    `velocity`: (x_t (B, C, H, W), output (B, C, H, W), t (B, 1, 1, 1), t_min) -> the velocity noise - data (B, C, H, W). `end`: 1 - the
    last time, before the shift, at which it is sampled from.
    """

    velocity: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    end: float


PREDICTIONS = {  # what `denoiser.prediction` of a study may be
    "data": Prediction(lambda x_t, output, t, t_min: (x_t - output) / t.clamp(min=t_min), end=1.0),  # released `transport.py:219-228`
    "velocity": Prediction(lambda _x_t, output, _t, _t_min: output, end=0.999),  # there the state is the sample (`check_interval`)
}


def velocity(x_t: Tensor, output: Tensor, t: Tensor, prediction: str, t_min: float) -> Tensor:
    """(B, C, H, W) velocity noise - data that a model's output at (B,) t stands for; a division by t is one by max(t, t_min)."""
    return PREDICTIONS[prediction].velocity(x_t, output, t[:, None, None, None], t_min)


def clean_of(x_t: Tensor, output: Tensor, t: Tensor, prediction: str, t_min: float) -> Tensor:
    """(B, C, H, W) data that a model's output stands for: where its velocity leads from x_t in a straight line."""
    return x_t - t[:, None, None, None] * velocity(x_t, output, t, prediction, t_min)


def flow_loss(
    data: Tensor, noise: Tensor, t: Tensor, output: Tensor, prediction: str, t_min: float, *, clamp_target: bool = False
) -> Tensor:
    """(B, C, H, W) squared error of the velocity against noise - data; `output` is the model's at `at_time(data, noise, t)`.

    `clamp_target`: against (x_t - data) / max(t, t_min), which below t_min is t / t_min times that (LTH14/JiT `denoiser.py`).
    """
    x_t = at_time(data, noise, t)
    target = velocity(x_t, data, t, "data", t_min) if clamp_target else noise - data
    return (velocity(x_t, output, t, prediction, t_min) - target).square()


def cosine_loss(data: Tensor, noise: Tensor, t: Tensor, output: Tensor, prediction: str, t_min: float) -> Tensor:
    """(B, 1, H, W): 1 - the cosine, over channels, between the velocity and noise - data (hustvl/LightningDiT `transport.py`)."""
    given = velocity(at_time(data, noise, t), output, t, prediction, t_min)
    return 1 - F.cosine_similarity(given, noise - data, dim=1)[:, None]
