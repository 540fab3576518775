"""Section `denoiser`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.study.method import DiffusionRegisters
from harness.study.sections.asset import Decay
from harness.study.sections.training import Training
from harness.study.typed import Count, Positive, Share, Strict


class Head(Strict):
    """The wide head of DiT^DH."""

    width: Count
    depth: Count
    heads: Count


class Shape(Strict):
    """Architecture and size of a denoiser."""

    architecture: Literal["lightningdit", "ditdh", "sit", "jit"]
    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive
    patch: Count = 1
    head: Head | None = None
    in_context: Annotated[int, Field(ge=0)] | None = None  # tokens of JiT's own, beside any registers; None: its 32

    @model_validator(mode="after")
    def _shape(self) -> "Shape":
        if self.width % (4 * self.heads):
            raise ValueError(f"denoiser.width {self.width} is not a multiple of 4 x heads {self.heads}")
        if (self.head is not None) != (self.architecture == "ditdh"):
            raise ValueError("denoiser.head belongs to architecture ditdh, and ditdh needs it")
        if self.in_context is not None and self.architecture != "jit":
            raise ValueError("denoiser.in_context belongs to architecture jit")
        if self.head and self.head.width % (4 * self.head.heads):
            raise ValueError(f"denoiser.head.width {self.head.width} is not a multiple of 4 x heads {self.head.heads}")
        return self


class Denoiser(Shape):
    registers: DiffusionRegisters  # for the methods that have them
    prediction: Literal["data", "velocity"] = "data"
    time: Literal["logit_normal", "uniform"] = "logit_normal"
    time_mean: float = 0.0  # of the logit-normal, before the shift
    time_std: Positive = 1.0
    time_shift: Positive | Literal["latent"]  # latent: sqrt(values of a latent / 4096) (released train.py:152-154)
    t_min: Share  # an x-prediction's velocity divides by max(t, t_min)
    noise_scale: Positive = 1.0  # standard deviation of the noise
    class_dropout: Decay
    ema: Annotated[list[Decay], Field(min_length=1)]  # decays; one set of weights is kept for each
    ema_warm_up: bool = True  # (1 + n) / (10 + n), TensorFlow's and score-SDE's; the released code has none
    training: Training
    snapshots: list[Positive] = Field(default=[])  # earlier ends to keep, sample and score too; in steps or epochs, as training's length

    @model_validator(mode="after")
    def _registers_fit(self) -> "Denoiser":
        if self.registers.start >= self.depth:
            raise ValueError(f"registers.start {self.registers.start} is beyond the last of {self.depth} blocks")
        if len(set(self.ema)) != len(self.ema):
            raise ValueError("denoiser.ema names a decay twice")
        return self

    @model_validator(mode="after")
    def _snapshots_fit(self) -> "Denoiser":
        unit = "epochs" if self.training.steps is None else "steps"
        rising = [*self.snapshots, getattr(self.training, unit)]
        if any(later <= earlier for earlier, later in pairwise(rising)):
            raise ValueError(f"denoiser.snapshots must rise, and end before the training's {rising[-1]:g} {unit}; got {self.snapshots}")
        if unit == "steps" and any(step % 1 for step in self.snapshots):
            raise ValueError(f"denoiser.snapshots are steps here, as the training's length is: whole numbers; got {self.snapshots}")
        return self
