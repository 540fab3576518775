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
from harness.study.typed import Count, Decay, Interval, OneOf, Strict, name_in


@dataclass(frozen=True)
class SamplerFacts:
    """What tables say of a sampler, and what it costs."""

    title: str
    nfe: Callable[[int], int]  # steps -> evaluations of the velocity


SAMPLERS = {
    "euler": SamplerFacts("Euler", lambda steps: steps),
    "heun": SamplerFacts("Heun", lambda steps: 2 * steps - 1),  # two a step, and one in the last
    "euler_maruyama": SamplerFacts("Euler-Maruyama (SDE)", lambda steps: steps),
}


class Weak(Shape):
    """The weaker model of autoguidance. In a study it has its architecture's own fields, too."""

    weights: Weights
    classes: Asset | None = None  # its classes in the order of its labels, a line each; None: only their number is checked


class Guidance(Strict):
    """Classifier-free guidance, or autoguidance where a weaker model is given; inside `interval` of t only."""

    scale: Annotated[float, Field(ge=1)] = 1.0  # 1 = off
    interval: Interval = (0.0, 1.0)
    weak: Annotated[Weak, OneOf(ARCHITECTURES, "architecture", Weak)] | None = None

    @property
    def text(self) -> str:
        """`none`, or kind, scale and interval."""
        if self.scale == 1:
            return "none"
        interval = "" if self.interval == (0.0, 1.0) else f" for t in [{self.interval[0]:g}, {self.interval[1]:g}]"
        return f"{'autoguidance' if self.weak else 'classifier-free'}, scale {self.scale:g}{interval}"


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
        """Of its sampler."""
        return SAMPLERS[self.sampler].title
