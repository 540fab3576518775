"""Stage `page`: tables, claims and figures of a study on one HTML page, where each number opens where it comes from.

The page is one file: no script, nothing loaded from elsewhere. What a number opens is an element of the page that its link targets.
"""

import base64
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness import artifacts
from harness.config import ROOT, load_method
from harness.dag import figures_of
from harness.report import beside, claims, hypotheses, table, verdicts
from harness.report import rows as row_files
from harness.report.cells import Cell, named
from harness.report.markup import footnotes
from harness.report.notes import notes
from harness.report.sheets import Sheet, differences, environment, score_sheets, sheet_id
from harness.study import Study

TEMPLATE = "page.html.j2"
PLOT = 100  # half the width of an interval's drawing
CAPTIONS = {
    "samples": "Samples of every method: the same noise and the same label in every column.",
    "encoder_norms": "Norms of the encoder's tokens, layer by layer, for one held-out image; outliers are outlined.",
    "denoiser_outliers": "Share of outlier tokens by block of the denoiser and noise level, for each method.",
    "fid": "FID of every seed, with mean and interval, and the difference to the baseline, paired by seed.",
}
MARKS = {"replicates": "✓", "does not replicate": "✗", "undecided": "?", "not tested": "–"}


@dataclass(frozen=True)
class Shown:
    """A cell of a table, with the sheet that it opens (empty: none) and the number of its footnote."""

    cell: Cell
    sheet: str = ""
    footnote: int | None = None


def render(study: Study, *, methods: list[str], seeds: list[int], results: Path, reports: Path, out: Path) -> dict:
    """Write `out` (.html); `reports` is the folder of the study's figures."""
    rows = row_files.collect(study, methods, seeds, results)
    figures = {name: path.read_bytes() for name in figures_of(study) if (path := reports / f"{name}.png").is_file()}
    specs = {
        "spec": table.load_spec(ROOT / "reports" / "table1.yaml"),
        "declared": hypotheses.load_claims(ROOT / "reports" / "claims.yaml"),
    }
    text = document(study, rows, methods, seeds, figures=figures, **specs)
    artifacts.write_text(out, text)
    return {"page": str(out), "bytes": len(text.encode()), "figures": list(figures)}


def document(
    study: Study,
    rows: pd.DataFrame,
    methods: list[str],
    seeds: list[int],
    *,
    spec: table.Spec,
    declared: hypotheses.Claims,
    figures: dict[str, bytes],
) -> str:
    """The page, from the rows of `methods` and `seeds` alone; `figures`: PNGs by name."""
    wanted, rows = spec.for_study(study), rows[rows["method"].isin(methods) & rows["seed"].isin(seeds)]
    main = row_files.of_average(rows, study.ema)
    sheets = {sheet.id: sheet for sheet in score_sheets(study, rows)} | {sheet.id: sheet for sheet in differences(wanted, main, methods)}
    lines = beside.lines(study, main, methods)
    grids = [table.grid(panel, main, methods, wanted.baseline) for panel in wanted.panels] + ([beside.grid(lines)] if lines else [])
    numbers, judged = footnotes(grids), verdicts.judge(declared, rows, study, methods)

    def shown(cell: Cell, sheet: str) -> Shown:
        return Shown(cell, sheet if sheet in sheets and (cell.mean[-1:].isdigit() or cell.why) else "", numbers.get(cell.why))

    panels = []
    for panel, grid in zip(wanted.panels, grids, strict=False):
        ids = {m: [sheet_id(column.score, m, difference=column.difference) for column in panel.columns] for m in methods}
        body = [(left, list(map(shown, row, ids[m]))) for m, (left, row) in zip(methods, grid.rows, strict=True)]
        panels.append({"title": panel.title, "left": grid.headings[:1], "headings": list(map(_arrow, grid.headings[1:])), "body": body})
    if lines:
        body = [
            (left, [Shown(p), shown(m, sheet_id(line.score, line.method)), Shown(d), Shown(yes, footnote=numbers.get(yes.why))])
            for line, (left, (p, m, d, yes)) in zip(lines, grids[-1].rows, strict=True)
        ]
        panels.append(
            {"title": grids[-1].title, "left": grids[-1].headings[:2], "headings": [(h, "") for h in grids[-1].headings[2:]], "body": body}
        )
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(TEMPLATE)
    counts = Counter(one.verdict for one in judged)
    return template.render(
        study=study,
        methods=[load_method(m).title for m in methods],
        seeds=seeds,
        panels=panels,
        footnotes=numbers,
        notes=notes(study, main, methods, seeds) + (beside.NOTES if lines else []),
        claims={
            "title": declared.title,
            "verdicts": [_claim(one, sheets, study.sampling.averages) for one in judged],
            "counts": [(verdict, counts[verdict]) for verdict in MARKS if counts[verdict]],
            "rule": claims.rule(study, rows, seeds, judged),
        },
        marks=MARKS,
        figures=[(name, CAPTIONS[name], base64.b64encode(content).decode()) for name, content in figures.items()],
        environment=environment(rows),
        config=json.dumps(without_places(study.model_dump(mode="json")), indent=2, ensure_ascii=False),
        sheets=sheets.values(),
    )


def _arrow(heading: str) -> tuple[str, str]:
    """(text, arrow) of a heading."""
    text, _, arrow = heading.rpartition(" ")
    return (text, arrow) if arrow in ("↓", "↑") else (heading, "")


def _claim(one: verdicts.Verdict, sheets: dict[str, Sheet], averages: list[float]) -> dict:
    results = []
    for result in one.conditions:
        pairs = [(sheet_id(result.score, m), named(m)) for m in (result.method, result.against) if m]
        if result.kind == "ema_range_above":
            pairs += [(sheet_id(result.score, result.against, ema=ema), f"EMA {ema:g}") for ema in averages]
        links = [(id_, text) for id_, text in pairs if id_ in sheets]
        results.append({"of": result, "finding": verdicts.finding(result), "plot": plot(result), "links": links})
    return {"of": one, "results": results}


def plot(result: verdicts.Result) -> dict | None:
    """Where the effect and its interval lie about zero, in a drawing that is 2 PLOT wide; None where there is no interval."""
    effect = result.effect
    if effect is None or effect.n < 2 or result.kind in ("zero", "not_zero", "ratio") or not effect.half:
        return None
    scale = 0.92 * PLOT / max(abs(effect.low), abs(effect.high))
    low, mean, high = (round(PLOT + scale * value, 1) for value in (effect.low, effect.mean, effect.high))
    return {"low": low, "mean": mean, "high": high, "width": round(high - low, 1)}


def without_places(value: object) -> object:
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
