"""What `dsr check` reads, prints and stores: the stored rows and neuron lists of a study, the report on fresh ones, and an update."""

import json
import math
from collections import Counter
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from harness.report.gate.compare import RATE, compare_rows
from harness.report.gate.lines import ORDER, GateLine, GateReport, NeuronLists, by_score
from harness.report.gate.power import power_text
from harness.report.rows import from_csv, to_csv, trained
from harness.results.schema import LEVEL, NONE
from harness.results.views import View
from harness.store import artifacts
from harness.store.files import write_json, write_text
from harness.study import places
from harness.study.study import load_study
from harness.study.typed import UserError

RESULTS = ("no difference found", "difference", "cannot decide")  # by exit code
QUIET = ("no difference", "identical")


def run_gate(
    study: str,
    *,
    against: Path | None = None,
    rows: Path | None = None,
    results: Path | None = None,
    methods: list[str] | None = None,
    power: int | None = None,
    renew: bool = False,
    everything: bool = False,
) -> tuple[str, int]:
    """What `dsr check` prints, and its exit code. Default paths: what the DAG writes, and reports/reference/<study>.csv.

    `methods`: those that are compared, of both sides. `power`: instead, what so many fresh seeds would find.
    """
    of = load_study(study)
    against, rows = against or Path(f"reports/reference/{study}.csv"), rows or Path(f"reports/{study}/table1.csv")
    if renew and (methods or power is not None):
        raise UserError("--update stores all fresh rows; give it without --methods and --power")
    if power is not None:
        return power_text(_of_methods(_stored(against, study), methods, against), power, RATE), 0
    if not rows.is_file():
        raise UserError(f"{rows}: no fresh rows; run snakemake --cores all reports/table1.md --config study={study}")
    fresh = from_csv(rows)
    if set(fresh["study"]) != {study}:
        raise UserError(f"{rows}: rows of study '{fresh['study'].iloc[0]}', not of '{study}'; give --study and --rows of one")
    fresh = _of_methods(trained(fresh, rows), methods, rows)
    neurons = neurons_of(fresh, places.folder(results or Path("results") / study, of, places.home(of, "encoder")))
    if renew:
        return store_rows(fresh, against, neurons), 0
    stored = _of_methods(_stored(against, study), methods, against)
    report = compare_rows(fresh, stored, fresh_neurons=neurons, stored_neurons=read_neurons(against.with_suffix(".json")))
    return report_text(report, everything=everything), report.exit_code


def _stored(against: Path, study: str) -> pd.DataFrame:
    if not against.is_file():
        raise UserError(f"{against}: no stored rows; write them with dsr check --study {study} --update, and keep the file")
    return trained(from_csv(against), against)


def _of_methods(rows: pd.DataFrame, methods: list[str] | None, path: Path) -> pd.DataFrame:
    """The rows of these methods; all without any. UserError for a method that has none."""
    for name in methods or ():
        if name not in set(rows["method"]):
            raise UserError(f"{path}: no rows of method '{name}'; it has {', '.join(dict.fromkeys(rows['method']))}")
    return rows[rows["method"].isin(methods)] if methods else rows


def report_text(report: GateReport, *, everything: bool = False) -> str:
    """The report for people: what differs, is undecided or moved, worst first; with `everything` every line."""
    shown = [line for line in report.lines if everything or line.verdict not in QUIET]
    several = len({line.view for line in report.lines if line.view}) > 1
    table = [["verdict", "method", "score", "stored", "fresh", f"difference [{LEVEL:.0%} interval]", "p", "adjusted", "why"]]
    table += [_columns(line, several) for line in shown]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table] if shown else []
    counts = Counter(line.verdict for line in report.lines)
    lines.append("Lines: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict]) + ".")
    result = "identical" if report.identical else RESULTS[report.exit_code]
    return "\n".join([*lines, *report.remarks, f"Result: {result} (exit code {report.exit_code})."])


def _columns(line: GateLine, several: bool) -> list[str]:
    score = f"{line.score} ({_brief(line.view)})" if several and line.view else line.score
    sides = [f"{side.mean:.4g} (n = {side.n})" if side else "" for side in (line.stored, line.fresh)]
    interval = "" if math.isnan(line.effect) else f"{line.effect:+.3g}"
    interval += f" [{line.low:+.3g}, {line.high:+.3g}]" if line.tested else ""
    return [
        line.verdict,
        line.method,
        score,
        *sides,
        interval,
        *(f"{p:.2g}" if line.tested else "" for p in (line.p, line.adjusted)),
        line.why,
    ]


def _brief(view: View) -> str:
    """A view in a cell of the report: without guidance where there is none."""
    return f"EMA {view.ema:g}, step {view.step}" + f", {view.guidance}" * (view.guidance != "none")


def neurons_of(rows: pd.DataFrame, results: Path) -> NeuronLists:
    """Register neurons of the methods that have some, from the files below `results` that the rows name. UserError if one is not there."""
    lists = {
        artifacts.checked(path): json.loads(path.read_text(encoding="utf-8"))["neurons"]
        for path in sorted(results.glob("encoders/*/registers.json"))
    }
    named = rows[rows["registers"] != NONE].groupby("method", sort=False)["registers"].first()
    for method, sha256 in named.items():
        if sha256 not in lists:
            raise UserError(
                f"{results}/encoders: lacks the neuron list {sha256[:12]}... of the rows of '{method}'; give --results of those rows"
            )
    return {str(method): lists[sha256] for method, sha256 in named.items()}


def read_neurons(path: Path) -> NeuronLists:
    """The neuron lists that `store_rows` wrote."""
    try:
        return TypeAdapter(NeuronLists).validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(
            f"{path}: not lists of register neurons ({type(error).__name__}); get it back, or write it again with --update"
        ) from None


def store_rows(fresh: pd.DataFrame, against: Path, neurons: NeuronLists) -> str:
    """Store the rows at `against` and the neuron lists beside it (.json); returns what changed."""
    lines = [f"{against}: {fresh['method'].nunique()} methods, seeds {_seeds(fresh)}, {fresh['score'].nunique()} scores"]
    if against.is_file():
        lines += _changes(fresh, against) or ["nothing changed"]
    write_text(against, to_csv(fresh))
    write_json(against.with_suffix(".json"), neurons)
    return "\n".join(lines)


def _changes(fresh: pd.DataFrame, against: Path) -> list[str]:
    """What was stored and what is stored now, where they differ."""
    try:
        stored = from_csv(against)
    except UserError as error:
        return [f"the old ones could not be read: {error}"]
    lines, before, after = [], by_score(stored), by_score(fresh)
    for column in ("method", "score"):
        old, new = (list(dict.fromkeys(rows[column])) for rows in (stored, fresh))
        lines += [f"{column} added: {name}" for name in new if name not in old] + [
            f"{column} removed: {name}" for name in old if name not in new
        ]
    if _seeds(stored) != _seeds(fresh):
        lines.append(f"seeds: {_seeds(stored)} before, {_seeds(fresh)} now")
    was, now = ("; ".join(sorted({_brief(view) for _, view, _ in cells})) for cells in (before, after))
    if was != now:
        lines.append(f"measured at: {was} before, {now} now; values at different ones are not set beside each other")
    for (score, view, method), cell in after.items():
        earlier = before.get((score, view, method))
        if earlier and (earlier.values, earlier.without) != (cell.values, cell.without):
            was, now = (f"{side.estimate.mean:.4g}" if side.estimate else side.failures for side in (earlier, cell))
            change = f" ({cell.estimate.mean - earlier.estimate.mean:+.3g})" if earlier.estimate and cell.estimate else ""
            lines.append(f"{method} {score} ({_brief(view)}): {was} before, {now} now{change}")
    return lines


def _seeds(rows: pd.DataFrame) -> str:
    return ", ".join(map(str, sorted(set(rows["seed"]))))
