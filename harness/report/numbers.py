"""Stage `numbers`: every cell of every table as a LaTeX command, so that the text of a paper can quote it.

A command's name is made of the study, the table, the group's title, the method and the column, in this order: their words capitalised and
put together, digits spelled. `\\DigitsTableOneDsrFid` is FID of `dsr` in `table1` of `digits` with its interval; `...Mean` is the mean
alone, `...Paper` what the paper prints. Where two cells would have one name (of methods `ttr2` and `ttr_2`), each has five letters of its
own behind it, and says beside it what it is.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.report import rows as row_files
from harness.report import table
from harness.report.cells import Cell
from harness.report.latex import escape, needs
from harness.report.markup import formula
from harness.report.specs import Column, load_table, table_names
from harness.report.table import Content
from harness.store.files import write_text
from harness.study.study import Study

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


@dataclass(frozen=True)
class Quoted:
    """A cell with the words of its command; `shows` is what differs between any two cells that are not the same."""

    words: tuple[str, ...]
    shows: str
    cell: Cell

    @property
    def commands(self) -> dict[str, str]:
        """Suffix of the command -> what it prints."""
        text, mean = formula(self.cell.text), formula(self.cell.mean)
        whole = {"": rf"\ensuremath{{{text}}}" if text else escape(self.cell.text)}
        return whole | ({"Mean": rf"\ensuremath{{{mean}}}"} if text and self.cell.mean != self.cell.text else {})

    @property
    def mark(self) -> str:
        """Five letters of its own."""
        number = int(hashlib.sha256("\n".join([*self.words, self.shows]).encode()).hexdigest(), 16)
        return "".join(chr(ord("a") + number // 26**place % 26) for place in range(5)).capitalize()


def numbers_tex(study: Study, tables: dict[str, Content]) -> str:
    """The file."""
    cells = [cell for name, content in tables.items() for cell in _cells(name, content)]
    owners: dict[str, set[str]] = {}
    for cell in cells:
        for suffix in cell.commands:
            owners.setdefault(command_name(study.name, *cell.words) + suffix, set()).add(cell.shows)
    lines: dict[str, str] = {}
    for cell in cells:
        name = command_name(study.name, *cell.words)
        shared = any(len(owners[name + suffix]) > 1 for suffix in cell.commands)
        about = f" % {', '.join(' '.join(word.split()) for word in cell.words if word)}" * shared
        for suffix, value in cell.commands.items():
            command = name + cell.mark * shared + suffix
            lines[command] = rf"\newcommand{{\{command}}}{{{value}}}{about}"
    head = [
        f"% The cells of the tables of study '{study.name}'. harness/report/numbers.py says how the names are made.",
        *needs(*lines.values()),
    ]
    return "\n".join([*head, *lines.values(), ""])


def command_name(*words: str) -> str:
    """Letters only: `dit_s`, `fid@val` -> `DitSFidVal`; 0.98 -> `ZeroPointNineEight`."""
    parts = re.findall(r"[A-Za-z]+|\d|\.(?=\d)", " ".join(words))
    return "".join(DIGITS.get(part, "Point" if part == "." else part.capitalize()) for part in parts)


def _cells(name: str, content: Content) -> Iterator[Quoted]:
    """Every cell of a table, with the words of its command besides the study's."""
    for panel in content.panels:
        for part, of_method in panel.parts:
            for method, cells in of_method.items():
                for column, cell in zip(panel.columns, cells, strict=True):
                    words = (name, part.title or "", method, *_words(column))
                    yield Quoted(words, f"{part.study.name} {part.baseline} {method} {column.model_dump_json(exclude={'title'})}", cell)
    for part, lines in content.lines:
        for line in lines:
            words = (name, part.title or "", line.method, line.score, "guided" * line.guided, "paper")
            yield Quoted(words, f"{part.study.name} {line.method} {line.score} {line.guided} paper", Cell(line.paper.text))


def _words(column: Column) -> list[str]:
    ema = "" if column.ema is None else f"ema {column.ema:g}"
    return [str(column.score or column.fact), ema, "guided" * column.guided, "difference" * column.difference]
