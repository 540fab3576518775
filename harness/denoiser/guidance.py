"""Guidance of a model's output: classifier-free, or away from a weaker model. Batches are (B, C, H, W)."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.denoiser.samplers import Field
from harness.study.sections.sampling import Closed
from harness.study.typed import UserError

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x (B, C, H, W), t (B,), labels (B,)) -> (B, C, H, W)

ROUNDING = 1e-6  # a shifted float32 time misses its exact value by a few units of 1e-7: shift_time(1) may exceed 1


def classifier_free(
    model: Model,
    labels: Tensor,
    null_label: int,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    *,
    closed: Closed = "both",
    channels: int | None = None,
) -> Field:
    """(x, t) -> free + scale (given - free), where t lies in the interval, else the conditional output `given` alone.

    labels (B,) integers; t (B,) must be one time for the whole batch. A velocity is affine in the output and the two weights sum to one, so
    that guiding outputs or velocities is the same up to rounding. `closed`: which ends of the interval belong to it (to 1e-6).
    `channels`: the first, which alone are guided, the others being those of `given` (SiT's `forward_with_cfg`: 3). Scale 1
    never computes the unconditional half. These are the semantics of the released DDT head and of Kynkaanniemi et al. 2024; the released
    LightningDiT takes the same pair but reads it as a list of pairs (`lightningDiT.py:343-346`: TypeError), and would apply the scale
    outside of them. Raises UserError for an interval that is not 0 <= low <= high <= 1.
    """
    low, high = bounds(interval, closed)
    null = torch.full_like(labels, null_label)

    def output(x: Tensor, t: Tensor) -> Tensor:
        if scale == 1 or not low <= t[0].item() <= high:
            return model(x, t, labels)
        given, free = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null])).chunk(2)
        return _extrapolated(free, given, scale, channels)

    return output


def autoguidance(
    model: Model,
    weak_model: Model,
    labels: Tensor,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    *,
    closed: Closed = "both",
    channels: int | None = None,
) -> Field:
    """(x, t) -> weak + scale (strong - weak), both conditional, of a model and a worse one of the same task (Karras et al. 2024).

    Labels, interval, its ends, channels, scale 1 and errors as in `classifier_free`.
    """
    low, high = bounds(interval, closed)

    def output(x: Tensor, t: Tensor) -> Tensor:
        strong = model(x, t, labels)
        if scale == 1 or not low <= t[0].item() <= high:
            return strong
        weak = weak_model(x, t, labels)
        return _extrapolated(weak, strong, scale, channels)

    return output


def _extrapolated(weak: Tensor, strong: Tensor, scale: float, channels: int | None) -> Tensor:
    guided = weak + scale * (strong - weak)
    return guided if channels is None else torch.cat([guided[:, :channels], strong[:, channels:]], dim=1)


def bounds(interval: tuple[float, float], closed: Closed = "both") -> tuple[float, float]:
    """(low, high), both inclusive, of the interval: wider by the rounding of a time at an end that belongs to it, else narrower.

    UserError where it is not 0 <= low <= high <= 1.
    """
    try:
        low, high = map(float, interval)
    except (TypeError, ValueError):
        raise UserError(f"guidance interval {interval}: must be one pair of times, low and high") from None
    if not 0 <= low <= high <= 1:
        raise UserError(f"guidance interval {interval}: must be 0 <= low <= high <= 1; t = 0 is data, t = 1 noise")
    return (
        low - ROUNDING if closed in ("both", "low") else low + ROUNDING,
        high + ROUNDING if closed in ("both", "high") else high - ROUNDING,
    )
