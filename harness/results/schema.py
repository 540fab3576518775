"""What a result is: the scores there are, the file a stage leaves for a run, and the row of the long table.

Read by stages and by the report; imports no torch.
"""

import math
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from harness.results.scores import CHOSEN, score_info
from harness.study.sections.sampling import GuidanceSearch
from harness.study.study import Study
from harness.study.typed import Strict

SCHEMA = 3  # raise when a field changes its meaning
NONE = "none"  # in the place of a hash: the score has no such input
LEVEL = 0.95  # of every interval


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


class View(NamedTuple):
    """What the samples of a score were drawn with: decay and training step of the weights, and guidance in words."""

    ema: float
    step: int
    guidance: str

    @property
    def text(self) -> str:
        return f"EMA {self.ema:g}, step {self.step}, guidance {self.guidance}"

    @property
    def guided(self) -> bool:
        """Whether the guidance was searched for."""
        return CHOSEN in self.guidance

    @property
    def protocol(self) -> "View":
        """What rows of one column share: of guidance that was searched for, how; each method has its own."""
        return self._replace(guidance=self.guidance[self.guidance.index(CHOSEN) :]) if self.guided else self


class Provenance(Strict):
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


class Candidate(Strict):
    """Guidance of the grid that is searched; `fid` None: it could not be computed, because of `reason`."""

    scale: float
    interval: tuple[float, float]
    fid: float | None
    reason: str = ""


class Choice(Strict):
    """What stage `guidance` writes (JSON): every candidate's FID, and the guidance of the lowest. None was chosen where `status` is not ok."""

    study: Text
    method: Text
    seed: int  # of the denoiser and of the noise
    n: Annotated[int, Field(ge=1)]  # samples of each candidate
    reference: Hash
    extractor: Hash
    denoiser: Hash
    candidates: list[Candidate]
    scale: float
    interval: tuple[float, float]
    guidance: Text  # the same in words, with the seed
    status: Status = "ok"
    reason: str = ""


class ScoreFile(Strict):
    """What a scoring stage writes for a run (JSON). Hashes are those of the run's artifacts."""

    schema_version: Literal[3] = SCHEMA
    study: Text
    method: Text
    seed: int
    ema: float  # decay of the weights that are scored
    step: Annotated[int, Field(ge=1)]  # of training, that they are from
    guidance: Text  # in words; of weights alone: the study's
    scores: dict[str, Score]
    encoder: Hash
    registers: Hash  # neuron list of test-time registers
    latents: Hash
    decoder: Hash
    denoiser: Hash
    samples: Hash
    provenance: Provenance
    details: dict = Field(default={})  # what a figure needs besides


class Row(Strict):
    """One line of table1.csv: a score of a run, in the long format. Fields as in Score, ScoreFile and Provenance."""

    study: Text
    method: Text
    seed: int
    ema: float
    step: Annotated[int, Field(ge=1)]
    guidance: Text
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
    schema_version: Literal[3]


def plain_view(study: Study) -> View:
    """What every score of a study is of."""
    return View(study.ema, study.steps, study.sampling.guidance.text)


def chosen_text(study: Study, scale: float, interval: tuple[float, float]) -> str:
    """The words for guidance that was chosen by the study's search."""
    search: GuidanceSearch = study.sampling.guidance_search
    return f"{study.sampling.guidance.model_copy(update={'scale': scale, 'interval': interval}).text}{CHOSEN}{search.seed}"


def rows_of(file: ScoreFile) -> list[Row]:
    """The rows of one score file."""
    common = file.model_dump(exclude={"scores", "provenance", "details"}) | file.provenance.model_dump()
    rows = []
    for name, score in file.scores.items():
        info = score_info(name)
        rows.append(Row(score=name, better=info.better, shared=info.shared, **score.model_dump(), **common))
    return rows
