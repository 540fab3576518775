"""What a result is: the scores there are, the file a stage leaves for a run, and the row of the long table.

Read by stages and by the report; imports no torch.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from harness.results.scores import score_info
from harness.results.views import Hash, Status, Text
from harness.study.seeds import Seed
from harness.study.typed import Strict

SCHEMA: Final = 4  # raise when a field is added or changes its meaning
OLDEST: Final = 3  # that is read
SINCE: Final = {"sampled": 4, "content": 4}  # fields that older rows, from version 3 on, do not have
NONE = "none"  # in the place of a hash: the score has no such input
LEVEL = 0.95  # of every interval


class Score(Strict):
    """One number, or the reason why there is none.

    `low`, `high`: its interval at LEVEL within this run, over its images; `how` says how that was made, or why there is none.
    Intervals over seeds are made from rows, in harness/report/statistics.py.
    """

    value: float | None
    n: Annotated[int, Field(ge=0)]  # images it is of
    reference: Hash  # what is compared with
    content: Hash = NONE  # of the images that are compared with, by their pixels, as they were read (of tokens: none)
    extractor: Hash  # weights of the network that looks: judge, CLIP model, or the denoiser measured
    low: float | None = None
    high: float | None = None
    how: Text
    status: Status = "ok"  # diverged: training or sampling was not finite; failed: could not be computed; skipped: not applicable
    reason: str = ""

    @model_validator(mode="after")
    def _a_number_or_a_reason(self) -> Self:
        if (self.status == "ok") != (self.value is not None) or (self.status == "ok") == bool(self.reason):
            raise ValueError("a score has a value, or a status other than ok and a reason")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends")
        return self


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


class ScoreFile(Strict):
    """What a scoring stage writes for a run (JSON). Hashes are those of the run's artifacts."""

    schema_version: Literal[4] = SCHEMA
    study: Text
    method: Text
    seed: Seed
    ema: float  # decay of the weights that are scored; of published weights 0: nothing was averaged here
    step: Annotated[int, Field(ge=0)]  # of training, that they are from; of published weights 0: nothing was trained here
    guidance: Text  # in words; of weights alone: the study's
    sampled: Text = NONE  # what the samples were drawn with, as the network saw it; of weights alone: none, of published ones which file
    scores: dict[str, Score]
    encoder: Hash
    registers: Hash  # neuron list of test-time registers
    latents: Hash
    decoder: Hash
    denoiser: Hash
    samples: Hash
    provenance: Provenance
    details: dict[str, Any] = Field(default={})  # what a figure needs besides


class Row(Strict):
    """One line of table1.csv: a score of a run, in the long format. Fields as in Score, ScoreFile and Provenance.

    Of samples from outside (`dsr measure`) no denoiser is known, so that `ema` and `step` are None, and `seed` unless it was told.
    """

    study: Text
    method: Text
    seed: Seed | None
    ema: float | None
    step: Annotated[int, Field(ge=0)] | None
    guidance: Text
    sampled: Text = NONE
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
    content: Hash = NONE
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
    schema_version: Literal[3, 4]

    @model_validator(mode="after")
    def _a_run_is_told(self) -> Self:
        for field in ("seed", "ema", "step"):
            if getattr(self, field) is None and (self.samples == NONE or self.denoiser != NONE):
                raise ValueError(f"{field} is missing, which only samples from outside lack")
        return self


def rows_of(file: ScoreFile) -> list[Row]:
    """The rows of one score file."""
    common = file.model_dump(exclude={"scores", "provenance", "details"}) | file.provenance.model_dump()
    rows = []
    for name, score in file.scores.items():
        info = score_info(name)
        rows.append(Row(score=name, better=info.better, shared=info.shared, **score.model_dump(), **common))
    return rows
