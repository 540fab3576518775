"""Section `sampling`, and what samplers there are.

A new sampler: its facts in SAMPLERS here, its integrator in harness/denoiser/samplers.py, named in harness/denoiser/registry.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.study.sections.asset import Asset, Weights
from harness.study.sections.denoiser import ARCHITECTURES, Shape
from harness.study.sections.pixels import EightBit
from harness.study.typed import Count, Decay, Interval, OneOf, Positive, Share, Strict, name_in


@dataclass(frozen=True)
class SamplerFacts:
    """What tables say of a sampler, and what it costs."""

    title: str
    nfe: Callable[[int], int]  # steps -> evaluations of the velocity
    sde: bool = False  # it draws noise, and ends at the data
    holds: bool = False  # guidance can be held through the evaluations of a step


SAMPLERS = {
    "euler": SamplerFacts("Euler", lambda steps: steps),
    "heun": SamplerFacts("Heun", lambda steps: 2 * steps - 1, holds=True),  # two a step, and one in the last
    "euler_maruyama": SamplerFacts("Euler-Maruyama (SDE)", lambda steps: steps, sde=True),
}


Closed = Literal["both", "low", "high", "neither"]  # ends of an interval


class Weak(Shape):
    """The weaker model of autoguidance. In a study it has its architecture's own fields, too."""

    weights: Weights
    classes: Asset | None = None  # its classes in the order of its labels, a line each; None: only their number is checked


class Guidance(Strict):
    """Classifier-free guidance, or autoguidance where a weaker model is given; inside `interval` of t only."""

    scale: Annotated[float, Field(ge=1)] = 1.0  # 1 = off
    interval: Interval = (0.0, 1.0)
    closed: Closed = "both"  # the ends that belong to the interval
    held: bool = False  # all evaluations of a step are guided, or none, by the time of its first (REPA's Heun); else each by its own
    channels: Count | None = None  # the first of the latent, which alone are guided; None: all
    weak: Annotated[Weak, OneOf(ARCHITECTURES, "architecture", Weak)] | None = None

    @property
    def text(self) -> str:
        """`none`, or kind, scale and interval."""
        if self.scale == 1:
            return "none"
        low, high = self.interval
        left, right = "[" if self.closed in ("both", "low") else "(", "]" if self.closed in ("both", "high") else ")"
        interval = "" if (low, high, self.closed) == (0.0, 1.0, "both") else f" for t in {left}{low:g}, {high:g}{right}"
        held = ", by the start of a step" * self.held
        channels = f", channels 1 to {self.channels} alone" if self.channels else ""
        return f"{'autoguidance' if self.weak else 'classifier-free'}, scale {self.scale:g}{interval}{held}{channels}"

    @model_validator(mode="after")
    def _holds_times(self) -> "Guidance":
        low, high = self.interval
        if low > high or (low == high and self.closed != "both"):
            ends = "" if self.closed == "both" else f" with closed: {self.closed}"
            raise ValueError(f"guidance.interval: {low:g} to {high:g}{ends} holds no time; t = 0 is data, t = 1 noise")
        return self


class GuidanceSearch(Strict):
    """Candidates of guidance, of which each method takes the one with the lowest FID, with a denoiser of a seed that is scored nowhere."""

    scales: Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=1)]
    intervals: Annotated[list[Interval], Field(min_length=1)] = Field(default=[(0.0, 1.0)])
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of the denoiser and of the noise
    count: Count  # samples of each

    @property
    def candidates(self) -> list[tuple[float, Interval]]:
        """(scale, interval) of every candidate; the first is no guidance."""
        return [(1.0, (0.0, 1.0)), *((scale, interval) for scale in self.scales if scale > 1 for interval in self.intervals)]

    @model_validator(mode="after")
    def _differ(self) -> "GuidanceSearch":
        if len(set(self.candidates)) < len(self.candidates) or len(self.candidates) < 2:
            raise ValueError("guidance_search needs at least one scale above 1, and names no scale or interval twice")
        for low, high in self.intervals:
            if low >= high:
                raise ValueError(f"guidance_search.intervals: {low:g} to {high:g} holds no time")
        return self


class Sampling(Strict):
    count: Count  # per run
    batch: Count
    sampler: Annotated[str, name_in(SAMPLERS)] = "euler"
    grid_points: Annotated[int, Field(ge=3)]  # 50 are 49 Euler steps
    time_shift: Positive | None = None  # None: denoiser.time_shift
    last_time: Annotated[float, Field(ge=0, lt=1)] | None = None  # before the shift; None: 0, of a velocity prediction's ODE 0.001
    last_step: Share | None = None  # before the shift, to t = 0; an SDE's after it, 0.04 by default; None: steps are even
    state: Literal["fp32", "fp64"] = "fp32"  # that is integrated; the model computes in `precision`
    guidance: Guidance = Guidance()
    guidance_search: GuidanceSearch | None = None
    labels: Literal["equal", "random"] = "equal"
    ema: Decay | None = None  # which of denoiser.ema; None: the first
    averages: list[Decay] = Field(default=[])  # further ones of denoiser.ema that are sampled, for FID alone
    precision: Literal["fp32", "bf16"] = "fp32"
    eight_bit: EightBit = "rounded"  # of samples, reconstructions and decoded predictions

    @property
    def nfe(self) -> int:
        """Evaluations of the velocity for one sample. One under guidance calls two networks."""
        return SAMPLERS[self.sampler].nfe(self.grid_points - 1)

    @property
    def title(self) -> str:
        """Of its sampler, with what differs from that sampler's defaults."""
        own = {"time shift": self.time_shift, "last step": self.last_step, "down to t =": self.last_time}
        told = [f"{name} {value:g}" for name, value in own.items() if value is not None] + ["state in fp64"] * (self.state == "fp64")
        return ", ".join([SAMPLERS[self.sampler].title, *told])

    @model_validator(mode="after")
    def _times_fit(self) -> "Sampling":
        if self.last_time is not None and SAMPLERS[self.sampler].sde:
            raise ValueError(f"sampling.last_time: {self.sampler} ends at t = 0; leave it out, or set last_step")
        if self.guidance.held and not SAMPLERS[self.sampler].holds:
            raise ValueError(f"sampling.guidance.held: {self.sampler} evaluates once a step; leave it out")
        if self.last_time and self.last_step:
            raise ValueError("sampling.last_time: a grid with a last_step ends at t = 0; leave one of the two out")
        return self
