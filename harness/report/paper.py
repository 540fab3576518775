"""The values that the paper prints, from harness/report/paper.yaml, each with its source. Imports no torch."""

import math
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from harness.results.scores import BY_BLOCK, score_info
from harness.study.folders import CODE
from harness.study.method import load_method, method_names
from harness.study.study import load_study, study_names
from harness.study.typed import Count, Decay, Fraction, Positive, Strict, UserError, explain, nearest
from harness.study.yaml_file import read_mapping

FILE = CODE / "harness" / "report" / "paper.yaml"

Named = Annotated[list[str], Field(min_length=1)]
Counts = Literal["trainable", "all"]
GUIDED = "used, its kind and scale not given"


class TrainingImages(Strict):
    """What a model is trained on."""

    train_images: Count
    classes: Count
    image_size: Count


class Protocol(Strict):
    """What a value depends on besides the method. None: the paper and its code do not give it."""

    data: TrainingImages | None = None
    judge: Literal["inception"] | None = None  # whose features are compared
    reference: str | None = None  # one of a study's references
    labels: Literal["equal", "random"] | None = None
    nfe: Count | None = None
    guidance: str | None = None  # `none`, or kind and scale
    ema: Decay | None = None
    unclear: list[str] = Field(default=[])  # what else is not given


class PrintedProtocol(Protocol):
    """The protocol of the printed rows of some studies and methods; None: all."""

    studies: Named
    methods: Named | None = None


class Printed(Strict):
    """A value as printed: in the units of harness.results.schema, with `digits` decimals (-6: whole millions).

    `samples`, `epochs`: where given. Of parameters, `counts` says which ones. `cut`: further digits were cut off, not rounded.
    """

    value: float
    digits: int
    sources: list[str]
    epochs: Positive | None = None
    samples: Count | None = None
    protocol: Protocol = Protocol()
    note: str | None = None
    counts: Counts = "trainable"
    cut: bool = False

    @property
    def text(self) -> str:
        """The value as it stands in the paper."""
        return f"{self.value:.{self.digits}f}" if self.digits >= 0 else f"{self.value / 10**-self.digits:.0f}"

    def matches(self, ours: float) -> bool:
        """Whether `ours`, rounded or cut as the paper does, is the printed value."""
        unit = 10**self.digits
        return (math.floor if self.cut else round)(ours * unit) == round(self.value * unit)


class PrintedRow(Strict):
    """Scores of one method, in every study that stands for the same row."""

    studies: Named
    method: str
    sources: Named
    scores: Annotated[dict[str, float], Field(min_length=1)]
    epochs: Positive | None = None
    samples: Count | None = None
    guided: bool = False
    note: str | None = None
    counts: Counts = "trainable"
    cut: bool = False


class Curve(Strict):
    """A score over epochs, read off a figure to within `error`."""

    study: str
    method: str
    source: str
    score: str
    error: Positive
    samples: Count | None = None
    epochs: Annotated[list[Count], Field(min_length=1)]
    values: list[float]

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.epochs) != len(self.values) or self.epochs != sorted(set(self.epochs)):
            raise ValueError("a curve needs rising epochs, and one value for each")
        return self


class BlockShares(Strict):
    """Shares of outlier tokens after each of the listed blocks, and in the output."""

    blocks: list[Fraction]
    output: Fraction


class OutlierShares(Strict):
    """Shares of outlier tokens after `blocks` (0-based) of the denoiser, by method."""

    study: str
    source: str
    blocks: list[Annotated[int, Field(ge=0)]]
    methods: dict[str, BlockShares]

    @model_validator(mode="after")
    def _columns(self) -> Self:
        if any(len(shares.blocks) != len(self.blocks) for shares in self.methods.values()):
            raise ValueError("every method needs one share for each block")
        return self


class Quoted(Strict):
    """A model that the paper quotes from another paper."""

    model: str
    source: str
    epochs: Count
    parameters: Count
    fid: Positive | None = None
    guided_fid: Positive | None = None


class TextToImage(Strict):
    """Benchmarks of text to image, in percent."""

    model: str
    sources: Named
    geneval: Positive
    dpg_bench: Positive


class Paper(Strict):
    """harness/report/paper.yaml."""

    sources: dict[str, str]
    digits: dict[str, int]
    protocols: list[PrintedProtocol]
    rows: list[PrintedRow]
    curves: list[Curve]
    outlier_shares: OutlierShares
    quoted: list[Quoted]
    text_to_image: list[TextToImage]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        """Studies, methods, scores, sources and numbers of decimals."""
        try:
            methods = [(study, row.method) for row in self.rows for study in row.studies]
            methods += [(study, method) for one in self.protocols for study in one.studies for method in one.methods or ["baseline"]]
            methods += [(curve.study, curve.method) for curve in self.curves]
            methods += [(self.outlier_shares.study, method) for method in self.outlier_shares.methods]
            for study, method in dict.fromkeys(methods):
                _check_method(study, method)
            for score in [*(score for row in self.rows for score in row.scores), *(curve.score for curve in self.curves)]:
                score_info(score)
                nearest(score, self.digits, "entry of digits")
            named = [source for row in self.rows for source in row.sources]
            named += [source for one in self.text_to_image for source in one.sources]
            named += [one.source for one in self.curves] + [self.outlier_shares.source] + [one.source for one in self.quoted]
            for source in named:
                nearest(source, self.sources, "source")
        except UserError as error:
            raise ValueError(str(error)) from None
        seen: set[tuple[str, str, bool, str]] = set()
        for row in self.rows:
            for key in [(study, row.method, row.guided, score) for study in row.studies for score in row.scores]:
                if key in seen:
                    raise ValueError(f"{key[3]} of {key[1]} in {key[0]} stands there twice")
                seen.add(key)
        return self

    def protocol(self, study: str, method: str, *, guided: bool = False) -> Protocol:
        """Of the rows of a method: what all matching entries say, a later one on top."""
        fields: dict[str, object] = {}
        unclear: list[str] = []
        for rows in self.protocols:
            if study in rows.studies and method in (rows.methods or [method]):
                fields |= {field: value for field in Protocol.model_fields if (value := getattr(rows, field)) is not None}
                unclear += rows.unclear
        return Protocol(**fields | {"unclear": unclear} | ({"guidance": GUIDED} if guided else {}))


def _check_method(study: str, method: str) -> None:
    load_method(method)
    nearest(method, load_study(study).methods or method_names(), f"method of study '{nearest(study, study_names(), 'study')}'")


@cache
def paper() -> Paper:
    """The whole file. UserError, in one line, for a value that does not fit or a name that does not exist."""
    return parse(read_mapping(FILE, "the paper's values"))


def parse(values: dict[str, Any]) -> Paper:
    """UserError, in one line, for what does not fit."""
    try:
        return Paper(**values)
    except ValidationError as error:
        raise UserError(f"{FILE}: {explain(error, Paper)}") from None


def values(study: str, guided: bool = False) -> dict[str, dict[str, Printed]]:
    """method -> score -> what the paper prints for it in this study; nothing where the paper has no such row.

    `guided`: the values under guidance.
    """
    source = paper()
    printed_by_method: dict[str, dict[str, Printed]] = {}
    for row in source.rows:
        if study in row.studies and row.guided == guided:
            facts = row.model_dump(include={"epochs", "samples", "note", "counts", "cut"})
            facts |= {
                "sources": [source.sources[name] for name in row.sources],
                "protocol": source.protocol(study, row.method, guided=guided),
            }
            scores = printed_by_method.setdefault(row.method, {})
            scores |= {score: Printed(value=value, digits=source.digits[score], **facts) for score, value in row.scores.items()}
    shares = source.outlier_shares
    if study == shares.study and not guided:
        unclear = {"unclear": ["threshold, noise level and number of images"]}
        for method, of_method in shares.methods.items():
            facts = {"digits": 2, "sources": [source.sources[shares.source]]}
            facts["protocol"] = source.protocol(study, method).model_copy(update=unclear)
            places = [*(f"block{block}" for block in shares.blocks), "output"]
            printed = zip(places, [*of_method.blocks, of_method.output], strict=True)
            printed_by_method.setdefault(method, {}).update(
                {f"{BY_BLOCK}@{place}": Printed(value=value, **facts) for place, value in printed}
            )
    return printed_by_method


def curves(study: str) -> dict[str, Curve]:
    """method -> its digitised FID over epochs; `source` spelled out."""
    nearest(study, study_names(), "study")
    source = paper()
    return {
        curve.method: curve.model_copy(update={"source": f"{source.sources[curve.source]}, ±{curve.error:g}"})
        for curve in source.curves
        if curve.study == study
    }
