"""What every section that trains something has in common."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.study.typed import Count, Decay, Fraction, NonNegative, Positive, Strict


class Schedule(Strict):
    """Factor on the learning rate: linear warm-up, full rate, then decay. Lengths are in epochs."""

    decay: Literal["constant", "cosine", "linear"] = "cosine"
    warm_up: NonNegative | None = None  # None: 5 % of the steps
    hold: NonNegative = 0.0  # at the full rate after the warm-up
    until: Positive | None = None  # where the decay ends; None: with the training
    final: Fraction = 0.0  # factor at the end of the decay

    @model_validator(mode="after")
    def _decay_has_room(self) -> "Schedule":
        if self.until is not None and self.until <= (self.warm_up or 0) + self.hold:
            raise ValueError(f"schedule.until {self.until:g} comes before the decay begins, at warm_up + hold")
        return self


class Training(Strict):
    """AdamW. A length in `steps` or in `epochs` (released configs: 1251 steps of 1024 images are one epoch of ImageNet)."""

    steps: Count | None = None
    epochs: Positive | None = None
    batch: Count
    micro_batch: Count | None = None  # images of one forward pass; gradients add up to the whole batch's
    lr: Positive
    schedule: Schedule = Schedule()
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    clip: NonNegative = 0.0  # largest norm of the gradient; 0 = no clipping
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False  # on a GPU; the released train.py:14 switches it on
    compile: bool = False
    skips: Annotated[int, Field(ge=0)] = 10  # steps whose loss or gradient is not finite are left out and counted; more end the training

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("training needs either steps or epochs")
        if self.micro_batch and self.batch % self.micro_batch:
            raise ValueError(f"training.batch {self.batch} is not a multiple of micro_batch {self.micro_batch}")
        return self

    @property
    def arithmetic(self) -> Literal["fp32", "tf32", "bf16"]:
        """What a GPU computes its matrix products in."""
        return "tf32" if self.precision == "fp32" and self.tf32 else self.precision

    @property
    def own_length(self) -> float:
        """Of the whole training, as it is given: in steps or in epochs."""
        return next(length for length in (self.steps, self.epochs) if length is not None)

    def epoch(self, images: int) -> int:
        """Steps of one epoch over `images`; the remainder is dropped."""
        return max(1, images // self.batch)

    def length(self, images: int) -> int:
        """Steps of the whole training."""
        return self.in_steps(self.own_length, images)

    def in_steps(self, length: float, images: int) -> int:
        """Steps of a `length` that is given as the training's own is: in steps or in epochs."""
        return int(length) if self.steps is not None else max(1, self.steps_of(length, images))

    def steps_of(self, epochs: float, images: int) -> int:
        """Steps of so many epochs over `images`."""
        return round(epochs * self.epoch(images))

    def in_epochs(self, images: int) -> float:
        """Epochs of the whole training."""
        return self.own_length if self.steps is None else self.own_length / self.epoch(images)
