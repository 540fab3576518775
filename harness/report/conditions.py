"""What a claim can say of a score: the kinds of condition, each with its fields, its sentence and its test. Imports no torch.

To add a kind: its class here, a line in CONDITIONS, and a line about it at the top of reports/claims.yaml.
"""

from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
from pydantic import model_validator

from harness.report.condition import Averages, Condition, Finite, Measurement, Names, names
from harness.report.statistics import Estimate, estimate, seeds_range, skewed_p
from harness.report.words import seeds_text
from harness.results.scores import SCORES, score_info
from harness.study.study import Study
from harness.study.typed import Share

# ---------------------------------------------------------------------------------------------------------- tests over seeds


class Tested(Condition):
    """A two-sided Student t-test over seeds."""

    def sides(self, m: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By seed, (S,) each, of arrays as `measure` takes them: the effect, and what is tested: above 0 if the condition holds."""
        raise NotImplementedError

    def chance(self, side: Estimate) -> float:
        """Two-sided p of what is tested."""
        return side.p

    def measure(self, m: np.ndarray, b: np.ndarray, averages: Averages) -> Measurement:
        effect, side = map(estimate, self.sides(m, b))
        shown = Measurement(effect=effect, relative=effect.mean / abs(b.mean()) if self.others and b.mean() else None)
        if reason := untestable(effect):
            return replace(shown, reason=reason)
        return replace(shown, p=self.chance(side), side=side, holds=side.mean > 0)


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

    def sides(self, m: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return m - b, b - m


class Higher(Compared):
    """The method's score is higher."""

    refuted_if: ClassVar[str] = "it is significantly lower"

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is higher than that of {other}"

    def sides(self, m: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return m - b, m - b


class NotLower(Compared):
    """Whether a fall is inside of a margin: the same test, against the margin. So that more seeds always decide, 0 plays no part."""

    refuted_if: ClassVar[str] = "it is lower by significantly more than the margin"

    margin: Share

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is not lower than that of {other}, by a margin of {100 * self.margin:g} %"

    def sides(self, m: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return m - b, m - (1 - self.margin) * b


class EmaAbove(Compared):
    """Another average of the other's weights moves its score further from that of its own average than the method does."""

    refuted_if: ClassVar[str] = "it moves significantly less at every decay"

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {other} differs more between two EMA decays than from {one}"

    def lacking(self, study: Study) -> str:
        return "" if study.sampling.averages else f"this study samples one average of the weights only (EMA {study.ema:g})"

    def decays(self, study: Study) -> list[float]:
        return study.sampled

    def measure(self, m: np.ndarray, b: np.ndarray, averages: Averages) -> Measurement:
        """|C| > |R| for a contrast C of decays and one R of methods, both paired: if C + R and C - R are not 0 and have one sign.

        p is the larger of theirs; that |C| and |R| are equal makes one of them 0, so it errs no more often than that one's test.
        """
        own, *others = averages
        moved = m - b
        contrasts = {decay: averages[decay] - b for decay in others}
        widest = max(contrasts, key=lambda decay: abs(contrasts[decay].mean()))
        effect = estimate(_smaller(contrasts[widest], moved))
        shown = Measurement(effect=effect, relative=effect.mean / abs(b.mean()) if b.mean() else None, detail=f"EMA {widest:g}, {own:g}")
        pairs = [(estimate(contrast + moved), estimate(contrast - moved)) for contrast in contrasts.values()]
        if reason := next((reason for pair in pairs for one in pair if (reason := untestable(one))), ""):
            return replace(shown, reason=reason)
        p = [max(plus.p, minus.p) for plus, minus in pairs]
        more = [(plus.mean > 0) == (minus.mean > 0) for plus, minus in pairs]
        p_holds = min([1.0, *(len(p) * one for one, is_more in zip(p, more, strict=True) if is_more)])  # one decay is enough
        p_fails = 1.0 if any(more) else max(p)  # every decay must
        return replace(shown, p=min(p_holds, p_fails), side=effect, holds=effect.mean > 0, tests=len(p) if any(more) else 1)


def _smaller(contrast: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """By seed (S,): what is |mean of contrast| - |mean of moved| on average."""
    return np.sign(contrast.mean()) * contrast - np.sign(moved.mean()) * moved


class Above(Tested):
    """The method's score is above a value."""

    refuted_if: ClassVar[str] = "it is significantly below"

    value: Finite

    def text(self, score: str, one: str, other: str) -> str:
        return f"{score} of {one} is above {self.value:g}"

    def sides(self, m: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return m, m - self.value

    def chance(self, side: Estimate) -> float:
        return skewed_p(side)  # seeds of one method may be skewed; differences of two cancel that

    def needed(self, side: Estimate, alpha: float, most: int) -> tuple[int | None, int | None]:
        return seeds_range(side, alpha=alpha, most=most, skewed=True)


def untestable(effect: Estimate) -> str:
    """Why there is nothing to test over seeds; empty if there is."""
    if effect.n < 2:
        return "n = 1 seed"
    return "the same in every seed, so there is no spread to test against" if effect.mean and not effect.spreads else ""


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

    def measure(self, m: np.ndarray, b: np.ndarray, averages: Averages) -> Measurement:
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

    def measure(self, m: np.ndarray, b: np.ndarray, averages: Averages) -> Measurement:
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
    "ema_above": EmaAbove,
}
