"""What a result is: the scores there are, the file a stage leaves for a run, and the row of the long table.

Read by stages and by the report; imports no torch.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.config import UserError, nearest
from harness.sections import TrainedJudge
from harness.study import Study

SCHEMA = 2  # raise when a field changes its meaning
HELD_OUT = "held_out"  # name of the reference that is made of the study's held-out images
NONE = "none"  # in the place of a hash: the score has no such input
LEVEL = 0.95  # of every interval
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


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


Text = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64}|none)$")]  # SHA-256 of a file or folder; `none` where a score has no such input
Status = Literal["ok", "diverged", "failed", "skipped"]


class Score(Strict):
    """One number, or the reason why there is none.

    `low`, `high`: its interval at LEVEL within this run, over its images; `how` says how that was made, or why there is none.
    Intervals over seeds are made from rows, in harness/report/statistics.py.
    """

    value: float | None
    n: Annotated[int, Field(ge=0)]  # images it is of
    reference: Hash  # what is compared with
    extractor: Hash  # weights of the network that looks: judge, CLIP model, or the denoiser measured
    low: float | None = None
    high: float | None = None
    how: Text
    status: Status = "ok"  # diverged: training or sampling was not finite; failed: could not be computed; skipped: not applicable
    reason: str = ""

    @model_validator(mode="after")
    def _a_number_or_a_reason(self) -> Self:
        numbers = [number for number in (self.value, self.low, self.high) if number is not None]
        if (self.status == "ok") != (self.value is not None) or (self.status == "ok") == bool(self.reason):
            raise ValueError("a score has a value, or a status other than ok and a reason")
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"value {self.value} with interval {self.low} to {self.high} is not finite")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends")
        return self


class Made(Strict):
    """How a number was made, besides its inputs. Seconds are in the artifacts' records: they differ from run to run."""

    config: Text  # hash of the stage's part of the study
    code: Text  # hash of the code that computed it
    commit: Text
    dirty: bool  # whether what decides a result differed from the commit
    precision: Text  # of training and sampling
    tf32: bool
    compile: bool
    versions: Text  # of the libraries
    device: Text


class ScoreFile(Strict):
    """What a scoring stage writes for a run (JSON). Hashes are those of the run's artifacts."""

    schema_version: Literal[2] = SCHEMA
    study: Text
    method: Text
    seed: int
    ema: float  # decay of the weights that are scored
    scores: dict[str, Score]
    encoder: Hash
    registers: Hash  # neuron list of test-time registers
    latents: Hash
    decoder: Hash
    denoiser: Hash
    samples: Hash
    made: Made
    details: dict = {}  # what a figure needs besides


class Row(Strict):
    """One line of table1.csv: a score of a run, in the long format. Fields as in Score, ScoreFile and Made."""

    study: Text
    method: Text
    seed: int
    ema: float
    score: Text
    value: float | None
    low: float | None
    high: float | None
    how: Text
    n: int
    status: Status
    reason: str
    better: Literal["lower", "higher", "neither"]
    shared: bool  # the same value for every seed: encoder, decoder and cost do not depend on the run's seed
    reference: Hash
    extractor: Hash
    encoder: Hash
    registers: Hash
    latents: Hash
    decoder: Hash
    denoiser: Hash
    samples: Hash
    config: Text
    code: Text
    commit: Text
    dirty: bool
    precision: Text
    tf32: bool
    compile: bool
    versions: Text
    device: Text
    schema_version: Literal[2]


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
    if study.denoiser.depth < 3:
        lacking |= {"denoiser_middle_blocks"}
    if len(study.outlier_statistics.times) < 2:
        lacking |= {"denoiser_noise_fall"}
    if not study.has_vit:
        lacking |= {"encoder_outlier_share", "encoder_max_over_median"}
    names = []
    for name in SCORES:
        if name not in lacking:
            names += [name, *(f"{name}@{reference}" for reference in references_of(study)[1:] if name in COMPARED)]
    return names


def rows_of(file: ScoreFile) -> list[Row]:
    """The rows of one score file."""
    common = file.model_dump(exclude={"scores", "made", "details"}) | file.made.model_dump()
    rows = []
    for name, score in file.scores.items():
        info = score_info(name)
        rows.append(Row(score=name, better=info.better, shared=info.shared, **score.model_dump(), **common))
    return rows
