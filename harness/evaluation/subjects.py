"""What the scores of stage `scores` are of: samples beside a reference, the decoder's reconstruction, a training, a network."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from harness.data.captions import captions
from harness.data.images import NotFiniteError
from harness.data.registry import source_of
from harness.data.stage import load_data
from harness.decoder.decode import images_of
from harness.decoder.registry import load_decoder
from harness.denoiser.sample import load_samples
from harness.encoder.latents import load_held_out
from harness.evaluation.clip.base import LoadedClip
from harness.evaluation.clip.stage import load_clip
from harness.evaluation.clip_score import clip_scores
from harness.evaluation.cost import cost_scores
from harness.evaluation.features import Extractor
from harness.evaluation.fid import fid
from harness.evaluation.frechet import Frechet
from harness.evaluation.geneval import geneval
from harness.evaluation.outcome import Measured, Stop, Subject, stop_of
from harness.evaluation.precision_recall import precision_recall
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.results.references import HELD_OUT
from harness.results.schema import NONE
from harness.results.scores import ScoreInfo
from harness.store import artifacts
from harness.study.sections.evaluation import Evaluation
from harness.study.study import Study
from harness.study.typed import UserError


class Instruments:
    """What the images of a study are looked at with, for all runs.

    The first reference is that of plain `fid`; `clip`: None without a CLIP score; `data`: the data set, for the captions of its labels.
    """

    def __init__(
        self, study: Study, judge: Path, references: dict[str, ReferenceStatistics], clip: Path | None, data: Path | None = None
    ) -> None:
        self.study, self.extract, self.references = study, Extractor(study, judge), references
        self.clip, self.data = load_clip(study, clip) if clip else None, data
        self.networks = {"judge": self.extract.sha256, "clip": artifacts.checked(clip) if clip else NONE}

    def samples(self, path: Path, denoiser: Path) -> "ScoredSamples":
        """A file of samples, with the judge's features; nothing of it where its record, or the denoiser's, says that they diverged."""
        first = next(iter(self.references.values()))
        if stop := stop_of(denoiser, path):
            return ScoredSamples(first, self.study.sampling.count, stop, stop, instruments=self)
        images, labels = load_samples(path)
        outputs = self.extract(images)
        finite = all(values.isfinite().all() for values in outputs.values())
        unjudged = None if finite else Stop("failed", "the judge's features of the samples are not finite")
        return ScoredSamples(first, len(images), None, unjudged, images, labels, **outputs, instruments=self)


@dataclass(frozen=True)
class SampleSet(Subject):
    """N samples beside one reference.

    `images` (N, H, W, 3) uint8, or N of (H, W, 3) by number; `labels` (N,); the judge's `features` (N, D) and `logits` (N, classes).
    `stop`: why there is nothing to see; `unjudged`: why the judge's scores have no value. Subclasses say by what protocol they are scored.
    """

    reference: ReferenceStatistics
    n: int
    stop: Stop | None = None
    unjudged: Stop | None = None
    images: np.ndarray | Sequence[np.ndarray] | None = field(default=None, repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)
    features: Tensor | None = field(default=None, repr=False)
    logits: Tensor | None = field(default=None, repr=False)

    trained_on: ClassVar[int] = 0  # how many images of the reference are trained on, too
    caption_source: ClassVar[str] = ""  # where the captions come from, in words; empty where that is settled

    @property
    def settings(self) -> Evaluation:
        raise NotImplementedError

    @property
    def captions(self) -> list[str]:
        """Of each sample."""
        raise NotImplementedError

    @property
    def clip(self) -> LoadedClip:
        raise NotImplementedError

    @property
    def compared_with(self) -> str:
        return self.reference.sha256

    @property
    def content(self) -> str:
        return self.reference.content

    def stopped(self, info: ScoreInfo) -> Stop | None:
        return self.unjudged if info.seen_by == "judge" else self.stop

    @property
    def resamples(self) -> int:
        return self.settings.resamples

    @cached_property
    def frechet(self) -> Frechet:
        return Frechet(self.features, self.reference, self.resamples)

    @cached_property
    def distances(self) -> dict[str, float]:
        """`fid`, and up to 512 features `fid_clean`."""
        return fid(self.features, self.reference)

    @cached_property
    def neighbours(self) -> dict[str, Measured]:
        """`precision` and `recall`."""
        return precision_recall(self.features, self.reference.features, self.settings.neighbours, self.resamples)

    @cached_property
    def clip_scores(self) -> Tensor:
        """(N,) float64, of each sample and its caption."""
        return clip_scores(self.images, self.captions, *self.clip)


@dataclass(frozen=True)
class ScoredSamples(SampleSet):
    """A run's samples, by the protocol of its study."""

    instruments: Instruments = field(kw_only=True)

    @property
    def networks(self) -> dict[str, str]:
        return self.instruments.networks

    def at(self, place: str) -> "ScoredSamples":
        """Beside the reference of this name; empty: the first."""
        return replace(self, reference=self.instruments.references[place] if place else self.reference)

    @property
    def study(self) -> Study:
        return self.instruments.study

    @property
    def settings(self) -> Evaluation:
        return self.study.evaluation

    @property
    def captions(self) -> list[str]:
        """Of their labels."""
        return captions(self.study.data, self.labels, self.instruments.data)

    @property
    def clip(self) -> LoadedClip:
        return self.instruments.clip

    @property
    def trained_on(self) -> int:
        """How many images of the reference are trained on, too."""
        data = self.instruments.data
        return source_of(self.study.data).trained_on(data) if data and self.reference.name == HELD_OUT else 0

    @property
    def caption_source(self) -> str:
        """Where the captions come from, in words; empty where the study settles it."""
        return source_of(self.study.data).caption_source(self.instruments.data) if self.instruments.data else ""

    @cached_property
    def geneval(self) -> dict[str, Measured]:
        """`geneval` and its parts, where labels are prompts."""
        return geneval(self.images, self.labels, self.resamples)


class Reconstruction(Subject):
    """The held-out images `truth`, and `images` (N, H, W, 3) uint8, what the decoder makes of their latents; where the study has that."""

    def __init__(self, instruments: Instruments, decoder: Path, latents: Path, data: Path) -> None:
        self.study, self.extract, self.networks = instruments.study, instruments.extract, instruments.networks
        self.reference, self.truth = instruments.references[HELD_OUT], load_data(data, "reference")
        source, decode = load_held_out(latents), load_decoder(self.study, decoder)
        self.n, self.compared_with, self.resamples = len(source.latents), self.reference.sha256, self.study.evaluation.resamples
        self.content = self.reference.content
        try:
            sampling = self.study.sampling
            self.images = images_of(decode, source.whitening, source.latents, sampling.batch, sampling.eight_bit)
        except NotFiniteError as error:
            self.stop = Stop("diverged", f"reconstruction: {error}")

    @cached_property
    def features(self) -> Tensor:
        """(N, D), the judge's of the reconstructions."""
        return self.extract(self.images)["features"]

    @cached_property
    def scenes(self) -> list[list]:
        """What is to be seen in each image, where labels are prompts."""
        return source_of(self.study.data).scenes("reference")


class TrainingRecord(Subject):
    """What the record of a denoiser says of its training."""

    def __init__(self, study: Study, denoiser: Path) -> None:
        self.n, self.denoiser = study.data.train_images, denoiser
        if artifacts.meta(denoiser).get("stage") == "released":
            self.stop = Stop("skipped", "published weights: nothing says which tokens their training left out")

    @property
    def filtered_share(self) -> float:
        """Of the training tokens, what the loss mask left out."""
        try:
            return artifacts.meta(self.denoiser)["filtered_share"]
        except KeyError:
            raise UserError(f"{self.denoiser}: its record has no filtered_share; delete it and run the same command again") from None


class NetworkCosts(Subject):
    """A method's denoiser, by what it costs: `parameters` and `gflops`."""

    def __init__(self, study: Study, method: str) -> None:
        self.costs = cost_scores(study, method)
