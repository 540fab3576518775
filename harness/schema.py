"""What a result is: the scores there are, the file a stage leaves for a run, and the row of the long table.

Read by stages and by the report; imports no torch.
"""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.config import UserError, nearest
from harness.sections import TrainedJudge
from harness.study import Study

SCHEMA = 1  # raise when a field changes its meaning
HELD_OUT = "held_out"  # name of the reference that is made of the study's held-out images
COMPARED = ("fid", "kid", "precision", "recall")  # with the study's first reference; `fid@NAME` is with another
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
    "filtered_share": ScoreInfo(
        title="Filtered", better="neither", about="share of training tokens that the loss mask left out", shared=True
    ),
    "parameters": ScoreInfo(title="Parameters", better="lower", about="trainable parameters of the denoiser", shared=True),
    "gflops": ScoreInfo(
        title="GFLOPs", better="lower", about="one forward pass of the denoiser for one image, 2 per multiply-add", shared=True
    ),
}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScoreFile(Strict):
    """What a scoring stage writes for a run. Hashes are SHA-256."""

    schema_version: Literal[1] = SCHEMA
    study: str
    method: str
    seed: int
    values: dict[str, float]  # score -> value
    n: int  # images scored
    reference: str  # hash of the data set compared with
    references: dict[str, str] = {}  # score -> that hash, for the scores that are compared with another one
    extractor: str  # hash of the weights whose features are compared; the model measured, for outlier statistics
    subject: str  # hash of what is scored: samples, or the denoiser for outlier statistics
    config: str  # hash of the stage's part of the study
    code: str  # hash of the code that computed it
    commit: str
    precision: str
    details: dict = {}  # what a figure needs besides


class Row(Strict):
    """One line of table1.csv: a score of a run, in the long format."""

    study: str
    method: str
    seed: int
    score: str
    value: float
    n: int
    better: Literal["lower", "higher", "neither"]
    shared: bool  # the same value for every seed: encoder, decoder and cost do not depend on the run's seed
    reference: str
    extractor: str
    subject: str
    config: str
    code: str
    commit: str
    precision: str


def score_info(name: str) -> ScoreInfo:
    """UserError that names the nearest score for an unknown one. `fid@NAME` is FID against the reference NAME."""
    base, at, reference = name.partition("@")
    info = SCORES[nearest(base, SCORES, "score")]
    if not at:
        return info
    if base not in COMPARED or not reference:
        raise UserError(f"unknown score '{name}'; only {', '.join(COMPARED)} can be followed by @ and the name of a reference")
    return info.model_copy(update={"title": f"{info.title} ({reference})", "about": f"{info.about}; reference: {reference}"})


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
    if not isinstance(evaluation.judge, TrainedJudge):
        lacking |= {"accuracy"}  # Inception's classes are not the study's
    if not evaluation.reconstruction:
        lacking |= {"rfid", "psnr"}
    if not study.has_vit:
        lacking |= {"encoder_outlier_share", "encoder_max_over_median"}
    names = []
    for name in SCORES:
        if name not in lacking:
            names += [name, *(f"{name}@{reference}" for reference in references_of(study)[1:] if name in COMPARED)]
    return names


def rows_of(file: ScoreFile) -> list[Row]:
    """The rows of one score file."""
    bad = [name for name, value in file.values.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"{file.study}/{file.method}/seed{file.seed}: score '{bad[0]}' is {file.values[bad[0]]}; look at this run's samples"
        )
    common = {
        field: getattr(file, field)
        for field in ("study", "method", "seed", "n", "extractor", "subject", "config", "code", "commit", "precision")
    }
    rows = []
    for name, value in file.values.items():
        info, reference = score_info(name), file.references.get(name, file.reference)
        rows.append(Row(score=name, value=value, better=info.better, shared=info.shared, reference=reference, **common))
    return rows
