"""Every score of a study: of which images, compared with what, seen by which network."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from harness.data.captions import captions
from harness.data.registry import source_of
from harness.data.stage import load_data
from harness.decoder.decode import images_of
from harness.decoder.registry import load_decoder
from harness.denoiser.sample import load_samples
from harness.encoder.latents import load_held_out
from harness.evaluation.accuracy import accuracy
from harness.evaluation.bootstrap import Measured, by_resampling, means, without
from harness.evaluation.clip.stage import load_clip
from harness.evaluation.clip_score import clip_scores
from harness.evaluation.cost import cost_scores
from harness.evaluation.features import Extractor
from harness.evaluation.fid import fid
from harness.evaluation.frechet import Frechet, too_few
from harness.evaluation.geneval import checker_accuracy, geneval
from harness.evaluation.inception_score import inception_score
from harness.evaluation.kid import kid
from harness.evaluation.precision_recall import precision_recall
from harness.evaluation.reconstruction import psnr, rfid
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.scored import About, Stop, attempt, stop_of
from harness.results.schema import NONE, Score
from harness.results.scores import CLEAN_FID_WIDEST, HELD_OUT, scores_of
from harness.store import artifacts
from harness.study.study import Study
from harness.study.typed import UserError

Found = dict[str, Score]


@dataclass(frozen=True)
class Seen:
    """A file of samples: (N, H, W, 3) uint8 and labels (N,), with the judge's features and logits. `stop`: why there is nothing to see.

    `unjudged`: why the judge's scores have no value.
    """

    n: int
    stop: Stop | None = None
    unjudged: Stop | None = None
    images: np.ndarray | None = None
    labels: np.ndarray | None = None
    features: Tensor | None = None
    logits: Tensor | None = None


class Scorer:
    """What the samples of a study are looked at with. The first reference is that of plain `fid`; `clip`: None without a CLIP score."""

    def __init__(self, study: Study, extract: Extractor, references: dict[str, ReferenceStatistics], clip: Path | None) -> None:
        self.study, self.extract, self.references, self.resamples = study, extract, references, study.evaluation.resamples
        self.first = next(iter(references.values()))
        self.clip = (artifacts.checked(clip), load_clip(study, clip)) if clip else None

    def of_samples(self, path: Path, denoiser: Path) -> Found:
        """Every score of a file of samples; none has a value where the record of the samples or of the denoiser says that they diverged."""
        seen, scores = self._look(path, denoiser), {}
        for reference in self.references.values():
            scores |= self._distances(seen, reference) | self._neighbours(seen, reference)
        judged = About(seen.n, NONE, self.extract.sha256)
        scores |= attempt(["is"], judged, lambda: inception_score(seen.logits, self.resamples), seen.unjudged)
        if "accuracy" in scores_of(self.study):
            scores |= attempt(["accuracy"], judged, lambda: accuracy(seen.logits, seen.labels), seen.unjudged)
        return scores | self._captioned(seen) | self._geneval(seen)

    def of_average(self, path: Path, denoiser: Path) -> Found:
        """FID and FID-infinity of a file of samples, drawn with another average of the weights."""
        return self._fids(self._look(path, denoiser))

    def of_snapshot(self, path: Path, denoiser: Path) -> Found:
        """What is followed over the training: FID and FID-infinity of a file of samples; of a study with prompts also their scores."""
        seen = self._look(path, denoiser)
        prompted = self._geneval(seen)
        return self._fids(seen) | prompted | (self._captioned(seen) if prompted else {})

    def of_training(self, denoiser: Path) -> Found:
        """What the record of a denoiser says: `filtered_share`."""

        def recorded() -> dict[str, Measured]:
            try:
                return {"filtered_share": without(artifacts.meta(denoiser)["filtered_share"], "exact")}
            except KeyError:
                raise UserError(f"{denoiser}: its record has no filtered_share; delete it and run the same command again") from None

        return attempt(["filtered_share"], About(self.study.data.train_images, NONE, NONE), recorded)

    def of_network(self, method: str) -> Found:
        """`parameters` and `gflops` of a method's denoiser."""
        found = cost_scores(self.study, method)
        return attempt([*found], About(0, NONE, NONE), lambda: {name: without(value, "exact") for name, value in found.items()})

    def of_decoder(self, decoder: Path, latents: Path, data: Path) -> Found:
        """`rfid` and `psnr` of a decoder, where the study has them."""
        if not self.study.evaluation.reconstruction:
            return {}
        reference, truth = self.references[HELD_OUT], load_data(data, "reference")
        source, decode = load_held_out(latents), load_decoder(self.study, decoder)
        images = images_of(decode, source.whitening, source.latents, self.study.sampling.batch)
        seen, plain = About(len(images), reference.sha256, self.extract.sha256), About(len(images), reference.sha256, NONE)
        scores = attempt(["rfid"], seen, lambda: rfid(images, self.extract, reference, self.resamples))
        scores |= attempt(["psnr"], plain, lambda: psnr(images, truth, self.resamples))
        if self.study.data.prompts:
            scenes, names = source_of(self.study.data).scenes("reference"), ("checker_accuracy", "checker_accuracy_reconstructed")
            seen_by = zip(names, (truth, images), strict=True)
            scores |= attempt([*names], plain, lambda: {name: checker_accuracy(these, scenes) for name, these in seen_by})
        return scores

    # ------------------------------------------------------------------------------------------------------- of samples

    def _look(self, path: Path, denoiser: Path) -> Seen:
        if stop := stop_of(denoiser, path):
            return Seen(self.study.sampling.count, stop, stop)
        images, labels = load_samples(path)
        found = self.extract(images)
        finite = all(values.isfinite().all() for values in found.values())
        unjudged = None if finite else Stop("failed", "the judge's features of the samples are not finite")
        return Seen(len(images), None, unjudged, images, labels, **found)

    def _distances(self, seen: Seen, reference: ReferenceStatistics) -> Found:
        """FID; against the first reference also by clean-fid, and FID-infinity."""
        about, at, width = About(seen.n, reference.sha256, self.extract.sha256), self._at(reference), self.study.features
        names = ["fid"] if at or width > CLEAN_FID_WIDEST else ["fid", "fid_clean"]
        frechet = cache(lambda: Frechet(seen.features, reference, self.resamples))

        def fids() -> dict[str, Measured]:
            values = fid(seen.features, reference)
            return {name: frechet().with_interval(values[name]) for name in names}

        scores = attempt(names, about, fids, seen.unjudged, at)
        if not at:
            plain, few = scores["fid"], too_few(seen.n, width)
            stop = Stop(plain.status, plain.reason) if plain.value is None else Stop("skipped", few) if few else None
            scores |= attempt(["fid_infinity"], about, lambda: {"fid_infinity": frechet().infinity()}, stop)
        return scores

    def _neighbours(self, seen: Seen, reference: ReferenceStatistics) -> Found:
        """KID, precision and recall: what compares with the reference's images."""
        about, at, section = About(seen.n, reference.sha256, self.extract.sha256), self._at(reference), self.study.evaluation

        def shares() -> dict[str, Measured]:
            return precision_recall(seen.features, reference.features, section.neighbours, self.resamples)

        scores = attempt(["kid"], about, lambda: kid(seen.features, reference.features, section), seen.unjudged, at)
        return scores | attempt(["precision", "recall"], about, shares, seen.unjudged, at)

    def _at(self, reference: ReferenceStatistics) -> str:
        """What the names of the scores against a reference end with."""
        return "" if reference is self.first else f"@{reference.name}"

    def _geneval(self, seen: Seen) -> Found:
        """The scores of prompts, where the study has them."""
        names = [name for name in scores_of(self.study) if name.startswith("geneval")]
        if not names:
            return {}
        return attempt(names, About(seen.n, NONE, NONE), lambda: geneval(seen.images, seen.labels, self.resamples), seen.stop)

    def _fids(self, seen: Seen) -> Found:
        """FID and FID-infinity alone."""
        scores = self._distances(seen, self.first)
        return {name: scores[name] for name in ("fid", "fid_infinity")}

    def _captioned(self, seen: Seen) -> Found:
        """The CLIP score, where the study has one."""
        if not self.clip:
            return {}
        return attempt(["clip_score"], About(seen.n, NONE, self.clip[0]), lambda: self._clip_score(seen), seen.stop)

    def _clip_score(self, seen: Seen) -> dict[str, Measured]:
        values = clip_scores(seen.images, captions(self.study.data, seen.labels), *self.clip[1])
        return {"clip_score": by_resampling(values.mean().item(), means("clip_score", values, self.resamples))}
