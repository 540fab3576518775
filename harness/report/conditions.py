"""What a claim can say of a score: the kinds of condition, each with its fields, its sentence and its test. Imports no torch.

To add a kind: its class here, a line in CONDITIONS, and a line about it at the top of reports/claims.yaml.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from harness.report.cells import named
from harness.report.statistics import Estimate, estimate
from harness.report.words import number, seeds_text
from harness.results.scores import SCORES, score_info
from harness.study.method import load_method
from harness.study.study import Study
from harness.study.typed import Share, Strict, UserError

Ruling = Literal["holds", "refuted", "undecided", "not tested"]
Names = Annotated[list[str], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Measurement:
    """What the values of all seeds say, before Holm's correction.

    `effect` is in the score's units; `relative` its mean over that of `against`.
    Of a test: `p`, two-sided; `side`, the mean that is tested against 0; `holds`, whether it lies on the claim's side.
    """

    outcome: Ruling = "undecided"
    reason: str = ""
    effect: Estimate | None = None
    relative: float | None = None
    p: float | None = None
    side: Estimate | None = None
    holds: bool = False


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

    def measure(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> Measurement:
        """`m`, `b`: values of the method and of the other, by seed (S,); `span`: range of the other's over `decays`, by seed (S,)."""
        raise NotImplementedError

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


# ---------------------------------------------------------------------------------------------------------- tests over seeds


class Tested(Condition):
    """A two-sided Student t-test over seeds, by the side that is further from chance."""

    def sides(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By seed, (S,) each, of arrays as `measure` takes them: the effect, and two values that test it.

        The first has a mean above 0 if the condition holds, the second one below 0 if it is refuted.
        """
        raise NotImplementedError

    def measure(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> Measurement:
        effect, holds, fails = map(estimate, self.sides(m, b, span))
        shown = Measurement(effect=effect, relative=effect.mean / abs(b.mean()) if self.others and b.mean() else None)
        if effect.n < 2:
            return replace(shown, reason="n = 1 seed")
        if effect.sd <= 1e-9 * abs(effect.mean) and effect.mean:
            return replace(shown, reason="the same in every seed, so there is no spread to test against")
        p_holds, p_fails = holds.p if holds.mean > 0 else 1.0, fails.p if fails.mean < 0 else 1.0
        side = holds if p_holds <= p_fails else fails
        return replace(shown, p=min(p_holds, p_fails), side=side, holds=side is holds)


class Compared(Tested):
    """Of two methods, paired by seed."""

    signed: ClassVar[bool] = True

    against: str | Names

    @property
    def others(self) -> list[str]:
        return names(self.against)


class Lower(Compared):
    """The method's score is lower."""

    refuted_if: ClassVar[str] = "it is significantly higher"

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is lower than that of {other}"

    def sides(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return m - b, b - m, b - m


class Higher(Compared):
    """The method's score is higher."""

    refuted_if: ClassVar[str] = "it is significantly lower"

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is higher than that of {other}"

    def sides(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return m - b, m - b, m - b


class NotLower(Compared):
    """A non-inferiority test against a margin; refuted by what is lower at all."""

    refuted_if: ClassVar[str] = "it is significantly lower"

    margin: Share

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is not lower than that of {other}, by a margin of {100 * self.margin:g} %"

    def sides(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return m - b, m - (1 - self.margin) * b, m - b


class EmaRangeAbove(Compared):
    """The other method varies more with the average of its weights than it differs from the method."""

    refuted_if: ClassVar[str] = "it varies significantly less"

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {other} varies more with EMA than it differs from {one}"

    def lacking(self, study: Study) -> str:
        return "" if study.sampling.averages else f"this study samples one average of the weights only (EMA {study.ema:g})"

    def decays(self, study: Study) -> list[float]:
        return study.sampled

    def sides(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        effect = span - abs(m - b)
        return effect, effect, effect


class Above(Tested):
    """The method's score is above a value."""

    refuted_if: ClassVar[str] = "it is significantly below"

    value: Finite

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is above {self.value:g}"

    def sides(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return m, m - self.value, m - self.value


# ------------------------------------------------------------------------------------- of every seed, without a test over them


class Zero(Condition):
    """A counter-example refutes it."""

    refuted_if: ClassVar[str] = "one seed is above 0"
    over_seeds: ClassVar[bool] = False
    in_words: ClassVar[bool] = True

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is 0 in every seed"

    def agrees(self, positive: int) -> bool:
        """Whether so many seeds above 0 are what it says."""
        return positive == 0

    def measure(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> Measurement:
        positive = int((m > 0).sum())
        seen = f"above 0 in {positive} of {seeds_text(len(m))}, at most {m.max():.3g}" if positive else f"0 in all of {seeds_text(len(m))}"
        if len(m) < 2:
            return Measurement(reason=f"n = 1 seed ({seen})", effect=estimate(m))
        return Measurement(outcome="holds" if self.agrees(positive) else "refuted", reason=seen, effect=estimate(m))


class NotZero(Zero):
    """The opposite of Zero."""

    refuted_if: ClassVar[str] = "every seed is 0"

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is above 0"

    def agrees(self, positive: int) -> bool:
        return positive > 0


class Ratio(Condition):
    """Of a cost, which is counted exactly, so that one value decides."""

    refuted_if: ClassVar[str] = "it is outside"
    over_seeds: ClassVar[bool] = False

    against: str | Names
    value: Finite
    margin: Share

    @property
    def others(self) -> list[str]:
        return names(self.against)

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is {self.value:g} ± {self.margin:g} times that of {other}"

    def measure(self, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> Measurement:
        inside, ratio = abs(m / b - self.value) <= self.margin, estimate(m / b)
        return Measurement(outcome="holds" if inside.all() else "refuted", reason="counted", effect=ratio, relative=ratio.mean - 1)

    def printed(self, new: float, old: float, digits: int) -> str:
        return f"{new / old:.3f}"

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if not score_info(self.score).counted:  # no estimate: one value decides
            counted = ", ".join(name for name, info in SCORES.items() if info.counted)
            raise ValueError(f"kind ratio is for scores that are counted: {counted}; not '{self.score}'")
        return self


CONDITIONS: dict[str, type[Condition]] = {
    "lower": Lower,
    "higher": Higher,
    "not_lower": NotLower,
    "above": Above,
    "zero": Zero,
    "not_zero": NotZero,
    "ratio": Ratio,
    "ema_range_above": EmaRangeAbove,
}


def names(name: str | list[str]) -> list[str]:
    """A list of the one or several names."""
    return [name] if isinstance(name, str) else name
