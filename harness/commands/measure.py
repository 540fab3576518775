"""`dsr measure`: anyone's samples scored, with intervals: rows, and a page, in a folder that appears whole."""

import os
from pathlib import Path

import pandas as pd

from harness.evaluation.outside.score import FLOOR, Asked, Measurement, score_outside
from harness.report.measured import measured_page
from harness.report.rows import checked, one_line, to_csv, typed
from harness.store.files import atomic, there_of
from harness.study.typed import UserError

ROWS, PAGE = "rows.csv", "scores.md"
WRITTEN = frozenset((ROWS, PAGE))


def measure(asked: Asked, out: Path) -> str:
    """Write the folder `out`; returns the page. UserError, and nothing written, where the samples cannot be scored as asked."""
    check_out(out)
    measured = score_outside(asked)
    rows = table_of(measured)
    page = measured_page(rows, measured.about, measured.left, FLOOR)
    with atomic(out) as folder:
        folder.mkdir()
        (folder / ROWS).write_text(to_csv(rows), encoding="utf-8")
        (folder / PAGE).write_text(page, encoding="utf-8")
    return page


def table_of(measured: Measurement) -> pd.DataFrame:
    """The long table of the rows, in their order."""
    return checked(typed(pd.DataFrame([one_line(row) for row in measured.rows])))


def check_out(out: Path) -> None:
    """UserError where a folder cannot be written, or something else is there: known before anything is computed."""
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= WRITTEN):
        raise UserError(f"--out {out}: is there, and has more than {' and '.join(sorted(WRITTEN))}; name a new folder")
    above = there_of(out)
    if not above.is_dir() or not os.access(above if above != out.absolute() else above.parent, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {above} is no folder that can be written to; name another")
