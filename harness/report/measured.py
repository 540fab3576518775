"""The page of `dsr measure`: every score of samples from outside, with its interval, its bias and its floor, and how each was made."""

from collections.abc import Mapping, Sequence

import pandas as pd

from harness.report.notes import alike
from harness.report.rows import Line
from harness.report.specs import Column
from harness.results.markdown import markdown_table
from harness.results.scores import score_info

EMPTY = "–"
UNBIASED = ("kid",)
HEADINGS = ("Score", "Value", "95 % interval", "N", "Bias at this N", "Floor", "How the interval was made")
WITHIN = (
    "Intervals are within this set of samples: how far a score would move had other images been drawn from the same model. They do not "
    "know the spread over trainings, which is often larger."
)
FLOOR = "Floor: what as many real images score in the samples' place; a model that draws as the data does cannot be expected below it."


def measured_page(rows: pd.DataFrame, about: Mapping[str, str], left: Mapping[str, str], floor: str) -> str:
    """Markdown. `about`: what the numbers are of, in words; `left`: why scores have no row; `floor`: the method of rows of real images."""
    own, real = ({line["score"]: line for line in rows[rows["method"].eq(floor) == which].to_dict("records")} for which in (False, True))
    first = next(iter(own.values()))
    headings = [heading for heading in HEADINGS if heading != "Floor" or real]
    lines = [_line(score, line, own, real) for score, line in own.items()]
    text = markdown_table(headings, lines, "lrrrr" + "r" * bool(real) + "l")
    notes = [f"{what.capitalize()}: {told}." for what, told in about.items()]
    notes += [WITHIN, *[FLOOR] * bool(real)]
    notes += dict.fromkeys(note for score in own if (note := score_info(score).note))
    if left:
        notes.append("Not measured: " + "; ".join(f"{score_info(score).title} ({why})" for score, why in left.items()) + ".")
    notes.append(f"Float32. {alike(rows, 'device')} {alike(rows, 'versions')} Commit {first['commit']}{'+dirty' * bool(first['dirty'])}.")
    seed = "" if pd.isna(first["seed"]) else f", seed {first['seed']}"
    return "\n".join([f"# {first['study']}: {first['method']}{seed}\n", f"{text}\n", *(f"- {note}" for note in notes), ""])


def _line(score: str, line: Line, own: Mapping[str, Line], real: Mapping[str, Line]) -> Sequence[str]:
    column = Column(score=score)
    interval: str = EMPTY if pd.isna(line["low"]) else f"{column.text(line['low'])} to {column.text(line['high'])}"
    cells = [column.heading, column.text(line["value"]), interval, str(line["n"]), _bias(score, own)]
    if real:
        cells.append(column.text(real[score]["value"]) if score in real else EMPTY)
    return [*cells, line["how"]]


def _bias(score: str, own: Mapping[str, Line]) -> str:
    """What so few samples add to the score, where that is known: to FID, what is not in FID∞; a column's unit is the score's."""
    if score in UNBIASED:
        return "none"
    if score == "fid" and "fid_infinity" in own:
        return Column(score=score, difference=True).text(own["fid"]["value"] - own["fid_infinity"]["value"])
    return EMPTY
