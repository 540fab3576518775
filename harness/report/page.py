"""Stage `page`: tables, claims and figures of a study on one HTML page, where each number opens where it comes from.

The page is one file: no script, nothing loaded from elsewhere. What a number opens is an element of the page that its link targets.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.report import claims, hypotheses, table, verdicts
from harness.report import rows as row_files
from harness.report.cells import Cell, named
from harness.report.figure_specs import figure_names, load_figure
from harness.report.markup import footnotes
from harness.report.panels import rows_of_part
from harness.report.sheets import Sheet, difference_sheets, environment_facts, score_sheets, sheet_id
from harness.report.specs import Column, Part, TableSpec, label, load_table, table_names
from harness.store.files import write_text
from harness.study.folders import PROJECT
from harness.study.method import load_method
from harness.study.seeds import PUBLISHED, WORD
from harness.study.study import Study
from harness.study.typed import UserError

TEMPLATE = "page.html.j2"
MAIN = "table1"
PLOT = 100  # half the width of an interval's drawing
MARKS: dict[verdicts.Conclusion, str] = {"replicates": "✓", "does not replicate": "✗", "undecided": "?", "not tested": "–"}


@dataclass(frozen=True)
class Shown:
    """A cell of a table, with the sheet that it opens (empty: none) and the number of its footnote."""

    cell: Cell
    sheet: str = ""
    footnote: int | None = None


def render_page(
    study: Study,
    *,
    methods: list[str],
    seeds: list[int],
    results: Path,
    out: Path,
    tables: list[str] | None = None,
    figures: list[str] | None = None,
) -> dict[str, Any]:
    """Write `out` (.html); figures and further tables are those beside it. `tables`, `figures`: which (None: all that are there)."""
    rows, reports = row_files.collect(study, methods, seeds, results), out.parent
    named = figure_names(study) if figures is None else figures
    drawn = {name: path.read_bytes() for name in named if (path := reports / f"{name}.png").is_file()}
    others, left_out = {}, {}
    for name in table_names(study) if tables is None else tables:
        if name != MAIN and (reports / f"{name}.csv").is_file():
            try:
                others[name] = load_table(name), row_files.from_csv(reports / f"{name}.csv", empty=True)
                table.content_of(study, others[name][1], methods, seeds, others[name][0])
            except UserError as error:
                if tables is not None:
                    raise
                # of other seeds or methods, from an earlier time
                left_out[name] = str(error)
                others.pop(name, None)
    spec, declared = load_table(MAIN), hypotheses.load_claims(PROJECT / "reports" / "claims.yaml")
    text = page_html(study, rows, methods, seeds, spec=spec, declared=declared, figures=drawn, others=others)
    write_text(out, text)
    return {"page": str(out), "bytes": len(text.encode()), "figures": list(drawn), "tables": [MAIN, *others], "left_out": left_out}


def figures_shown(html: str) -> list[str]:
    """The figures that a page shows."""
    return re.findall(r'<figure id="figure-([^"]+)">', html)


def tables_of(html: str) -> list[str]:
    """The tables that a page shows besides the first."""
    return re.findall(r'<section class="table" id="table-([^"]+)"', html)


def page_html(
    study: Study,
    rows: pd.DataFrame,
    methods: list[str],
    seeds: list[int],
    *,
    spec: TableSpec,
    declared: hypotheses.Claims,
    figures: dict[str, bytes],
    others: dict[str, tuple[TableSpec, pd.DataFrame]] | None = None,
) -> str:
    """The page, from the rows of `methods` and `seeds` alone; `figures`: PNGs by name; `others`: further tables by name."""
    seeds = study.trained_seeds(methods, seeds)
    rows = rows[rows["method"].isin(methods) & rows["seed"].isin([*seeds, PUBLISHED])]
    sheets = {sheet.id: sheet for sheet in score_sheets(study, rows, page=study.name, table=MAIN)}
    tables = [_table(MAIN, spec, study, rows, methods, seeds, sheets)]
    tables += [_table(name, other, study, further, methods, seeds, sheets) for name, (other, further) in (others or {}).items()]
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(TEMPLATE)
    judged = verdicts.judge(declared, rows, study, methods)
    counts = Counter(one.verdict for one in judged)
    return template.render(
        study=study,
        methods=[load_method(m).title for m in methods],
        seeds=seeds or [WORD],
        tables=tables,
        claims={
            "title": declared.title,
            "verdicts": [_claim(one, sheets, study) for one in judged],
            "counts": [(verdict, counts[verdict]) for verdict in MARKS if counts[verdict]],
            "rule": claims.rule(study, rows, seeds, judged),
        },
        marks=MARKS,
        figures=[(name, load_figure(name).caption, base64.b64encode(content).decode()) for name, content in figures.items()],
        environment=environment_facts(rows),
        config=json.dumps(without_places(study.values()), indent=2, ensure_ascii=False),
        sheets=sheets.values(),
    )


def _table(
    name: str, spec: TableSpec, study: Study, rows: pd.DataFrame, methods: list[str], seeds: list[int], sheets: dict[str, Sheet]
) -> dict[str, Any]:
    """What the template shows of a table; the sheets that its cells open are added to `sheets`."""
    content = table.content_of(study, rows, methods, seeds, spec)
    numbers = footnotes(content.text_tables)
    for sheet in _sheets_of(name, content, study, rows, seeds):
        sheets.setdefault(sheet.id, sheet)

    def shown(cell: Cell, sheet: str) -> Shown:
        return Shown(cell, sheet if sheet in sheets and (cell.mean[-1:].isdigit() or cell.why) else "", numbers.get(cell.why))

    panels = []
    body: list[tuple[str | None, list[str], list[Shown]]]
    for filled in content.panels:
        body = []
        for part, of_method in filled.parts:
            foreign = part.study.name if part.study.name != study.name else None
            for place, (method, cells) in enumerate(of_method.items()):
                ids = [_sheet_of(column, method, part, foreign) for column in filled.columns]
                body.append((part.title if place == 0 else None, [label(part, method)], list(map(shown, cells, ids))))
        headings = [_arrow(column.heading) for column in filled.columns]
        panels.append({"title": filled.title, "left": ["Method"], "headings": headings, "body": body})
    beside_lines = iter([(part, line) for part, some in content.lines for line in some])
    for printed_table in content.printed:
        body = []
        for place, (left, (printed, measured, difference, verdict)) in enumerate(printed_table.rows):
            part, line = next(beside_lines)
            foreign = part.study.name if part.study.name != study.name else None
            opened = shown(measured, sheet_id(line.score, line.method, guided=line.guided, study=foreign))
            beside_cells = [Shown(printed), opened, Shown(difference), Shown(verdict, footnote=numbers.get(verdict.why))]
            body.append((printed_table.groups.get(place), left, beside_cells))
        panels.append(
            {
                "title": printed_table.title,
                "left": printed_table.headings[:2],
                "headings": [(h, "") for h in printed_table.headings[2:]],
                "body": body,
            }
        )
    for alone in content.alone:
        body = [(None, left, [Shown(cell) for cell in cells]) for left, cells in alone.rows]
        panels.append({"title": alone.title, "left": alone.headings[:1], "headings": list(map(_arrow, alone.headings[1:])), "body": body})
    return {
        "name": name,
        "at": "" if name == MAIN else f"{name}-",
        "title": spec.title,
        "caption": content.caption,
        "panels": panels,
        "footnotes": numbers,
        "notes": content.notes + content.printed_notes,
    }


def _sheet_of(column: Column, method: str, part: Part, foreign: str | None) -> str:
    """The id of what a cell opens; none for a fact."""
    if column.score is None:
        return ""
    ema = column.ema if column.ema != part.study.ema else None
    return sheet_id(
        column.score, method, baseline=part.baseline if column.difference else None, ema=ema, guided=column.guided, study=foreign
    )


def _sheets_of(name: str, content: table.Content, study: Study, rows: pd.DataFrame, seeds: list[int]) -> Iterator[Sheet]:
    """Of the cells of a table, and of what their differences are made of."""
    for filled in content.panels:
        scores = {column.score for column in filled.columns if column.score}
        for part, _ in filled.parts:
            own = rows_of_part(part, rows, seeds)
            yield from score_sheets(part.study, own[own["score"].isin(scores)], page=study.name, table=name)
            differences = [column.score for column in filled.columns if column.difference and column.score]
            yield from difference_sheets(part, row_files.of_view(own, part.study), differences, page=study.name)


def _arrow(heading: str) -> tuple[str, str]:
    """(text, arrow) of a heading."""
    text, _, arrow = heading.rpartition(" ")
    return (text, arrow) if arrow in ("↓", "↑") else (heading, "")


def _claim(one: verdicts.Verdict, sheets: dict[str, Sheet], study: Study) -> dict[str, Any]:
    results = []
    for result in one.conditions:
        pairs = [(sheet_id(result.score, m), named(m)) for m in (result.method, result.against) if m]
        further = [ema for ema in result.condition.decays(study) if ema != study.ema]
        pairs += [(sheet_id(result.score, result.against, ema=ema), f"EMA {ema:g}") for ema in further]
        links = [(id_, text) for id_, text in pairs if id_ in sheets]
        results.append({"of": result, "finding": verdicts.finding(result), "plot": plot(result), "links": links})
    return {"of": one, "results": results}


def plot(result: verdicts.Result) -> dict[str, Any] | None:
    """Where the effect and its interval lie about zero, in a drawing that is 2 PLOT wide; None where there is no interval."""
    effect = result.effect
    if effect is None or effect.n < 2 or not result.condition.over_seeds or not effect.half:
        return None
    scale = 0.92 * PLOT / max(abs(effect.low), abs(effect.high))
    low, mean, high = (round(PLOT + scale * value, 1) for value in (effect.low, effect.mean, effect.high))
    return {"low": low, "mean": mean, "high": high, "width": round(high - low, 1)}


def without_places(value: Any) -> Any:
    """A JSON value whose absolute paths are their last parts: where somebody's files are is nobody's business."""
    if isinstance(value, dict):
        return {without_places(key): without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and "\n" not in value:
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute() or value.startswith("~"):
                return kind(value).name
    return value
