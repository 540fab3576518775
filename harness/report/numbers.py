"""Stage `numbers`: every cell of every table as a LaTeX command, so that the text of a paper can quote it.

A command's name is made of the study, the table, the group's title, the method and the column, in this order: their words capitalised and
put together, digits spelled. `\\DigitsTableOneDsrFid` is FID of `dsr` in `table1` of `digits` with its interval; `...Mean` is the mean
alone, `...Paper` what the paper prints.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.report import rows as row_files
from harness.report import table
from harness.report.cells import Cell
from harness.report.markup import escape, formula
from harness.report.specs import Column, load_table, table_names
from harness.report.table import Content
from harness.store.files import write_text
from harness.study.study import Study
from harness.study.typed import UserError

DIGITS = dict(zip("0123456789", ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"], strict=True))


def render_numbers(study: Study, *, methods: list[str], seeds: list[int], out: Path, tables: list[str] | None = None) -> dict[str, Any]:
    """Write `out` (.tex) from the CSVs of `tables` (None: all that are there), which lie beside it."""
    names = [name for name in table_names(study) if (out.parent / f"{name}.csv").is_file()] if tables is None else tables
    text = numbers_tex(study, contents(study, methods, seeds, out.parent, names))
    write_text(out, text)
    return {"commands": text.count(r"\newcommand"), "out": str(out)}


def contents(study: Study, methods: list[str], seeds: list[int], reports: Path, names: list[str]) -> dict[str, Content]:
    """Tables by name, from their CSVs in `reports`."""
    tables = {}
    for name in names:
        rows = row_files.from_csv(reports / f"{name}.csv", empty=True)
        tables[name] = table.content_of(study, rows, methods, seeds, load_table(name))
    return tables


def numbers_tex(study: Study, tables: dict[str, Content]) -> str:
    """The file. UserError where two cells would have the same name."""
    lines: dict[str, str] = {}
    for words, cell in ((words, cell) for name, content in tables.items() for words, cell in _cells(name, content)):
        text = formula(cell.text)
        commands = {"": rf"\ensuremath{{{text}}}" if text else escape(cell.text)}
        if text and cell.mean != cell.text:
            commands["Mean"] = rf"\ensuremath{{{formula(cell.mean)}}}"
        for suffix, value in commands.items():
            command = command_name(study.name, *words) + suffix
            if command in lines:
                raise UserError(
                    f"\\{command} would be two cells; give the groups or columns of table '{words[0]}' titles that differ in letters"
                )
            lines[command] = rf"\newcommand{{\{command}}}{{{value}}}"
    head = [f"% The cells of the tables of study '{study.name}'. harness/report/numbers.py says how the names are made."]
    return "\n".join([*head, *lines.values(), ""])


def command_name(*words: str) -> str:
    """Letters only: `dit_s`, `fid@val` -> `DitSFidVal`; 0.98 -> `ZeroPointNineEight`."""
    parts = re.findall(r"[A-Za-z]+|\d|\.(?=\d)", " ".join(words))
    return "".join(DIGITS.get(part, "Point" if part == "." else part.capitalize()) for part in parts)


def _cells(name: str, content: Content) -> Iterator[tuple[list[str], Cell]]:
    """The words of each cell's name besides the study's, and the cell."""
    for panel in content.panels:
        for part, of_method in panel.parts:
            for method, cells in of_method.items():
                for column, cell in zip(panel.columns, cells, strict=True):
                    yield [name, part.title or "", method, *_words(column)], cell
    for part, lines in content.lines:
        for line in lines:
            yield [name, part.title or "", line.method, line.score, "guided" * line.guided, "paper"], Cell(line.paper.text)


def _words(column: Column) -> list[str]:
    ema = "" if column.ema is None else f"ema {column.ema:g}"
    return [column.score or column.fact or "", ema, "guided" * column.guided, "difference" * column.difference]
