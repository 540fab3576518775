"""Table specifications, reports/tables/<name>.yaml: which methods of which studies are the rows, which scores the columns.

Read by the Snakefile, so neither torch nor pandas here.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from harness.report import paper
from harness.results.scores import SCORES, ScoreInfo, score_info, scores_of
from harness.study import places
from harness.study.folders import PROJECT
from harness.study.method import load_method, method_names
from harness.study.names import names_in
from harness.study.study import Study, family, study_names
from harness.study.typed import Strict, Title, UserError, check_titles, explain, nearest
from harness.study.yaml_file import mapping, read_text

TABLES = PROJECT / "reports" / "tables"
ARROW = {"lower": " ↓", "higher": " ↑", "neither": ""}
FACTS = {"epochs": "Epochs", "size": "Width × blocks", "registers": "Registers"}
PAPER = "imagenet256"  # the family at the paper's scale
MEASURED = (  # what must be the same in all studies of a table
    "data", "evaluation.judge", "evaluation.clip", "evaluation.references", "evaluation.kid_subset", "evaluation.kid_subsets",
    "evaluation.neighbours", "sampling.count", "sampling.labels", "outlier_statistics",
)  # fmt: skip
OfPaper = Literal["quoted", "text_to_image"]  # tables that only the paper has
BLOCKS_SHOWN = 8  # of a deeper denoiser those that the paper prints, or as many evenly spaced ones


class Column(Strict):
    """A score, its difference to the group's baseline paired by seed, or a fact of the study.

    Values are multiplied by `scale` and have `digits` decimals; None: as the score's description says, whose unit then stands in the
    heading. `ema`: of the weights averaged with this decay (None: those that are sampled for every score). `guided`: of the samples drawn
    with the guidance that was searched for. `each` makes one column of every EMA decay, block or threshold of the study.
    """

    score: str | None = None
    fact: str | None = None
    title: Title | None = None
    difference: bool = False
    scale: float | None = None
    digits: Annotated[int, Field(ge=0, le=8)] | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    guided: bool = False
    each: Literal["ema", "block", "threshold"] | None = None

    @model_validator(mode="after")
    def _score_or_fact(self) -> Self:
        if (self.score is None) == (self.fact is None):
            raise ValueError("a column needs either a score or a fact")
        try:
            if self.score is not None:
                self._each_fits(score_info(self.score))
            else:
                nearest(self.fact, FACTS, "fact")
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    def _each_fits(self, info: ScoreInfo) -> None:
        if self.each not in (None, "ema", info.places.kind if info.places else None):
            owners = [name for name, known in SCORES.items() if known.places and known.places.kind == self.each]
            raise UserError(f"each: {self.each} belongs to score {', '.join(owners)}")

    @property
    def scored(self) -> str:
        """The score of a column that shows one."""
        if self.score is None:
            raise ValueError(f"a column of the fact '{self.fact}' has no score")
        return self.score

    @property
    def heading(self) -> str:
        if self.fact is not None:
            return self.title or FACTS[self.fact]
        info = score_info(self.scored)
        unit = f", {info.unit}" if info.unit and self.scale is None else ""
        title = self.title or info.title + unit + ", guided" * self.guided
        return title + ("" if self.difference else ARROW[info.better])

    def text(self, value: float) -> str:
        info = score_info(self.scored)
        scale, digits = (own if own is not None else told for own, told in ((self.scale, info.scale), (self.digits, info.digits)))
        return f"{value * scale:{'+' if self.difference else ''}.{digits}f}".replace("-", "−")


def _differ(titles: list[tuple[str, str]], what: str) -> None:
    try:
        check_titles(titles, what)
    except UserError as error:
        raise ValueError(str(error)) from None


class Panel(Strict):
    title: Title
    columns: Annotated[list[Column], Field(min_length=1)]

    @model_validator(mode="after")
    def _headings_differ(self) -> Self:
        _differ([(str(column.score or column.fact), column.heading) for column in self.columns if column.each is None], "columns")
        return self


class Group(Strict):
    """Rows of one study: its `methods` (None: those of the study). `study`: its name by family; None: the configured study.

    `baseline`: another one than the table's. `paper`: rows that only the paper has, of models that no study here can be compared with.
    """

    title: Title | None = None
    study: dict[str, str] | None = None
    methods: Annotated[list[str], Field(min_length=1)] | None = None
    baseline: str | None = None
    paper: OfPaper | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        try:
            for of, name in (self.study or {}).items():
                nearest(name, study_names(), "study")
                nearest(of, sorted({family(known) for known in study_names()}), "family of studies")
            for method in [*(self.methods or ()), self.baseline or "baseline"]:
                load_method(method)
        except UserError as error:
            raise ValueError(str(error)) from None
        if self.methods and self.baseline and self.baseline not in self.methods:
            raise ValueError(f"baseline '{self.baseline}' is none of the group's methods")
        if self.paper and (self.study or self.methods):
            raise ValueError("a group of the paper alone has no study and no methods")
        return self


class TableSpec(Strict):
    title: Title
    caption: str = ""
    baseline: str = "baseline"  # of each group: what its other methods are compared with
    groups: Annotated[list[Group], Field(min_length=1)] = Field(default_factory=lambda: [Group()])
    panels: Annotated[list[Panel], Field(min_length=1)]

    @model_validator(mode="after")
    def _titles_differ(self) -> Self:
        _differ([(f"panel {place}", panel.title) for place, panel in enumerate(self.panels, start=1)], "panels")
        return self

    @property
    def of_one_study(self) -> bool:
        """Whether it is of the configured study, whichever that is."""
        return all(group.study is None and group.paper is None for group in self.groups)


@dataclass(frozen=True)
class Part:
    """A group of a table for the configured study's family: rows of `methods` in `study`, differences to `baseline`."""

    study: Study
    methods: list[str]
    title: str | None = None
    baseline: str = "baseline"


def load_table(name: str) -> TableSpec:
    """Of reports/tables/<name>.yaml. UserError, in one line, for a table that there is not and what is not a specification."""
    return load_spec(TABLES / f"{nearest(name, names_in(TABLES, '.yaml', 'table'), 'table')}.yaml")


def load_spec(path: Path) -> TableSpec:
    """UserError, in one line, for what is not a specification, and for an unknown method, score or study in it."""
    try:
        return parse_spec(read_text(path), str(path))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, TableSpec)}") from None


@cache
def parse_spec(text: str, where: str = "a table") -> TableSpec:
    """Of the text of a specification, from `where`. UserError for no mapping, pydantic's ValidationError for what does not fit."""
    return TableSpec.model_validate(mapping(text, where, "table fields"))


def parts(spec: TableSpec, study: Study, methods: list[str]) -> list[Part]:
    """The groups of a table that have rows, for the configured study and its methods."""
    shown = []
    for group in spec.groups:
        name = (group.study or {}).get(study.family)
        if group.paper or (group.study and name is None):
            continue
        of = study if name in (None, study.name) else places.study_named(name)
        own = methods if of is study else of.methods or method_names()
        shown.append(Part(of, group.methods or own, group.title, group.baseline or spec.baseline))
    for part in shown[1:]:
        _check_alike(spec, shown[0].study, part.study)
    where = f"table '{spec.title}'"
    check_titles([(part.study.name, part.title) for part in shown if part.title], where)
    for title in {part.title for part in shown}:
        rows = {method: label(part, method) for part in shown if part.title == title for method in part.methods}
        check_titles(rows.items(), where)
    return shown


def label(part: Part, method: str) -> str:
    """Of a method's row; that of a group with a title is not of RAE-DiT alone."""
    title = load_method(method).title
    return title.partition(" (")[0] if part.title and method == "baseline" else title


def _check_alike(spec: TableSpec, one: Study, other: Study) -> None:
    """UserError where two studies of a table are measured differently by what they say, which is known before any training."""
    for name in MEASURED:
        here, there = (places.field(study, name) for study in (one, other))
        if here != there:
            raise UserError(
                f"table '{spec.title}': studies '{one.name}' and '{other.name}' cannot share its columns: {name} is {here} and {there}"
            )


def paper_groups(spec: TableSpec, study: Study) -> list[OfPaper]:
    """The groups of the paper alone, which studies at its scale show: what each holds."""
    return [group.paper for group in spec.groups if group.paper and study.family == PAPER]


def table_names(study: Study) -> list[str]:
    """The tables that the family of `study` has, `table1` first."""
    names = sorted(names_in(TABLES, ".yaml", "table"), key=lambda name: (name != "table1", name))
    specs = {name: load_table(name) for name in names}
    return [name for name, spec in specs.items() if parts(spec, study, ["baseline"]) or paper_groups(spec, study)]


def views(spec: TableSpec) -> set[str]:
    """Which files of a run its columns need besides the scores and outlier statistics that all runs have: `guided`."""
    return {"guided"} if any(column.guided for panel in spec.panels for column in panel.columns) else set()


def has(study: Study, column: Column) -> bool:
    """Whether the runs of `study` get what the column shows."""
    if column.fact is not None:
        return True
    searched = study.sampling.guidance_search is not None or not column.guided
    return column.score in scores_of(study) and searched and (column.ema is None or column.ema in study.sampled)


def columns_of(panel: Panel, parts: list[Part]) -> list[Column]:
    """The columns that any of the parts has, those of `each` spread out."""
    columns: list[Column] = []
    for column in panel.columns:
        for part in parts:
            spread = {"ema": _each_ema, "block": _each_block, "threshold": _each_place, None: _itself}[column.each]
            columns += [one for one in spread(column, part.study) if one not in columns and has(part.study, one)]
    return columns


def _one(column: Column, **changes: object) -> Column:
    return column.model_copy(update={"each": None} | changes)


def _itself(column: Column, _study: Study) -> list[Column]:
    return [column]


def _each_ema(column: Column, study: Study) -> list[Column]:
    title = column.title or score_info(column.scored).title
    return [_one(column, ema=decay, title=f"{title}, EMA {decay:g}") for decay in sorted(study.sampled)]


def _each_place(column: Column, study: Study) -> list[Column]:
    return [_one(column, score=f"{column.score}@{place}") for place in _places(column, study)]


def _places(column: Column, study: Study) -> list[str]:
    """Where in the study the score of a column is taken, too."""
    places_of_score = score_info(column.scored).places
    return places_of_score.of(study) if places_of_score else []


def _each_block(column: Column, study: Study) -> list[Column]:
    *blocks, output = _places(column, study)
    printed = paper.paper().outlier_shares
    if study.name == printed.study:
        blocks = [f"block{block}" for block in printed.blocks]
    elif len(blocks) > BLOCKS_SHOWN:
        last = len(blocks) - 1
        blocks = [blocks[round(place * last / (BLOCKS_SHOWN - 1))] for place in range(BLOCKS_SHOWN)]
    return [_one(column, score=f"{column.score}@{place}") for place in (*blocks, output)]
