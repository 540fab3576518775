"""The registry of scores: what each number is called, what it is of, which direction is better, and which a study has.

A new score: its description here, in SCORES, and its function under the same name in harness/evaluation/functions.py (of stage `scores`) or
harness/evaluation/outlier_scores.py (of stage `outliers`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from harness.results.references import references_of
from harness.study.study import Study
from harness.study.typed import UserError, nearest

CLEAN_FID_WIDEST = 512  # features; at 2048 its matrix root takes more than a minute
BY_BLOCK, BY_THRESHOLD = "denoiser_outlier_share", "filtered_share"  # also scored at several places, `@block3`, `@2`

TRAINED_ON = "; held-out images that are trained on, too: "  # in the `how` of FID against held-out images, where there are such
REFERENCE_BIAS = "; bias of the reference, by halves: "  # in the `how` of FID-infinity: what so few reference images add, and how many
CAPTIONED = "; captions: "  # in the `how` of a CLIP score whose captions the study alone does not settle
AS_DECLARED = "; the reference's statistics are of the judge's features as declared"  # in the `how` of samples from outside

Of = Literal["samples", "reconstruction", "training", "network", "encoder tokens", "denoiser tokens", "training tokens"]


@dataclass(frozen=True)
class ScoreInfo:
    """The description of a score: data alone, which the stages, the schema, tables, their notes, the gate and figures read.

    A column shows the value times `scale` with `digits` decimals, in `unit`.
    """

    title: str
    better: Literal["lower", "higher", "neither"]
    about: str  # explains its column
    of: Of
    compared: bool = False  # with a reference; of tokens: with the latents that they are of
    seen_by: Literal["judge", "clip", "encoder", "denoiser"] | None = None  # the network that looks
    scale: float = 1.0
    unit: str = ""
    digits: int = 2
    needs: Callable[[Study], bool] = lambda _study: True  # what a study must have
    places: "Places | None" = None  # where else it is taken, `SCORE@PLACE`
    averages: bool = False  # also of the samples of every other EMA decay
    snapshots: Callable[[Study], bool] = lambda _study: False  # also of the samples of earlier training steps
    counted: bool = False  # exact, not measured: the gate wants it equal
    spread: Literal["plain", "log", "share"] = "plain"  # over seeds: by differences, by ratios, or as that of a share in [0, 1]
    note: str = ""  # a sentence under every table that shows a value of it

    @property
    def stage(self) -> Literal["scores", "outliers"]:
        return "outliers" if self.of.endswith("tokens") else "scores"

    @property
    def shared(self) -> bool:
        """Whether all seeds of a method have one value: encoder, decoder and cost do not depend on the run's seed."""
        return self.of not in ("samples", "denoiser tokens")


@dataclass(frozen=True)
class Places:
    """Places of one kind where a score is taken, too.

    `of`: their names in a study, each of `pattern`; `told`: what a description says there.
    """

    kind: Literal["reference", "block", "threshold"]
    of: Callable[[Study], list[str]]
    pattern: str
    told: Callable[[ScoreInfo, str], dict[str, Any]]


def blocks_of(study: Study) -> list[str]:
    """Where in the denoiser shares of outliers are scored: each block, those of a wide head among them, and the output."""
    return [*(f"block{place}" for place in range(len(study.denoiser.blocks))), "output"]


def thresholds_of(study: Study) -> list[str]:
    """Thresholds of a loss mask whose share is scored: multiples of the median norm, and norms. None where latents are no tokens."""
    section = study.outlier_statistics
    return (
        [*(f"{multiple:g}" for multiple in section.multiples), *(f"norm{norm:g}" for norm in section.norms)]
        if study.encoder.has_tokens
        else []
    )


def _at_reference(info: ScoreInfo, place: str) -> dict[str, str]:
    return {"title": f"{info.title} ({place})", "about": f"{info.about}; reference: {place}"}


def _at_block(_info: ScoreInfo, place: str) -> dict[str, str]:
    after = place.replace("block", "block ")
    return {
        "title": f"Outliers, {after}",
        "about": f"share of patch tokens above factor x median norm, mean over noise levels; after {after}",
    }


def _at_threshold(_info: ScoreInfo, place: str) -> dict[str, str]:
    limit = f"norm {place.removeprefix('norm')}" if place.startswith("norm") else f"{place} × median"
    return {
        "title": f"Above {limit}",
        "about": f"share of training tokens that a loss mask would leave out at {limit}",
        "of": "training tokens",
    }


REFERENCES = Places("reference", lambda study: references_of(study)[1:], r".+", _at_reference)
BLOCKS = Places("block", blocks_of, r"block\d+|output", _at_block)
THRESHOLDS = Places("threshold", thresholds_of, r"(norm)?\d+(\.\d+)?", _at_threshold)

# what several scores have in common; percent: shown as such
percent = partial(ScoreInfo, scale=100.0, unit="%", spread="share")
feature_score = partial(ScoreInfo, of="samples", compared=True, seen_by="judge")
geneval_score = partial(
    percent, better="higher", of="samples", needs=lambda study: study.data.prompts, snapshots=lambda _study: True, digits=1
)
checker_score = partial(
    percent,
    better="higher",
    of="reconstruction",
    compared=True,
    needs=lambda study: study.data.prompts and study.evaluation.reconstruction,
    digits=1,
)
decoder_score = partial(ScoreInfo, of="reconstruction", compared=True, needs=lambda study: study.evaluation.reconstruction)
encoder_score = partial(
    ScoreInfo, better="lower", of="encoder tokens", compared=True, seen_by="encoder", needs=lambda study: study.encoder.has_tokens
)
denoiser_score = partial(ScoreInfo, of="denoiser tokens", compared=True, seen_by="denoiser")

SCORES: dict[str, ScoreInfo] = {
    "fid": feature_score(
        title="FID", better="lower", digits=3, spread="log", places=REFERENCES, averages=True, snapshots=lambda _study: True,
        about="Frechet distance of the extractor's features, samples against reference (torch-fidelity; symmetric beyond 512 features)",
    ),
    "fid_infinity": feature_score(
        title="FID∞", better="lower", digits=3, spread="log", averages=True, snapshots=lambda _study: True,
        about="FID extrapolated to infinitely many samples (linear in 1/N; Chong and Forsyth 2020)",
        note="FID∞ is FID extrapolated to infinitely many samples.",
    ),
    "fid_clean": feature_score(
        title="FID (clean-fid)", better="lower", digits=3, spread="log", needs=lambda study: study.features <= CLEAN_FID_WIDEST,
        about="the same distance by clean-fid, as an independent check",
    ),
    "is": ScoreInfo(
        title="IS", better="higher", of="samples", seen_by="judge", spread="log",
        about="Inception Score of the extractor's logits, mean over 10 splits (torch-fidelity)",
        note="IS is the mean over 10 splits of the samples, as usual; few samples bias it low. The CSV's `is_unsplit` is of all at once.",
    ),
    "is_unsplit": ScoreInfo(
        title="IS (unsplit)", better="higher", of="samples", seen_by="judge", spread="log",
        about="Inception Score of the extractor's logits, all samples in one split (torch-fidelity)",
    ),
    "kid": feature_score(
        title="KID", better="lower", scale=1000.0, unit="×1000", digits=1, places=REFERENCES,
        about="kernel distance, cubic polynomial, unbiased, mean over subsets (torch-fidelity)",
    ),
    "precision": feature_score(
        title="Precision", better="higher", digits=3, spread="share", places=REFERENCES,
        about="share of samples inside the k-NN balls of the reference (torch-fidelity)",
    ),
    "recall": feature_score(
        title="Recall", better="higher", digits=3, spread="share", places=REFERENCES,
        about="share of reference images inside the k-NN balls of the samples (torch-fidelity)",
    ),
    "clip_score": ScoreInfo(
        title="CLIP score", better="higher", of="samples", seen_by="clip", digits=1,
        needs=lambda study: study.evaluation.clip is not None, snapshots=lambda study: study.data.prompts,
        about="mean of max(100 cos, 0) between a sample and its caption (open_clip)",
    ),
    "accuracy": ScoreInfo(
        title="Accuracy", better="higher", of="samples", seen_by="judge", digits=3, spread="share",
        # an image can be of several prompts
        needs=lambda study: not study.data.prompts and study.evaluation.judge.classifies,
        about="share of samples that the judge gives the label they were drawn with",
    ),
    "geneval": geneval_score(title="GenEval", about="mean over the six kinds of prompts of the share of samples that pass"),
    **{
        f"geneval_{name}": geneval_score(
            title=title, about=f"share of the samples of {prompts} whose objects are exactly the prompt's"
        )
        for name, title, prompts in (
            ("single", "Single object", "prompts of one object"),
            ("two", "Two objects", "prompts of two objects"),
            ("counting", "Counting", "prompts of two to four objects of a shape"),
            ("colours", "Colours", "prompts of one object with a colour"),
            ("position", "Position", "prompts of two objects, one left of, right of, above or below the other"),
            ("attribution", "Colour attribution", "prompts of two objects, each with a colour"),
            ("seen", "Seen prompts", "prompts that training saw"),
            ("unseen", "Unseen prompts", "prompts with a combination of words that training never saw"),
        )
    },
    "checker_accuracy": checker_score(
        title="Checker", about="share of held-out images for which GenEval's checker answers every prompt rightly"
    ),
    "checker_accuracy_reconstructed": checker_score(
        title="Checker, decoded", about="the same after the decoder has reconstructed these images"
    ),
    "rfid": decoder_score(
        title="rFID",
        better="lower",
        seen_by="judge",
        digits=3,
        spread="log",
        about="FID of the decoder's reconstruction of the reference images",
    ),
    "psnr": decoder_score(title="PSNR", better="higher", unit="dB", about="of that reconstruction, dB, mean over images"),
    "encoder_outlier_share": encoder_score(
        title="Outliers, encoder", scale=100.0, unit="%", spread="share",
        about="share of patch tokens above factor x median norm, at the worst layer",
    ),
    "encoder_max_over_median": encoder_score(
        title="Max/median, encoder", digits=1, spread="log", about="largest norm over median norm, at the worst layer"
    ),
    "denoiser_outlier_share": denoiser_score(
        title="Outliers, denoiser", better="lower", scale=100.0, unit="%", spread="share", places=BLOCKS,
        about="share of patch tokens above factor x median norm, at the worst block and noise level",
    ),
    "denoiser_max_over_median": denoiser_score(
        title="Max/median, denoiser", better="lower", digits=1, spread="log",
        about="largest norm over median norm, at the worst block and noise level",
    ),
    "denoiser_middle_blocks": denoiser_score(
        title="Middle blocks", better="neither", needs=lambda study: study.denoiser.depth >= 3,
        about="log of max/median at the worst block but the first and last, less that at the worse of those two; "
        "above 0: outliers sit inside",
    ),
    "denoiser_noise_fall": denoiser_score(
        title="Fall with noise", better="neither", needs=lambda study: len(study.outlier_statistics.times) >= 2,
        about="log of max/median at the lowest noise level, less that at the highest, each at its worst block; above 0: falls with noise",
    ),
    "filtered_share": percent(
        title="Filtered", better="neither", of="training", places=THRESHOLDS,
        about="share of training tokens that the loss mask left out",
    ),
    "parameters": ScoreInfo(
        title="Parameters", better="lower", of="network", counted=True, scale=1e-6, unit="M", digits=3,
        about="trainable parameters of the denoiser",
    ),
    "gflops": ScoreInfo(
        title="GFLOPs", better="lower", of="network", counted=True, digits=4,
        about="one forward pass of the denoiser for one image, 2 per multiply-add",
    ),
}  # fmt: skip


def score_info(name: str) -> ScoreInfo:
    """UserError that names the nearest score for an unknown one.

    `fid@NAME` is FID against the reference NAME; `denoiser_outlier_share@block3` is of that block (0-based), `@output` of the final layer;
    `filtered_share@3` is what a loss mask at 3 x the median would leave out, `@norm100` at a norm of 100.
    """
    base, at, place = name.partition("@")
    info = SCORES[nearest(base, SCORES, "score")]
    if not at:
        return info
    if info.places is None or not re.fullmatch(info.places.pattern, place):
        compared = ", ".join(score for score, known in SCORES.items() if known.places is REFERENCES)
        raise UserError(f"unknown score '{name}'; only {compared} can be followed by @ and the name of a reference")
    return replace(info, places=None, **info.places.told(info, place))


def scores_of(study: Study, stage: str | None = None) -> list[str]:
    """Every score that a run of `study` gets, or those of a stage, in the order of SCORES."""
    names = []
    for name, info in SCORES.items():
        if info.needs(study):
            names += [name, *(f"{name}@{place}" for place in (info.places.of(study) if info.places else ()))]
    return [name for name in names if stage in (None, score_info(name).stage)]


def of_outliers(name: str) -> bool:
    """Whether stage `outliers` makes the score, of tokens of the run's own models and latents."""
    return score_info(name).stage == "outliers"
