"""From noise (t = 1) to data (t = 0): time grids, integrators of the flow, and guidance of the model's output.

Batches are (B, C, H, W); a grid is one decreasing sequence of times for the whole batch. An element's result does not depend on the others.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from harness.denoiser.flow import Prediction, shift_time
from harness.study.typed import UserError

Field = Callable[[Tensor, Tensor], Tensor]  # (x (B, C, H, W), t (B,)) -> (B, C, H, W)
Sampler = Literal["euler", "heun", "euler_maruyama"]
Diffusion = Literal["sigma", "increasing_decreasing"]

ROUNDING = 1e-6  # a shifted float32 time misses its exact value by a few units of 1e-7: shift_time(1) may exceed 1


# ------------------------------------------------------------------------------------------------------------------ grids


def time_grid(points: int, shift: float, prediction: Prediction, end: float | None = None) -> Tensor:
    """(points,) float32 times on the CPU, evenly spaced from 1 to 1 - end before the shift.

    end: by default 1 for a data prediction, and 0.999 for a velocity one, whose state there is the sample (released
    `Transport.check_interval`). Raises UserError for fewer than 2 points or an end outside (0, 1].
    """
    if end is None:
        end = 1.0 if prediction == "data" else 0.999
    if points < 2 or not 0 < end <= 1:
        raise UserError(f"a time grid needs at least 2 points and an end in (0, 1], got {points} and {end}")
    return shift_time(1 - torch.linspace(0, end, points), shift)


def sde_grid(points: int, shift: float, last_step: float = 0.04) -> Tensor:
    """(points,) float32 times on the CPU: from 1 to `last_step`, evenly spaced before the shift, then 0, for either prediction.

    At shift 1 SiT's grid for `sample_sde(num_steps=points - 1, last_step_size=last_step)`. The released code shifts the times but neither
    the time nor the size of the last step, and so stops short of the data where shift > 1; here `last_step` is a time after the shift.
    Raises UserError for fewer than 3 points or a last step outside (0, 1).
    """
    if points < 3 or not 0 < last_step < 1:
        raise UserError(f"an SDE's time grid needs at least 3 points and a last step in (0, 1), got {points} and {last_step}")
    before_shift = last_step / (shift - (shift - 1) * last_step)
    return torch.cat([time_grid(points - 1, shift, "data", end=1 - before_shift), torch.zeros(1)])


# ------------------------------------------------------------------------------------------------------------ integrators


@torch.no_grad()
def euler(velocity_at: Field, noise: Tensor, grid: Tensor) -> Tensor:
    """State at the grid's end of the ODE dx/dt = velocity_at(x, t), from `noise`: one evaluation a step, order 1."""
    x = noise
    for now, then in itertools.pairwise(grid.to(noise.device)):
        x = x + (then - now) * velocity_at(x, now.expand(len(x)))
    return x


@torch.no_grad()
def heun(velocity_at: Field, noise: Tensor, grid: Tensor) -> Tensor:
    """As `euler`, with the mean of the velocities at both ends of a step: two evaluations a step, order 2.

    The last step is Euler's, as in EDM (Karras et al. 2022, algorithm 1): at t = 0 a data prediction has no velocity.
    """
    x, times = noise, grid.to(noise.device)
    for now, then in itertools.pairwise(times[:-1]):
        first = velocity_at(x, now.expand(len(x)))
        second = velocity_at(x + (then - now) * first, then.expand(len(x)))
        x = x + (then - now) * (first + second) / 2
    return euler(velocity_at, x, times[-2:])


DIFFUSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigma": lambda t: t,
    "increasing_decreasing": lambda t: (torch.pi * t).sin().square(),
}


@torch.no_grad()
def euler_maruyama(
    velocity_at: Field, noise: Tensor, grid: Tensor, *, noise_at: Callable[[int], Tensor], diffusion: Diffusion = "sigma"
) -> Tensor:
    """Sample at the grid's end of SiT's SDE (Ma et al. 2024), which has the ODE's marginals: one evaluation a step.

    Towards t = 0: dx = -(velocity - D(t) score) dt + sqrt(2 D(t)) dW, with score = -(x + (1 - t) velocity) / t, which follows from
    E[noise | x] = x + (1 - t) velocity on the linear path. The last step is its mean, without noise (SiT's `last_step="Mean"`), and leaves
    about D(t) of the noise in the sample, t being the last but one of the grid: end a grid in small steps, or take `sde_grid`.
    noise_at(step) is (B, C, H, W) for step = 0 ... points - 3, of the same standard deviation as `noise`; where that is not 1 the marginals
    still hold. D is SiT's `compute_diffusion`, half its paper's w: t for sigma, sin(pi t)^2 for increasing_decreasing. Left out: SBDM,
    t / (1 - t), is infinite at t = 1, and constant, 1, diverges near t = 0. Raises UserError for another diffusion.
    """
    if diffusion not in DIFFUSIONS:
        raise UserError(f"diffusion '{diffusion}': choose one of {', '.join(DIFFUSIONS)}")
    x = noise
    steps = list(itertools.pairwise(grid.to(noise.device)))
    for step, (now, then) in enumerate(steps):
        strength = DIFFUSIONS[diffusion](now)
        v = velocity_at(x, now.expand(len(x)))
        score = -(x + (1 - now) * v) / now
        x = x + (then - now) * (v - strength * score)
        if step < len(steps) - 1:
            x = x + (2 * strength * (now - then)).sqrt() * noise_at(step).to(x)
    return x


def integrate(
    sampler: Sampler,
    velocity_at: Field,
    noise: Tensor,
    grid: Tensor,
    *,
    noise_at: Callable[[int], Tensor],
    diffusion: Diffusion = "sigma",
) -> Tensor:
    """(B, C, H, W) sample of the named integrator; `noise_at` and `diffusion` are euler_maruyama's. Raises UserError for another name."""
    match sampler:
        case "euler":
            return euler(velocity_at, noise, grid)
        case "heun":
            return heun(velocity_at, noise, grid)
        case "euler_maruyama":
            return euler_maruyama(velocity_at, noise, grid, noise_at=noise_at, diffusion=diffusion)
    raise UserError(f"sampler '{sampler}': choose euler, heun or euler_maruyama")


# --------------------------------------------------------------------------------------------------------------- guidance


def classifier_free(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    null_label: int,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Field:
    """(x, t) -> free + scale (given - free), where t lies in the interval, else the conditional output `given` alone.

    labels (B,) integers; t (B,) must be one time for the whole batch. A velocity is affine in the output and the two weights sum to one, so
    that guiding outputs or velocities is the same up to rounding. Both ends of the interval belong to it (to 1e-6). Scale 1 never
    computes the unconditional half. These are the semantics of the released DDT head and of Kynkaanniemi et al. 2024; the released
    LightningDiT takes the same pair but reads it as a list of pairs (`lightningDiT.py:343-346`: TypeError), and would apply the scale
    outside of them. Raises UserError for an interval that is not 0 <= low <= high <= 1.
    """
    low, high = _checked(interval)
    null = torch.full_like(labels, null_label)

    def output(x: Tensor, t: Tensor) -> Tensor:
        if scale == 1 or not low <= t[0].item() <= high:
            return model(x, t, labels)
        given, free = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null])).chunk(2)
        return free + scale * (given - free)

    return output


def autoguidance(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    weak_model: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Field:
    """(x, t) -> weak + scale (strong - weak), both conditional, of a model and a worse one of the same task (Karras et al. 2024).

    Labels, interval, scale 1 and errors as in `classifier_free`.
    """
    low, high = _checked(interval)

    def output(x: Tensor, t: Tensor) -> Tensor:
        strong = model(x, t, labels)
        if scale == 1 or not low <= t[0].item() <= high:
            return strong
        weak = weak_model(x, t, labels)
        return weak + scale * (strong - weak)

    return output


def _checked(interval: tuple[float, float]) -> tuple[float, float]:
    """The interval, wider by the rounding of a time at either end."""
    try:
        low, high = map(float, interval)
    except (TypeError, ValueError):
        raise UserError(f"guidance interval {interval}: must be one pair of times, low and high") from None
    if not 0 <= low <= high <= 1:
        raise UserError(f"guidance interval {interval}: must be 0 <= low <= high <= 1; t = 0 is data, t = 1 noise")
    return low - ROUNDING, high + ROUNDING
