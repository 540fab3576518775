"""Stage `table`: a table from rows and a spec, as Markdown, LaTeX, the long CSV and parquet."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import artifacts
from harness.config import UserError, explain, load_method
from harness.report import beside
from harness.report import rows as row_files
from harness.report.cells import Column, cells
from harness.report.markup import Grid, floating, footnotes, markdown, superscript
from harness.report.notes import notes
from harness.schema import score_info, scores_of
from harness.study import Study


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Panel(Strict):
    title: str
    columns: Annotated[list[Column], Field(min_length=1)]


class Spec(Strict):
    title: str
    baseline: str
    panels: Annotated[list[Panel], Field(min_length=1)]

    def for_study(self, study: Study) -> "Spec":
        """Without the columns of scores that the study does not have, such as the judge's accuracy where that is Inception."""
        has = set(scores_of(study))
        panels = [p.model_copy(update={"columns": [c for c in p.columns if c.score in has]}) for p in self.panels]
        return self.model_copy(update={"panels": [panel for panel in panels if panel.columns]})


def load_spec(path: Path) -> Spec:
    """UserError, in one line, for what is not a specification."""
    try:
        spec = Spec(**yaml.safe_load(path.read_text()))
        for panel in spec.panels:
            for column in panel.columns:
                score_info(column.score)
        return spec
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Spec)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise UserError(f"{path}: not a table specification: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def grid(panel: Panel, table: pd.DataFrame, methods: list[str], baseline: str) -> Grid:
    """A panel with its values; `table`: the rows of one EMA decay."""
    columns = [cells(table, column, methods, baseline) for column in panel.columns]
    rows = [([load_method(method).title], [column[method] for column in columns]) for method in methods]
    return Grid(panel.title, ["Method", *(column.heading for column in panel.columns)], rows)


def document(study: Study, rows: pd.DataFrame, methods: list[str], seeds: list[int], spec: Spec) -> tuple[str, str]:
    """(Markdown, LaTeX) of the table, from all rows of the study alone. UserError names a row that is missing or of another study."""
    wanted, table = spec.for_study(study), row_files.of_average(rows, study.ema)
    scores = list(dict.fromkeys([*(column.score for panel in wanted.panels for column in panel.columns), "fid", "fid_infinity"]))
    row_files.check_complete(study, table, methods, seeds, scores)
    table = table[table["method"].isin(methods) & table["seed"].isin(seeds)]
    title = f"{wanted.title}: {study.title}"
    panels = [grid(panel, table, methods, wanted.baseline) for panel in wanted.panels]
    floats = [(f"tab:{study.name}", panels, notes(study, table, methods, seeds))]
    lines = beside.lines(study, table, methods)
    if lines:
        floats.append((f"tab:{study.name}-paper", [beside.grid(lines)], beside.NOTES))
    grids = [one for _, some, _ in floats for one in some]
    numbers = footnotes(grids)
    below = [f"{superscript(number)} {reason}." for reason, number in numbers.items()] + [line for *_, under in floats for line in under]
    text = "\n".join([f"# {title}\n", *(markdown(one, numbers) for one in grids), *(f"- {line}" for line in below), ""])
    tex = [floating(some, numbers, caption=[f"{title}.", *under], label=label) for label, some, under in floats]
    return text, "\n".join(["% Needs \\usepackage{booktabs,graphicx}", *tex])


def render(study: Study, *, methods: list[str], seeds: list[int], results: Path, spec: Path, out: Path) -> dict:
    """Write `out` (.md), and beside it .csv, .tex, rows.parquet, times.csv, and paper.csv where the paper has values of the study."""
    rows = row_files.collect(study, methods, seeds, results)
    markdown_, tex = document(study, rows, methods, seeds, load_spec(spec))
    artifacts.write_text(out.with_name("times.csv"), row_files.times(results).to_csv(index=False, lineterminator="\n"))
    row_files.to_parquet(rows, out.with_name("rows.parquet"))
    lines = beside.lines(study, row_files.of_average(rows, study.ema), methods)
    if lines:
        artifacts.write_text(out.with_name("paper.csv"), beside.to_csv(lines))
    artifacts.write_text(out.with_suffix(".csv"), row_files.to_csv(rows))
    artifacts.write_text(out.with_suffix(".tex"), tex)
    artifacts.write_text(out, markdown_)
    return {"rows": len(rows), "table": str(out)}
