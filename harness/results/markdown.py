"""Tables as Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], sides: str = "l") -> str:
    """Lines without the last line's end. `sides`: `l` or `r` for each column, `r` for those beyond. A | in a cell is escaped."""
    rule = {"l": ":--", "r": "--:"}
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in (headings, *rows)]
    lines.insert(1, "|" + "|".join(rule[side] for side in sides.ljust(len(headings), "r")) + "|")
    return "\n".join(lines)
