"""The registry of scores: what each number is called, which direction is better, and which a study has."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.study.study import Study
from harness.study.typed import UserError, nearest

HELD_OUT = "held_out"  # name of the reference that is made of the study's held-out images


COMPARED = ("fid", "kid", "precision", "recall")  # with the study's first reference; `fid@NAME` is with another


BY_BLOCK, BY_THRESHOLD = "denoiser_outlier_share", "filtered_share"  # also scored at several places, `@block3`, `@2`


OUTLIER_SCORES = ("denoiser_", "encoder_", f"{BY_THRESHOLD}@")  # how the names of what stage `outliers` scores start


CHOSEN = ", chosen on seed "  # in the words for guidance that stage `guidance` chose


CLEAN_FID_WIDEST = 512  # features; at 2048 its matrix root takes more than a minute


class ScoreInfo(BaseModel):
    """`better` is the direction; `shared` scores have one value for all seeds of a method."""

    model_config = ConfigDict(frozen=True)
    title: str
    better: Literal["lower", "higher", "neither"]
    about: str
    shared: bool = False


SCORES: dict[str, ScoreInfo] = {
    "fid": ScoreInfo(
        title="FID", better="lower", about="Frechet distance of the extractor's features, samples against reference (torch-fidelity)"
    ),
    "fid_infinity": ScoreInfo(
        title="FID∞", better="lower", about="FID extrapolated to infinitely many samples (linear in 1/N; Chong and Forsyth 2020)"
    ),
    "fid_clean": ScoreInfo(title="FID (clean-fid)", better="lower", about="the same distance by clean-fid, as an independent check"),
    "is": ScoreInfo(title="IS", better="higher", about="Inception Score of the extractor's logits, 10 splits (torch-fidelity)"),
    "kid": ScoreInfo(title="KID", better="lower", about="kernel distance, cubic polynomial, unbiased, mean over subsets (torch-fidelity)"),
    "precision": ScoreInfo(
        title="Precision", better="higher", about="share of samples inside the k-NN balls of the reference (torch-fidelity)"
    ),
    "recall": ScoreInfo(
        title="Recall", better="higher", about="share of reference images inside the k-NN balls of the samples (torch-fidelity)"
    ),
    "clip_score": ScoreInfo(
        title="CLIP score", better="higher", about="mean of max(100 cos, 0) between a sample and its caption (open_clip)"
    ),
    "accuracy": ScoreInfo(title="Accuracy", better="higher", about="share of samples that the judge gives the label they were drawn with"),
    "geneval": ScoreInfo(title="GenEval", better="higher", about="mean over the six kinds of prompts of the share of samples that pass"),
    **{
        f"geneval_{name}": ScoreInfo(
            title=title, better="higher", about=f"share of the samples of {what} whose objects are exactly the prompt's"
        )
        for name, title, what in (
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
    "checker_accuracy": ScoreInfo(
        title="Checker",
        better="higher",
        about="share of held-out images for which GenEval's checker answers every prompt rightly",
        shared=True,
    ),
    "checker_accuracy_reconstructed": ScoreInfo(
        title="Checker, decoded", better="higher", about="the same after the decoder has reconstructed these images", shared=True
    ),
    "rfid": ScoreInfo(title="rFID", better="lower", about="FID of the decoder's reconstruction of the reference images", shared=True),
    "psnr": ScoreInfo(title="PSNR", better="higher", about="of that reconstruction, dB, mean over images", shared=True),
    "encoder_outlier_share": ScoreInfo(
        title="Outliers, encoder", better="lower", about="share of patch tokens above factor x median norm, at the worst layer", shared=True
    ),
    "encoder_max_over_median": ScoreInfo(
        title="Max/median, encoder", better="lower", about="largest norm over median norm, at the worst layer", shared=True
    ),
    "denoiser_outlier_share": ScoreInfo(
        title="Outliers, denoiser",
        better="lower",
        about="share of patch tokens above factor x median norm, at the worst block and noise level",
    ),
    "denoiser_max_over_median": ScoreInfo(
        title="Max/median, denoiser", better="lower", about="largest norm over median norm, at the worst block and noise level"
    ),
    "denoiser_middle_blocks": ScoreInfo(
        title="Middle blocks",
        better="neither",
        about="log of max/median at the worst block but the first and last, less that at the worse of those two; above 0: outliers sit inside",
    ),
    "denoiser_noise_fall": ScoreInfo(
        title="Fall with noise",
        better="neither",
        about="log of max/median at the lowest noise level, less that at the highest, each at its worst block; above 0: falls with noise",
    ),
    "filtered_share": ScoreInfo(
        title="Filtered", better="neither", about="share of training tokens that the loss mask left out", shared=True
    ),
    "parameters": ScoreInfo(title="Parameters", better="lower", about="trainable parameters of the denoiser", shared=True),
    "gflops": ScoreInfo(
        title="GFLOPs", better="lower", about="one forward pass of the denoiser for one image, 2 per multiply-add", shared=True
    ),
}


OF_PROMPTS = {name for name in SCORES if name.startswith(("geneval", "checker"))}  # where labels are prompts


def score_info(name: str) -> ScoreInfo:
    """UserError that names the nearest score for an unknown one.

    `fid@NAME` is FID against the reference NAME; `denoiser_outlier_share@block3` is of that block (0-based), `@output` of the final layer;
    `filtered_share@3` is what a loss mask at 3 x the median would leave out, `@norm100` at a norm of 100.
    """
    base, at, place = name.partition("@")
    info = SCORES[nearest(base, SCORES, "score")]
    if not at:
        return info
    if base == BY_BLOCK and re.fullmatch(r"block\d+|output", place):
        about = f"share of patch tokens above factor x median norm, mean over noise levels; after {place.replace('block', 'block ')}"
        return info.model_copy(update={"title": f"Outliers, {place.replace('block', 'block ')}", "about": about})
    if base == BY_THRESHOLD and re.fullmatch(r"(norm)?\d+(\.\d+)?", place):
        limit = f"norm {place.removeprefix('norm')}" if place.startswith("norm") else f"{place} × median"
        return info.model_copy(
            update={"title": f"Above {limit}", "about": f"share of training tokens that a loss mask would leave out at {limit}"}
        )
    if base not in COMPARED or not place:
        raise UserError(f"unknown score '{name}'; only {', '.join(COMPARED)} can be followed by @ and the name of a reference")
    return info.model_copy(update={"title": f"{info.title} ({place})", "about": f"{info.about}; reference: {place}"})


def blocks_of(study: Study) -> list[str]:
    """Where in the denoiser shares of outliers are scored: each block, those of a wide head among them, and the output."""
    return [*(f"block{place}" for place in range(len(study.denoiser.blocks))), "output"]


def thresholds_of(study: Study) -> list[str]:
    """Thresholds of a loss mask whose share is scored: multiples of the median norm, and norms."""
    section = study.outlier_statistics
    return [*(f"{multiple:g}" for multiple in section.multiples), *(f"norm{norm:g}" for norm in section.norms)]


def references_of(study: Study) -> list[str]:
    """Names of what samples are compared with; plain `fid` is against the first."""
    names = [reference.name for reference in study.evaluation.references]
    if HELD_OUT in names or len(set(names)) < len(names):
        raise UserError(
            f"study '{study.name}': evaluation.references must differ in name, and none may be called {HELD_OUT}; got {', '.join(names)}"
        )
    return [*names, HELD_OUT] if study.evaluation.reconstruction or not names else names


def scores_of(study: Study) -> list[str]:
    """Every score that a run of `study` gets, in the order of SCORES."""
    evaluation = study.evaluation
    lacking: set[str] = set()
    if study.features > CLEAN_FID_WIDEST:
        lacking |= {"fid_clean"}
    if evaluation.clip is None:
        lacking |= {"clip_score"}
    lacking |= {"accuracy"} if study.data.prompts else OF_PROMPTS  # an image can be of several prompts
    if not evaluation.judge.classifies:
        lacking |= {"accuracy"}
    if not evaluation.reconstruction:
        lacking |= {"rfid", "psnr", "checker_accuracy_reconstructed"}
    if study.denoiser.depth < 3:
        lacking |= {"denoiser_middle_blocks"}
    if len(study.outlier_statistics.times) < 2:
        lacking |= {"denoiser_noise_fall"}
    if not study.encoder.has_tokens:
        lacking |= {"encoder_outlier_share", "encoder_max_over_median"}
    names = []
    for name in SCORES:
        if name not in lacking:
            names += [name, *(f"{name}@{reference}" for reference in references_of(study)[1:] if name in COMPARED)]
        if name == BY_BLOCK:
            names += [f"{name}@{place}" for place in blocks_of(study)]
        if name == BY_THRESHOLD and study.encoder.has_tokens:
            names += [f"{name}@{place}" for place in thresholds_of(study)]
    return names
