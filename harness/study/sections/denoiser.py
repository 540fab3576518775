"""Section `denoiser`, and what architectures it comes in.

A new architecture: its shape here, registered in ARCHITECTURES, and its network, registered in harness/denoiser/registry.py.
"""

import math
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness.study.method import DiffusionRegisters
from harness.study.sections.released import Released
from harness.study.sections.training import Training
from harness.study.typed import Count, Decay, Positive, Share, Strict


class Shape(Strict):
    """Architecture and size of a denoiser. A subclass for each architecture has the fields that are its alone."""

    title: ClassVar[str]  # in plans
    rotary: ClassVar[bool] = True  # whether rotary tables take a fourth of each head's width
    published_prediction: ClassVar[Literal["data", "velocity"] | None] = None  # what published weights predict; None: either

    architecture: str
    width: Count
    depth: Count
    heads: Count
    mlp_ratio: Positive
    patch: Count = 1

    @property
    def text(self) -> str:
        """Title, width, depth, heads."""
        return f"{self.title} {self.width}/{self.depth}/{self.heads}"

    @property
    def blocks(self) -> list[str]:
        """Names of all blocks, in the order in which tokens pass them."""
        return [f"block {block}" for block in range(self.depth)]

    @property
    def given_states(self) -> tuple[int, int] | None:
        """(positions, width) of a text encoder's states of each prompt, which come with imported weights; None where it reads none."""
        return None

    def check(self, *, prompts: bool) -> None:
        """ValueError where the architecture takes no labels of this kind: prompts or classes."""

    def check_prediction(self, prediction: str) -> None:
        """ValueError where what published weights give would be read as another `prediction`: names and shapes would fit."""
        published = self.published_prediction
        if published not in (None, prediction):
            raise ValueError(
                f"published weights of {self.title} predict the {published}, which the study would read as the {prediction}; "
                f"say denoiser.prediction: {published} there"
            )

    @model_validator(mode="after")
    def _heads_fit(self) -> "Shape":
        if self.width % (4 * self.heads) if self.rotary else self.width % self.heads or self.width % 4:
            rule = f"4 x heads {self.heads}" if self.rotary else f"4 and of heads {self.heads}"
            raise ValueError(f"width {self.width} is not a multiple of {rule}")
        return self


class LightningDiTShape(Shape):
    title = "LightningDiT"


class WideHead(Strict):
    """The wide head of DiT^DH, and of diffusion-bench's DDT."""

    width: Count
    depth: Count
    heads: Count

    @model_validator(mode="after")
    def _heads_fit(self) -> "WideHead":
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 4 x heads {self.heads}")
        return self


class Headed(Shape):
    """An encoder of `depth` blocks that conditions a wide head."""

    head: WideHead

    @property
    def text(self) -> str:
        return f"{super().text} + head {self.head.width}/{self.head.depth}/{self.head.heads}"

    @property
    def blocks(self) -> list[str]:
        """Those of the head, which follow the others, are counted anew."""
        return [*super().blocks, *(f"head {block}" for block in range(self.head.depth))]


class DiTDHShape(Headed):
    title = "DiT^DH"


class SiTShape(Shape):
    title = "SiT"
    published_prediction = "velocity"
    rotary = False

    learn_sigma: bool = True  # twice the channels, of which the second half is dropped; the published XL has it


class JiTShape(Shape):
    title = "JiT"
    published_prediction = "data"

    in_context: Annotated[int, Field(ge=0)] = 32  # tokens of its own, beside any registers
    dropout: Decay = 0.0  # in training, in the middle half of the blocks; JiT-H's is 0.2


class REPAShape(Shape):
    title = "SiT (REPA)"
    published_prediction = "velocity"
    rotary = False


class LightningDiTHustvlShape(LightningDiTShape):
    title = "LightningDiT (hustvl)"
    published_prediction = "velocity"


class DDTShape(Shape):
    title = "DDT"
    published_prediction = "velocity"

    head_depth: Count  # blocks of the head, which are as wide as the `depth` of the encoder

    @property
    def text(self) -> str:
        return f"{super().text} + head {self.head_depth}"

    @property
    def blocks(self) -> list[str]:
        return [*super().blocks, *(f"head {block}" for block in range(self.head_depth))]


class DiffusionBenchDDTShape(Headed):
    title = "DDT of diffusion-bench"
    published_prediction = "velocity"

    condition: Literal["label", "text"] = "label"  # text: where labels are prompts
    time_tokens: Count = 4
    condition_tokens: Count = 8  # of a text, the most words
    context_width: Count | None = None  # of a text's states
    states: Literal["words", "given"] = "words"  # of a text: learned, one of each word; or a text encoder's, which `dsr import` adds

    @property
    def given_states(self) -> tuple[int, int] | None:
        return (self.condition_tokens, self.context_width) if self.states == "given" and self.context_width else None

    @model_validator(mode="after")
    def _text_fits(self) -> "DiffusionBenchDDTShape":
        if (self.condition == "text") != (self.context_width is not None):
            raise ValueError("context_width is the width of a text's states: give it with condition text, and only there")
        if self.states == "given" and self.condition != "text":
            raise ValueError("states given are of a text: condition must be text")
        return self

    def check(self, *, prompts: bool) -> None:
        if prompts != (self.condition == "text"):
            raise ValueError(f"condition {self.condition}, but labels are {'prompts' if prompts else 'classes'}; change it, or the data")


ARCHITECTURES: dict[str, type[Shape]] = {
    "lightningdit": LightningDiTShape,
    "ditdh": DiTDHShape,
    "sit": SiTShape,
    "jit": JiTShape,
    "repa": REPAShape,
    "lightningdit_hustvl": LightningDiTHustvlShape,
    "ddt": DDTShape,
    "diffusionbench_ddt": DiffusionBenchDDTShape,
}


class DenoiserSection(Shape):
    """The section: the shape of its architecture, and how it is trained. In a study it has the architecture's own fields, too."""

    registers: DiffusionRegisters  # for the methods that have them
    frozen: Literal["described", "released"] = "described"  # released: rotary tables alone (its train.py:252 unfreezes every parameter)
    prediction: Literal["data", "velocity"] = "data"
    time: Literal["logit_normal", "uniform"] = "logit_normal"
    time_mean: float = 0.0  # of the logit-normal, before the shift
    time_std: Positive = 1.0
    time_shift: Positive | Literal["latent"]  # see `shift`
    t_min: Share  # an x-prediction's velocity divides by max(t, t_min)
    clamp_target: bool = False  # and so does the velocity that the loss compares with (JiT), which otherwise is noise - data
    cosine_loss: bool = False  # to a token's squared error comes 1 - the cosine between both velocities (hustvl/LightningDiT)
    noise_scale: Positive = 1.0  # standard deviation of the noise
    class_dropout: Decay
    ema: Annotated[list[Decay], Field(min_length=1)]  # decays; one set of weights is kept for each
    ema_warm_up: bool = True  # (1 + n) / (10 + n), TensorFlow's and score-SDE's; the released code has none
    training: Training
    # method -> published weights in place of a training; no part of the settings of those that are trained
    released: dict[str, Released] = Field(default={}, exclude=True)
    snapshots: list[Positive] = Field(default=[])  # earlier ends to keep, sample and score too; in steps or epochs, as training's length

    def shift(self, values: int) -> float:
        """The time shift for latents of `values` numbers: more time near the noise for a shift above 1.

        `latent`: sqrt(values / 4096) (released train.py:152-154), which is 6.928 for 16 x 16 tokens of 768 channels. The released
        SigLIP2-So400M configs keep that although 1152 channels give 8.485.
        """
        return math.sqrt(values / 4096) if self.time_shift == "latent" else self.time_shift

    @model_validator(mode="after")
    def _registers_fit(self) -> "DenoiserSection":
        if self.registers.start >= self.depth:
            raise ValueError(f"registers.start {self.registers.start} is beyond the last of {self.depth} blocks")
        if len(set(self.ema)) != len(self.ema):
            raise ValueError("denoiser.ema names a decay twice")
        return self

    @model_validator(mode="after")
    def _snapshots_fit(self) -> "DenoiserSection":
        unit = "epochs" if self.training.steps is None else "steps"
        rising = [*self.snapshots, getattr(self.training, unit)]
        if any(later <= earlier for earlier, later in pairwise(rising)):
            raise ValueError(f"denoiser.snapshots must rise, and end before the training's {rising[-1]:g} {unit}; got {self.snapshots}")
        if unit == "steps" and any(step % 1 for step in self.snapshots):
            raise ValueError(f"denoiser.snapshots are steps here, as the training's length is: whole numbers; got {self.snapshots}")
        return self
