"""Score samples from outside: rows of the schema of results, by the functions of stage `scores`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.data.reader import printable
from harness.evaluation.features import Seen
from harness.evaluation.functions import FUNCTIONS
from harness.evaluation.outcome import scores_by
from harness.evaluation.outside.doors import open_images
from harness.evaluation.outside.image_set import ImageSet, Watched, check_same_size
from harness.evaluation.outside.judges import Clip, Judge, open_clip_model, open_judge
from harness.evaluation.outside.references import open_references
from harness.evaluation.outside.subject import OutsideSamples
from harness.evaluation.outside.told import captions_of, labels_of
from harness.evaluation.outside.wanted import Given, wanted
from harness.evaluation.reference_statistics import GIVEN, ReferenceStatistics
from harness.evaluation.runs import made_by
from harness.machine.streams import stream
from harness.results.schema import NONE, SCHEMA, Provenance, Row, Score
from harness.results.scores import AS_DECLARED, score_info
from harness.study.typed import UserError, digest

FLOOR = "training_images"  # the method of rows that are of real images
UNKNOWN = "unknown"  # guidance of samples from outside
UNUSUAL = "; not Inception's 2048, so that FID, FID∞, KID, precision and recall do not compare with those that papers print"
SEED = 0  # of which training images the floor is of: part of the protocol


@dataclass(frozen=True)
class Asked:
    """What is to be measured, as it was asked for (`dsr measure --help`)."""

    samples: Path
    judge: str
    reference: str | None = None
    scores: list[str] | None = None
    labels: str | None = None
    captions: str | None = None
    clip: str | None = None
    train: Path | None = None
    study: str = "measured"
    method: str | None = None
    seed: int | None = None
    image_size: int | None = None
    column: str | None = None
    split: str | None = None
    results: Path = Path("results")
    protocol: tuple[tuple[str, int], ...] = ()  # changes of kid_subset, neighbours, resamples


@dataclass(frozen=True)
class Measurement:
    """Rows, those of the floor last. `about`: what they are of, in words; `left`: why scores have no row."""

    rows: list[Row]
    about: dict[str, str]
    left: dict[str, str]


def score_outside(asked: Asked) -> Measurement:
    """UserError before anything looks at the images where that can be known; no row is of a score that failed."""
    judge = open_judge(asked.judge, asked.results, dict(asked.protocol))
    images = open_images(asked.samples, image_size=asked.image_size, column=asked.column, split=asked.split)
    place = asked.samples.resolve()
    method = asked.method or printable(place.name if place.is_dir() else place.stem)
    if method == FLOOR:
        raise UserError(f"{asked.samples}: '{FLOOR}' is what rows of the floor are called; give --method")
    if judge.side and images.shape[:2] != (judge.side, judge.side):
        size = f"{images.shape[1]} x {images.shape[0]}"
        raise UserError(f"{images.path}: images of {size} pixels; the judge {asked.judge} looks at {judge.side} x {judge.side}")
    labels = labels_of(images, asked.labels, judge.classes)
    clip = open_clip_model(asked.clip, asked.results) if asked.clip else None
    texts, source = _captions(asked, images, clip, labels)
    real = _training_images(asked, images)
    references = open_references(asked.reference, judge, images, asked.results) if asked.reference else {}
    names, left = wanted(asked.scores, Given(len(images), judge, references, labels is not None, clip is not None, texts is not None))
    networks = {"judge": judge.extract.sha256, "clip": clip.sha256 if clip else NONE}

    def subject(of: Sequence[Any], name: str, **more: Any) -> tuple[OutsideSamples, str]:
        seen = Seen(of)
        outputs = judge.extract(Watched(seen, f"measure: {name}"))
        if not all(values.isfinite().all() for values in outputs.values()):
            raise UserError(f"{name}: the judge's features are not finite; are these the images, and its weights, that are meant?")
        first = next(iter(references.values()), None)
        common = {"protocol": judge.protocol, "references": references, "networks": networks}
        return OutsideSamples(first, len(of), images=of, **outputs, **common, **more), seen.sha256

    watched = Watched(images, f"measure: {method}, CLIP")
    own, content = subject(images, method, labels=labels, clip_model=clip.loaded if clip else None, texts=texts, caption_source=source)
    config = {
        "protocol": judge.protocol.model_dump(),
        "image_size": asked.image_size,
        "labels": None if labels is None else digest(labels.tolist()),
        "captions": None if texts is None else digest(texts),
    }
    made = made_by(__name__, digest(config), precision="float32", tf32=False, compiled=False)
    facts = {"study": asked.study, "seed": asked.seed, "provenance": made}
    rows = rows_of_scores(_scores(names, replace(own, images=watched), references), method=method, samples=content, **facts)
    if real is not None:
        compared = [name for name in names if score_info(name).compared]
        floor, drawn = subject(real, FLOOR)
        rows += rows_of_scores(_scores(compared, floor, references), method=FLOOR, samples=drawn, **facts)
    return Measurement(rows, _about(asked, images, judge, references), left)


def _captions(asked: Asked, images: ImageSet, clip: Clip | None, labels: Any) -> tuple[list[str] | None, str]:
    """(The samples' captions, None without any; where they come from)."""
    if asked.captions:
        if clip is None:
            raise UserError("--captions are for the CLIP score: name its model with --clip")
        return captions_of(images, asked.captions, labels)
    if clip and clip.study and labels is not None:
        if labels.max() >= clip.study.classes:
            raise UserError(f"{images.path}: label {labels.max()} is out of range: study '{clip.study.name}' has {clip.study.classes}")
        return clip.captions_of(labels)
    return None, ""


def _training_images(asked: Asked, images: ImageSet) -> Sequence[Any] | None:
    """As many real images as there are samples, drawn without replacement."""
    if asked.train is None:
        return None
    if not asked.reference:
        raise UserError("--train: the floor compares training images with the reference: give --reference")
    real = open_images(asked.train, image_size=asked.image_size)
    if len(real) < len(images):
        raise UserError(f"{asked.train}: {len(real)} images, the floor at N = {len(images)} needs as many as there are samples")
    check_same_size(images, real)
    order = torch.randperm(len(real), generator=stream(SEED, "floor", len(real)))
    return real.take(sorted(order[: len(images)].tolist()))


def _scores(names: list[str], subject: OutsideSamples, references: dict[str, ReferenceStatistics]) -> dict[str, Score]:
    """UserError for the first that has no value."""
    scores = scores_by(FUNCTIONS, names, subject)
    for name, score in scores.items():
        if score.status != "ok":
            raise UserError(f"{score_info(name).title}: {score.reason}; leave it out with --scores")
        place = name.partition("@")[2] or next(iter(references), "")
        if score_info(name).compared and references[place].statistics == GIVEN:
            scores[name] = score.model_copy(update={"how": f"{score.how}{AS_DECLARED}"})
    return {name: scores[name] for name in names}


def rows_of_scores(
    scores: dict[str, Score], *, study: str, method: str, seed: int | None, samples: str, provenance: Provenance
) -> list[Row]:
    """Of samples that no run of a study made; `samples`: SHA-256 of their pixels."""
    artifacts_of_run = dict.fromkeys(("encoder", "registers", "latents", "decoder", "denoiser"), NONE)
    return [
        Row(
            study=study,
            method=method,
            seed=seed,
            ema=None,
            step=None,
            guidance=UNKNOWN,
            score=name,
            better=score_info(name).better,
            shared=score_info(name).shared,
            samples=samples,
            schema_version=SCHEMA,
            **artifacts_of_run,
            **score.model_dump(),
            **provenance.model_dump(),
        )
        for name, score in scores.items()
    ]


def _about(asked: Asked, images: ImageSet, judge: Judge, references: dict[str, ReferenceStatistics]) -> dict[str, str]:
    """What the numbers are of, in words."""
    size = f"{images.shape[1]} x {images.shape[0]} pixels" + f" (ADM's centre crop to {asked.image_size})" * bool(asked.image_size)
    told = {
        "samples": f"{len(images)} images of {size} from {printable(asked.samples.name or str(asked.samples))}, {images.kind}",
        "judge": f"{judge.note} (weights {judge.extract.sha256[:12]})" + UNUSUAL * (not judge.usual),
    }
    if references:
        first = next(iter(references.values()))
        what = "given mu and sigma, of the judge's features as declared" if first.statistics == GIVEN else f"statistics {first.statistics}"
        more = f"; further ones: {', '.join([*references][1:])}" if len(references) > 1 else ""
        told["reference"] = f"{printable(str(asked.reference))}, {what} (sha256 {first.sha256[:12]}){more}"
    if asked.train:
        told["floor"] = f"{len(images)} images drawn from {printable(asked.train.name or str(asked.train))} in the samples' place"
    return told
