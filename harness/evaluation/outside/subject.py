"""Samples from outside, as the functions of scores see them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from harness.evaluation.clip.base import LoadedClip
from harness.evaluation.outside.judges import Protocol
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.subjects import SampleSet


@dataclass(frozen=True)
class OutsideSamples(SampleSet):
    """Samples beside the first of `references`, None where there is none. `texts`: their captions, which come from `caption_source`."""

    protocol: Protocol = field(kw_only=True)
    references: Mapping[str, ReferenceStatistics] = field(kw_only=True)
    networks: Mapping[str, str] = field(kw_only=True)
    clip_model: LoadedClip | None = field(default=None, kw_only=True, repr=False)
    texts: list[str] | None = field(default=None, kw_only=True, repr=False)
    caption_source: str = field(default="", kw_only=True)

    @property
    def settings(self) -> Protocol:
        return self.protocol

    @property
    def captions(self) -> list[str]:
        return self.texts or []

    @property
    def clip(self) -> LoadedClip:
        if self.clip_model is None:
            raise ValueError("no CLIP model was given")
        return self.clip_model

    def at(self, place: str) -> Self:
        return replace(self, reference=self.references[place] if place else self.reference)
