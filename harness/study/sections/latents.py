"""Section `latents`."""

from typing import Literal

from pydantic import Field, model_validator

from harness.study.method import EncoderRegisters
from harness.study.sections.asset import Asset
from harness.study.typed import Count, Positive, Strict, UserError


class Statistics(Asset):
    """A file of whitening statistics: `mean` and `var` (RAE, the authors, diffusion-bench), or `mean` and `std` (LightningDiT)."""

    multiplier: Positive = 1.0  # of the whitened latents (LightningDiT's latent_multiplier)


class LatentSection(Strict):
    whitening: Literal["channel", "position", "none"]
    cache: bool = True  # keep the training latents in one file; false: encode at every step
    images: Count | None = None  # training images that the whitening statistics are taken over; None: all
    statistics: dict[str, Statistics] = Field(default={})  # by encoder variant: published ones, in place of the study's own

    @model_validator(mode="after")
    def _all_of_a_cache(self) -> "LatentSection":
        if self.cache and self.images:
            raise ValueError("latents.images belongs to latents.cache: false; a cache holds all of the training images")
        return self

    @model_validator(mode="after")
    def _statistics_are_used(self) -> "LatentSection":
        if self.statistics and self.whitening == "none":
            raise ValueError("latents.statistics are of whitening channel or position, not of none")
        for variant in self.statistics:
            try:
                EncoderRegisters.from_key(variant)
            except UserError as error:
                raise ValueError(f"latents.statistics: {error}") from None
        return self
