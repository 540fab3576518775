"""From noise (t = 1) to data (t = 0): the times of the steps, and integrators of the flow.

Batches are (B, C, H, W); times are one decreasing sequence (points,) for the whole batch. An element's result does not depend on the
others.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.denoiser.flow import PREDICTIONS, shift_time
from harness.study.typed import UserError

Field = Callable[[Tensor, Tensor], Tensor]  # (x (B, C, H, W), t (B,)) -> (B, C, H, W)
NoiseAt = Callable[[int], Tensor]  # step -> (B, C, H, W), of the same standard deviation as the first noise
Diffusion = Literal["sigma", "increasing_decreasing"]


@dataclass(frozen=True)
class Sampler:
    """`times`: (points, shift, prediction) and, where a study sets them, end, last_step and dtype as keywords -> (points,).

    `integrate`: (velocity, noise (B, C, H, W), times, noise_at) -> (B, C, H, W), in the noise's precision; `second_at` as a keyword where
    guidance is held through a step.
    """

    times: Callable[..., Tensor]
    integrate: Callable[..., Tensor]


# ------------------------------------------------------------------------------------------------------------------ times


def ode_times(
    points: int,
    shift: float,
    prediction: str,
    end: float | None = None,
    *,
    last_step: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(points,) times on the CPU, evenly spaced from 1 to 1 - end before the shift; or from 1 to `last_step`, then 0 (MCG-NJU/DDT).

    end: by default that of the prediction. Raises UserError for fewer than 2 points (3 with a last step), an end outside (0, 1] or a last
    step outside (0, 1).
    """
    if last_step is not None:
        if points < 3 or not 0 < last_step < 1:
            raise UserError(f"the times of a sampler need at least 3 points and a last step in (0, 1), got {points} and {last_step}")
        return torch.cat([ode_times(points - 1, shift, prediction, end=1 - last_step, dtype=dtype), torch.zeros(1, dtype=dtype)])
    if end is None:
        end = PREDICTIONS[prediction].end
    if points < 2 or not 0 < end <= 1:
        raise UserError(f"the times of a sampler need at least 2 points and an end in (0, 1], got {points} and {end}")
    return shift_time(1 - torch.linspace(0, end, points, dtype=dtype), shift)


def sde_times(
    points: int, shift: float, _prediction: str | None = None, *, last_step: float = 0.04, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(points,) times on the CPU: from 1 to `last_step`, evenly spaced before the shift, then 0, for either prediction.

    At shift 1 SiT's for `sample_sde(num_steps=points - 1, last_step_size=last_step)`. The released code shifts the times but neither
    the time nor the size of the last step, and so stops short of the data where shift > 1; here `last_step` is a time after the shift.
    Raises UserError for fewer than 3 points or a last step outside (0, 1).
    """
    if points < 3 or not 0 < last_step < 1:
        raise UserError(f"the times of an SDE need at least 3 points and a last step in (0, 1), got {points} and {last_step}")
    before_shift = last_step / (shift - (shift - 1) * last_step)
    return torch.cat([ode_times(points - 1, shift, "data", end=1 - before_shift, dtype=dtype), torch.zeros(1, dtype=dtype)])


# ------------------------------------------------------------------------------------------------------------ integrators


@torch.no_grad()
def euler(velocity_at: Field, noise: Tensor, times: Tensor, _noise_at: NoiseAt | None = None) -> Tensor:
    """State (B, C, H, W) at the last time of dx/dt = velocity_at(x, t), from `noise` at the first: one evaluation a step, order 1."""
    x = noise
    for now, then in itertools.pairwise(times.to(noise.device)):
        x = x + (then - now) * velocity_at(x, now.expand(len(x)))
    return x


@torch.no_grad()
def heun(
    velocity_at: Field,
    noise: Tensor,
    times: Tensor,
    _noise_at: NoiseAt | None = None,
    *,
    second_at: Callable[[Tensor], Field] | None = None,
) -> Tensor:
    """As `euler`, with the mean of the velocities at both ends of a step: two evaluations a step, order 2.

    The last step is Euler's, as in EDM (Karras et al. 2022, algorithm 1): at t = 0 a data prediction has no velocity. `second_at`: the
    field of a step's second evaluation, by the time () of its first; None: `velocity_at`.
    """
    x, times = noise, times.to(noise.device)
    for now, then in itertools.pairwise(times[:-1]):
        first = velocity_at(x, now.expand(len(x)))
        field = second_at(now) if second_at else velocity_at
        second = field(x + (then - now) * first, then.expand(len(x)))
        x = x + (then - now) * (first + second) / 2
    return euler(velocity_at, x, times[-2:])


DIFFUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma": lambda t: t,
    "increasing_decreasing": lambda t: (torch.pi * t).sin().square(),
}


@torch.no_grad()
def euler_maruyama(velocity_at: Field, noise: Tensor, times: Tensor, noise_at: NoiseAt, diffusion: Diffusion = "sigma") -> Tensor:
    """Sample (B, C, H, W) at the last time of SiT's SDE (Ma et al. 2024), which has the ODE's marginals: one evaluation a step.

    Towards t = 0: dx = -(velocity - D(t) score) dt + sqrt(2 D(t)) dW, with score = -(x + (1 - t) velocity) / t, which follows from
    E[noise | x] = x + (1 - t) velocity on the linear path. The last step is its mean, without noise (SiT's `last_step="Mean"`), and leaves
    about D(t) of the noise in the sample, t being the last time but one: end in small steps, or take `sde_times`.
    noise_at(step) is (B, C, H, W) for step = 0 ... points - 3, of the same standard deviation as `noise`; where that is not 1 the marginals
    still hold. D is SiT's `compute_diffusion`, half its paper's w: t for sigma, sin(pi t)^2 for increasing_decreasing. Left out: SBDM,
    t / (1 - t), is infinite at t = 1, and constant, 1, diverges near t = 0. Raises UserError for another diffusion.
    """
    if diffusion not in DIFFUSIONS:
        raise UserError(f"diffusion '{diffusion}': choose one of {', '.join(DIFFUSIONS)}")
    x = noise
    steps = list(itertools.pairwise(times.to(noise.device)))
    for step, (now, then) in enumerate(steps):
        strength = DIFFUSIONS[diffusion](now)
        v = velocity_at(x, now.expand(len(x)))
        score = -(x + (1 - now) * v) / now
        x = x + (then - now) * (v - strength * score)
        if step < len(steps) - 1:
            x = x + (2 * strength * (now - then)).sqrt() * noise_at(step).to(x)
    return x
