"""What samples were drawn with, the guidance that was searched for among it.

Apart from the schema, so that drawing samples does not run again where the description of a score changes.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from harness.study.sections.sampling import Guidance
from harness.study.study import Study
from harness.study.typed import Strict

CHOSEN = ", chosen on seed "  # in the words for guidance that stage `guidance` chose
OF_FILE = "of published weights "  # in the words for what samples were drawn with, before the file

Text = Annotated[str, Field(min_length=1)]
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64}|none)$")]  # SHA-256 of a file or folder; `none` where a score has no such input
Status = Literal["ok", "diverged", "failed", "skipped"]


class View(NamedTuple):
    """What the samples of a score were drawn with: decay and training step of the weights, and guidance in words."""

    ema: float
    step: int
    guidance: str

    @property
    def text(self) -> str:
        weights = f"EMA {self.ema:g}, step {self.step}" if self.step else "published weights"
        return f"{weights}, guidance {self.guidance}"

    @property
    def guided(self) -> bool:
        """Whether the guidance was searched for."""
        return CHOSEN in self.guidance

    @property
    def protocol(self) -> "View":
        """What rows of one column share: of guidance that was searched for, how; each method has its own."""
        return self._replace(guidance=self.guidance[self.guidance.index(CHOSEN) :]) if self.guided else self


class Candidate(Strict):
    """Guidance of the grid that is searched; `fid` None: it could not be computed, because of `reason`."""

    scale: float
    interval: tuple[float, float]
    fid: float | None
    reason: str = ""


class Choice(Strict):
    """What stage `guidance` writes (JSON): every candidate's FID, and the guidance of the lowest.

    None was chosen where `status` is not ok.
    """

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


def plain_view(study: Study, method: str | None = None) -> View:
    """What every score of a study is of; of a method with published weights they are neither averaged nor trained here: 0 and 0."""
    trained = method not in study.denoiser.released
    return View(study.ema if trained else 0.0, study.steps if trained else 0, study.sampling.guidance.text)


def chosen_text(guidance: Guidance, scale: float, interval: tuple[float, float], seed: int) -> str:
    """The words for a study's guidance with the scale and interval that a search chose on `seed`."""
    return f"{guidance.model_copy(update={'scale': scale, 'interval': interval}).text}{CHOSEN}{seed}"
