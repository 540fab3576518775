"""What a condition of a claim is: its fields, its sentence, its test. The kinds are in conditions.py. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from harness.report.cells import named
from harness.report.statistics import Estimate, seeds_range
from harness.report.words import number
from harness.results.scores import score_info
from harness.study.method import load_method
from harness.study.study import Study
from harness.study.typed import Strict, UserError

Ruling = Literal["holds", "refuted", "undecided", "not tested"]
Names = Annotated[list[str], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Averages = dict[float, np.ndarray]  # EMA decay -> values by seed (S,)


@dataclass(frozen=True)
class Measurement:
    """What the values of all seeds say, before Holm's correction.

    `effect` is in the score's units; `relative` its mean over that of `against`.
    Of a test: `p`, two-sided; `side`, the mean that is tested against 0; `holds`, whether it lies on the claim's side; `tests`, by how many
    its level is divided. `detail`: what the reader is told beside the effect.
    """

    outcome: Ruling = "undecided"
    reason: str = ""
    effect: Estimate | None = None
    relative: float | None = None
    p: float | None = None
    side: Estimate | None = None
    holds: bool = False
    tests: int = 1
    detail: str = ""


class Condition(Strict):
    """One comparison. Of several names, the first method that is in the run is taken."""

    refuted_if: ClassVar[str]
    over_seeds: ClassVar[bool] = True  # a test over seeds, which a score with one value for all of them cannot take
    signed: ClassVar[bool] = False  # its effect is a difference
    in_words: ClassVar[bool] = False  # what was found is said in the reason, and not as an effect

    kind: str
    method: str | Names
    score: str

    @property
    def others(self) -> list[str]:
        """Names of the method that it is compared with; none where there is no such."""
        return []

    def text(self, score: str, one: str, other: str) -> str:
        """The sentence, of a score's and two methods' titles."""
        raise NotImplementedError

    def lacking(self, study: Study) -> str:
        """Why the study cannot test it, besides its scores; empty if it can."""
        return ""

    def decays(self, study: Study) -> list[float]:
        """EMA decays of the other method's weights whose scores it needs: the study's own, first."""
        return [study.ema]

    def measure(self, m: np.ndarray, b: np.ndarray, averages: Averages) -> Measurement:
        """`m`, `b`: values of the method and of the other, by seed (S,); `averages`: the other's by its `decays`, first those of `b`."""
        raise NotImplementedError

    def needed(self, side: Estimate, alpha: float, most: int) -> tuple[int | None, int | None]:
        """Fewest and most seeds with which a test of level `alpha` would decide; None beyond `most`."""
        return seeds_range(side, alpha=alpha, most=most)

    def printed(self, new: float, old: float, digits: int) -> str:
        """The same comparison of two values that the paper prints with that many digits."""
        return number(new - old, digits, signed=True)

    def described(self, method: str, against: str) -> str:
        """The condition as a sentence, with the methods that were taken; `against` is empty where there is none."""
        title = score_info(self.score).title
        return self.text(f"'{title}'" if "," in title else title, named(method), named(against) if against else "")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.keys() <= cls.model_fields.keys():  # a misspelled field is another mistake
            for name, field in cls.model_fields.items():
                if field.is_required() and fields.get(name) is None:
                    raise ValueError(f"kind {fields.get('kind')} needs {name}")
        return fields

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            for name in [*names(self.method), *self.others]:
                load_method(name)
            shared = score_info(self.score).shared
        except UserError as error:
            raise ValueError(str(error)) from None
        if both := set(names(self.method)) & set(self.others):
            raise ValueError(f"method {min(both)} is compared with itself")
        if shared and self.over_seeds:
            raise ValueError(f"score '{self.score}' has one value for all seeds, so kind {self.kind}, a test over seeds, cannot judge it")
        return self


def names(name: str | list[str]) -> list[str]:
    """A list of the one or several names."""
    return [name] if isinstance(name, str) else name
