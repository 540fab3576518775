"""Claims as declared hypotheses: the typed reports/claims.yaml. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from harness.report.condition import Condition
from harness.report.conditions import CONDITIONS
from harness.results.scores import scores_of
from harness.study.names import NAME
from harness.study.study import Study, study_names
from harness.study.typed import OneOf, Strict, Title, UserError, explain, nearest
from harness.study.yaml_file import read_mapping


class Claim(Strict):
    """`needs`: what the study must have for the claim to be about it. `paper_study`: its printed values stand beside other studies."""

    id: Annotated[str, Field(pattern=f"^{NAME}$")]
    text: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    needs: Literal["outliers", "two_populations"] | None = None
    note: str = ""
    printed: str = ""  # what the paper says in numbers, where harness/report/paper.yaml has no such row
    paper_study: str = "imagenet256_siglip2_b"
    conditions: Annotated[list[Annotated[Condition, OneOf(CONDITIONS)]], Field(min_length=1)]

    @field_validator("paper_study")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return nearest(name, study_names(), "study")
        except UserError as error:
            raise ValueError(str(error)) from None


class Claims(Strict):
    """The file: claims with different ids."""

    title: Title
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
        return Claims.model_validate(read_mapping(path, "claims"))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Claims)}") from None


def first(names: list[str], methods: list[str]) -> str:
    """The first of the names that is in the run, or the first; empty where there is none."""
    return next((name for name in names if name in methods), names[0] if names else "")


def lacking(claim: Claim, condition: Condition, study: Study) -> str:
    """Why the study cannot test it; empty if it can."""
    if claim.needs and study.outliers == "none":
        return "no outliers are planted in this study"
    if claim.needs == "two_populations" and study.outliers == "planted" and len(study.planted) < 2:
        return "this study has one population of outliers"
    if condition.score not in scores_of(study):
        return f"this study has no score {condition.score}"
    return condition.lacking(study)
