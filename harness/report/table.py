"""Stage `table`: a table from rows and a spec, as Markdown, LaTeX, and the long CSV."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report import beside
from harness.report import rows as row_files
from harness.report.latex import label, needs
from harness.report.markup import TextTable, floating, footnotes, superscript, to_markdown
from harness.report.notes import notes
from harness.report.panels import FilledPanel, fill_panels, rows_of_part
from harness.report.specs import Part, TableSpec, load_spec, paper_groups, parts, views
from harness.results.schema import Row
from harness.store.files import write_text
from harness.study import places
from harness.study.study import Study


@dataclass(frozen=True)
class Content:
    """A table as it is rendered: its panels, what the paper prints beside them, and the notes under each."""

    label: str
    title: str
    caption: str
    panels: list[FilledPanel]
    notes: list[str]
    lines: list[tuple[Part, list[beside.PaperLine]]]
    alone: list[TextTable]

    @property
    def printed(self) -> list[TextTable]:
        """The panels of the paper's values beside the measured ones."""
        several = len(self.lines) > 1
        return beside.printed_tables([(part.title if several else None, lines) for part, lines in self.lines])

    @property
    def printed_notes(self) -> list[str]:
        """Under them."""
        return beside.notes([line for _, lines in self.lines for line in lines])

    @property
    def text_tables(self) -> list[TextTable]:
        """Everything that is rendered, in order."""
        return [*(panel.text_table for panel in self.panels), *self.printed, *self.alone]


def content_of(study: Study, rows: pd.DataFrame, methods: list[str], seeds: list[int], spec: TableSpec) -> Content:
    """From the rows of all studies of the table. UserError names a row that is missing, or two that were measured differently."""
    groups = parts(spec, study, methods)
    panels = fill_panels(spec, groups, rows, seeds) if groups else []
    columns = [column for panel in panels for column in panel.columns]
    used = pd.concat([rows_of_part(part, rows, seeds) for part in groups]).drop_duplicates(row_files.KEY) if groups else rows
    wanted = None if spec.of_one_study else {(column.score, column.guided) for column in columns if column.score}
    lines = [(part, beside.lines(part.study, rows_of_part(part, used, seeds), part.methods, wanted)) for part in groups]
    return Content(
        label=f"tab:{study.name}" if spec.of_one_study else f"tab:{study.family}-{label(spec.title)}",
        title=f"{spec.title}: {study.title}" if spec.of_one_study else f"{spec.title} ({study.family})",
        caption=spec.caption,
        panels=panels,
        notes=notes(groups, used, seeds, columns) if groups else [],
        lines=[(part, some) for part, some in lines if some],
        alone=[beside.alone(kind) for kind in paper_groups(spec, study)],
    )


def written(content: Content) -> tuple[str, str]:
    """(Markdown, LaTeX)."""
    numbers = footnotes(content.text_tables)
    under = [*content.notes, *content.printed_notes]
    below = [f"{superscript(number)} {reason}." for reason, number in numbers.items()] + under
    caption = [content.caption] * bool(content.caption)
    lines = [f"# {content.title}\n", *(f"{line}\n" for line in caption), *(to_markdown(one, numbers) for one in content.text_tables)]
    text = "\n".join([*lines, *(f"- {line}" for line in below), ""])
    floats = [(content.label, [panel.text_table for panel in content.panels], caption, content.notes)] * bool(content.panels)
    floats += [
        (f"{content.label}-paper{place or ''}", [one], [f"{one.title}."], content.printed_notes * (place == 0))
        for place, one in enumerate(content.printed)
    ]
    floats += [(f"{content.label}-alone{place or ''}", [one], [f"{one.title}."], []) for place, one in enumerate(content.alone)]
    tex = [floating(some, numbers, caption=[f"{content.title}.", *more], notes=small, label=name) for name, some, more, small in floats]
    return text, "\n".join(["% Needs \\usepackage{booktabs,graphicx}", *needs(*tex), *tex])


def table_texts(study: Study, rows: pd.DataFrame, methods: list[str], seeds: list[int], spec: TableSpec) -> tuple[str, str]:
    """(Markdown, LaTeX) of the table, from the rows alone. UserError as `content_of`."""
    return written(content_of(study, rows, methods, seeds, spec))


def collect_rows(study: Study, methods: list[str], seeds: list[int], results: Path, spec: TableSpec) -> pd.DataFrame:
    """The rows of every study of a table, from their results folders; `results` is that of `study`."""
    wanted: dict[str, tuple[Study, list[str]]] = {}
    for part in parts(spec, study, methods):
        wanted.setdefault(part.study.name, (part.study, []))[1].extend(part.methods)
    tables = [
        row_files.collect(of, list(dict.fromkeys(names)), seeds, places.folder(results, study, of.name), views(spec))
        for of, names in wanted.values()
    ]
    return pd.concat(tables, ignore_index=True) if tables else row_files.typed(pd.DataFrame(columns=list(Row.model_fields)))


def render_table(study: Study, *, methods: list[str], seeds: list[int], results: Path, spec: Path, out: Path) -> dict[str, Any]:
    """Write `out` (.md), and beside it .csv and .tex.

    Of a table of the study alone rows.parquet and times.csv too, and paper.csv where the paper has values of it.
    """
    wanted = load_spec(spec)
    rows = collect_rows(study, methods, seeds, results, wanted)
    text, tex = table_texts(study, rows, methods, seeds, wanted)
    if wanted.of_one_study:
        write_text(out.with_name("times.csv"), row_files.times(results).to_csv(index=False, lineterminator="\n"))
        row_files.to_parquet(rows, out.with_name("rows.parquet"))
        if lines := beside.lines(study, rows, methods):
            write_text(out.with_name("paper.csv"), beside.paper_csv(lines))
    write_text(out.with_suffix(".csv"), row_files.to_csv(rows))
    write_text(out.with_suffix(".tex"), tex)
    write_text(out, text)
    return {"rows": len(rows), "table": str(out)}
