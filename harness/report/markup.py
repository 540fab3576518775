"""Tables as Markdown and LaTeX."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.report.cells import Cell
from harness.report.latex import escape, first_in_row
from harness.results.markdown import markdown_table

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
NUMBER = re.compile(r"[+−]?\d[\d.]*( ± [\d.]+| \[[+−\d., ]+\])?")


@dataclass(frozen=True)
class TextTable:
    """A table: the first `left` columns are texts, the others cells. `groups`: headings, by the place of the row that they stand above."""

    title: str
    headings: list[str]
    rows: list[tuple[list[str], list[Cell]]]
    groups: dict[int, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many columns are texts."""
        return len(self.headings) - len(self.rows[0][1])


def footnotes(tables: Iterable[TextTable]) -> dict[str, int]:
    """The reasons in all cells, numbered from 1 as they come; equal ones once."""
    reasons = dict.fromkeys(cell.why for table in tables for _, cells in table.rows for cell in cells if cell.why)
    return {reason: number for number, reason in enumerate(reasons, start=1)}


def superscript(number: int) -> str:
    """The number in superscript digits."""
    return str(number).translate(SUPERSCRIPT)


def to_markdown(table: TextTable, numbers: dict[str, int]) -> str:
    """`numbers`: of the footnotes."""

    def cell(c: Cell) -> str:
        text = f"**{c.text}**" if c.bold else c.text
        return text + (superscript(numbers[c.why]) if c.why else "")

    lines = []
    for place, (texts, cells) in enumerate(table.rows):
        if place in table.groups:
            lines.append([f"**{table.groups[place]}**", *[""] * (len(table.headings) - 1)])
        lines.append([*texts, *map(cell, cells)])
    return f"**{table.title}**\n\n{markdown_table(table.headings, lines, 'l' * table.left)}\n"


def floating(tables: list[TextTable], numbers: dict[str, int], *, caption: Iterable[str], notes: Iterable[str], label: str) -> str:
    """A LaTeX float; below its caption, in small letters, the footnotes of its own tables and `notes`.

    Needs \\usepackage{booktabs,graphicx}.
    """
    width = r"\ifdim\width>\textwidth\textwidth\else\width\fi"  # as it is, or shrunk to the page
    tabulars = [f"\\resizebox{{{width}}}{{!}}{{%\n{latex(table, numbers)}}}" for table in tables]
    feet = [f"\\textsuperscript{{{numbers[reason]}}} {escape(reason)}." for reason in footnotes(tables)]
    small = " ".join([*feet, *map(escape, notes)])
    below = [f"\\par\\smallskip\n\\begin{{minipage}}{{\\textwidth}}\\footnotesize\n{small}\n\\end{{minipage}}"] * bool(small)
    return "\n".join([
        "\\begin{table*}", "\\centering", "\n\n\\medskip\n".join(tabulars),
        f"\\caption{{{' '.join(map(escape, caption))}}}", f"\\label{{{label}}}", *below, "\\end{table*}", "",
    ])  # fmt: skip


def latex(table: TextTable, numbers: dict[str, int]) -> str:
    """A booktabs tabular."""

    def cell(c: Cell) -> str:
        text = formula(c.text)
        text = f"$\\mathbf{{{text}}}$" if text and c.bold else f"${text}$" if text else escape(c.text)
        return text + (f"\\textsuperscript{{{numbers[c.why]}}}" if c.why else "")

    def row(texts: Iterable[str]) -> str:
        return first_in_row(" & ".join(texts)) + r" \\"

    columns = "l" * table.left + "r" * (len(table.headings) - table.left)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", row(map(escape, table.headings)), "\\midrule"]
    for place, (texts, cells) in enumerate(table.rows):
        if place in table.groups:
            lines += ["\\midrule"] * (place > 0) + [
                f"\\multicolumn{{{len(table.headings)}}}{{l}}{{\\emph{{{escape(table.groups[place])}}}}} \\\\"
            ]
        lines.append(row([*map(escape, texts), *map(cell, cells)]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def formula(text: str) -> str:
    """A number with its interval, for LaTeX's maths; nothing for what is no number."""
    return escape(text).replace("$", "").replace("--", "-") if NUMBER.fullmatch(text) else ""
