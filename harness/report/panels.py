"""The panels of a table, filled from rows: for every group of the specification, method and column a cell."""

from dataclasses import dataclass

import pandas as pd

from harness.report import rows as row_files
from harness.report.cells import EMPTY, Cell, cells
from harness.report.markup import TextTable
from harness.report.specs import Column, Part, TableSpec, columns_of, has, label
from harness.results.scores import of_outliers
from harness.study.method import load_method
from harness.study.seeds import PUBLISHED, run_name
from harness.study.study import Study
from harness.study.typed import UserError

SHARED = ("n", "reference", "extractor", "code")  # what the rows of all groups of a column have in common


@dataclass(frozen=True)
class FilledPanel:
    """A panel with its cells: of each part by method, in the order of `columns`."""

    title: str
    columns: list[Column]
    parts: list[tuple[Part, dict[str, list[Cell]]]]

    @property
    def text_table(self) -> TextTable:
        """As rows of texts and cells."""
        rows: list[tuple[list[str], list[Cell]]] = []
        groups: dict[int, str] = {}
        for part, of_method in self.parts:
            if part.title:
                groups[len(rows)] = part.title
            rows += [([label(part, method)], line) for method, line in of_method.items()]
        return TextTable(self.title, ["Method", *(column.heading for column in self.columns)], rows, groups)


def fill_panels(spec: TableSpec, parts: list[Part], rows: pd.DataFrame, seeds: list[int]) -> list[FilledPanel]:
    """Every panel that has a column. UserError for a row that is missing, and for two rows of a column that were measured differently."""
    names = {part.study.name for part in parts}
    for row in rows[~rows["study"].isin(names)].to_dict("records")[:1]:
        raise UserError(
            f"the rows of {row['method']}/{run_name(row['seed'])} are of study '{row['study']}', not '{', '.join(sorted(names))}'"
        )
    panels = []
    for panel in spec.panels:
        columns = columns_of(panel, parts)
        lines: list[dict[str, list[Cell]]] = [{method: [] for method in part.methods} for part in parts]
        for column in columns:
            views = [_view(column, part, rows, seeds) for part in parts]
            check_shared([view for view in views if view is not None])
            for part, view, of_method in zip(parts, views, lines, strict=True):
                for method, cell in _cells(column, part, view).items():
                    of_method[method].append(cell)
        if columns:
            panels.append(FilledPanel(panel.title, columns, list(zip(parts, lines, strict=True))))
    return panels


def rows_of_part(part: Part, rows: pd.DataFrame, seeds: list[int]) -> pd.DataFrame:
    """The rows of a part, in every view."""
    return rows[(rows["study"] == part.study.name) & rows["method"].isin(part.methods) & rows["seed"].isin([*seeds, PUBLISHED])]


def _view(column: Column, part: Part, rows: pd.DataFrame, seeds: list[int]) -> pd.DataFrame | None:
    """The rows that fill a column; None where the study has no such score."""
    if column.fact is not None or not has(part.study, column):
        return None
    view = row_files.of_view(rows_of_part(part, rows, seeds), part.study, ema=column.ema, guided=column.guided)
    view = view[view["score"] == column.score]
    there = set(zip(view["method"], view["seed"], strict=True))
    for method in part.methods:
        for seed in part.study.seeds_of(method, seeds):
            if (method, seed) not in there:
                at = f"EMA {part.study.ema if column.ema is None else column.ema:g}" + ", guided" * column.guided
                raise UserError(
                    f"no row of score '{column.score}' for {method}/{run_name(seed)} at {at} in study '{part.study.name}'; "
                    "run the whole line again"
                )
    return view


def check_shared(views: list[pd.DataFrame]) -> None:
    """UserError that names two rows of one column, of different groups, that were measured differently."""
    first = None
    for view in views:
        for row in view[view["status"] == "ok"].to_dict("records"):
            first = first or row
            own = row_files.OWN if of_outliers(row["score"]) else ()
            for field in SHARED:
                if field not in own and row[field] != first[field]:
                    here, there = (f"{one['study']}/{one['method']}/{run_name(one['seed'])}" for one in (first, row))
                    raise UserError(
                        f"score '{row['score']}' of {there} and {here} cannot share a column: {field} is {row[field]} and {first[field]}; "
                        "run the whole line again so that both are measured alike"
                    )


def _cells(column: Column, part: Part, view: pd.DataFrame | None) -> dict[str, Cell]:
    if column.fact is not None:
        return {method: Cell(fact(column.fact, part.study, method)) for method in part.methods}
    if view is None:
        return dict.fromkeys(part.methods, Cell(EMPTY))
    return cells(view, column, part.methods, part.baseline)


def fact(name: str, study: Study, method: str) -> str:
    """What a study says of a method, by the names of FACTS."""
    config = study.denoiser
    if name == "epochs" and (released := config.released.get(method)):
        return EMPTY if released.epochs is None else f"{released.epochs:.3g}"
    if name == "epochs":
        return f"{config.training.in_epochs(study.data.train_images):.3g}"
    if name == "size":
        return f"{config.width} × {config.depth}"
    registers = load_method(method).registers(study.denoiser.registers)
    return f"{registers.count} from block {registers.start}" if registers else EMPTY
