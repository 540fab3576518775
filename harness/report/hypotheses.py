"""Claims as declared hypotheses: the typed reports/claims.yaml. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from harness.report.cells import named
from harness.results.scores import score_info, scores_of
from harness.study.method import load_method
from harness.study.study import Study, study_names
from harness.study.typed import Share, Strict, UserError, explain, nearest

COUNTED = ("parameters", "gflops")  # scores that are no estimates: one value decides

# kind -> the fields that it needs besides method and score
FIELDS = {
    "lower": {"against"},
    "higher": {"against"},
    "not_lower": {"against", "margin"},
    "above": {"value"},
    "zero": set(),
    "not_zero": set(),
    "ratio": {"against", "value", "margin"},
    "ema_range_above": {"against"},
}

REFUTED = {  # what refutes a condition, by kind
    "lower": "it is significantly higher",
    "higher": "it is significantly lower",
    "not_lower": "it is significantly lower",
    "above": "it is significantly below",
    "zero": "one seed is above 0",
    "not_zero": "every seed is 0",
    "ratio": "it is outside",
    "ema_range_above": "it varies significantly less",
}

Names = Annotated[list[str], Field(min_length=1)]


class Condition(Strict):
    """One comparison; reports/claims.yaml explains each `kind`. Of several names, the first method that is in the run is taken."""

    kind: str
    method: str | Names
    against: str | Names | None = None
    score: str
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    margin: Share | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        try:
            needed = FIELDS[nearest(self.kind, FIELDS, "kind")]
            for name in [*names(self.method), *names(self.against)]:
                load_method(name)
            shared = score_info(self.score).shared
        except UserError as error:
            raise ValueError(str(error)) from None
        for field in ("against", "value", "margin"):
            if (field in needed) != (getattr(self, field) is not None):
                raise ValueError(f"kind {self.kind} {'needs' if field in needed else 'has no'} {field}")
        if both := set(names(self.method)) & set(names(self.against)):
            raise ValueError(f"method {min(both)} is compared with itself")
        if self.kind == "ratio" and self.score not in COUNTED:
            raise ValueError(f"kind ratio is for scores that are counted: {', '.join(COUNTED)}; not '{self.score}'")
        if shared and self.kind not in ("zero", "not_zero", "ratio"):
            raise ValueError(f"score '{self.score}' has one value for all seeds, so kind {self.kind}, a test over seeds, cannot judge it")
        return self


class Claim(Strict):
    """`needs`: what the study must have for the claim to be about it. `paper_study`: its printed values stand beside other studies."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    text: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    needs: Literal["outliers", "two_populations"] | None = None
    note: str = ""
    printed: str = ""  # what the paper says in numbers, where harness/report/paper.yaml has no such row
    paper_study: str = "imagenet256_siglip2_b"
    conditions: Annotated[list[Condition], Field(min_length=1)]

    @field_validator("paper_study")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return nearest(name, study_names(), "study")
        except UserError as error:
            raise ValueError(str(error)) from None


class Claims(Strict):
    title: str
    claims: Annotated[list[Claim], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [claim.id for claim in self.claims]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"claim '{name}' stands there twice")
        return self


def load_claims(path: Path) -> Claims:
    """UserError in one line for what is not a list of claims, an unknown kind, method, score, field or study."""
    try:
        return Claims(**yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Claims)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise UserError(f"{path}: not a file of claims: {' '.join(str(error).split())}") from None


def names(name: str | list[str] | None) -> list[str]:
    return [name] if isinstance(name, str) else name or []


def first(name: str | list[str] | None, methods: list[str]) -> str:
    """The first of the names that is in the run, or the first; empty where there is none."""
    found = names(name)
    return next((n for n in found if n in methods), found[0] if found else "")


def lacking(claim: Claim, condition: Condition, study: Study) -> str:
    """Why the study cannot test it; empty if it can."""
    if claim.needs and study.outliers == "none":
        return "no outliers are planted in this study"
    if claim.needs == "two_populations" and study.outliers == "planted" and len(study.planted) < 2:
        return "this study has one population of outliers"
    if condition.score not in scores_of(study):
        return f"this study has no score {condition.score}"
    if condition.kind == "ema_range_above" and not study.sampling.averages:
        return f"this study samples one average of the weights only (EMA {study.ema:g})"
    return ""


def described(condition: Condition, method: str, against: str) -> str:
    """The condition as a sentence, with the methods that were taken."""
    score, one, other = score_info(condition.score).title, named(method), named(against) if against else ""
    score = f"'{score}'" if "," in score else score
    return {
        "lower": f"{score} of {one} is lower than that of {other}",
        "higher": f"{score} of {one} is higher than that of {other}",
        "not_lower": f"{score} of {one} is not lower than that of {other}, by a margin of {100 * (condition.margin or 0):g} %",
        "above": f"{score} of {one} is above {condition.value or 0:g}",
        "zero": f"{score} of {one} is 0 in every seed",
        "not_zero": f"{score} of {one} is above 0",
        "ratio": f"{score} of {one} is {condition.value or 0:g} ± {condition.margin or 0:g} times that of {other}",
        "ema_range_above": f"{score} of {other} varies more with EMA than it differs from {one}",
    }[condition.kind]
