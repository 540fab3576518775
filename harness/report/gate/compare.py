"""Fresh rows against stored ones of unchanged code, by a test that knows how many seeds and how many comparisons there are."""

from dataclasses import replace

import pandas as pd

from harness.report.gate.identity import other_trainings, sample_lines, unequal_values
from harness.report.gate.lines import ORDER, GateLine, GateReport, NeuronLists, by_score
from harness.report.gate.parts import data_lines, neuron_lines, sampled_lines, shared_part_remarks
from harness.report.gate.scores import compare_scores, power_remarks
from harness.report.rows import PROTOCOL
from harness.results.views import View
from harness.study.typed import UserError

RATE = 0.05  # chance of any false difference in a report
ALIKE = [column for column in PROTOCOL if column not in ("reference", "content", "extractor")]


def compare_rows(
    fresh: pd.DataFrame,
    stored: pd.DataFrame,
    *,
    rate: float = RATE,
    fresh_neurons: NeuronLists | None = None,
    stored_neurons: NeuronLists | None = None,
) -> GateReport:
    """Compare two long tables, as `rows.from_csv` reads them. `rate`: the chance of any false difference, at most.

    UserError where they were not measured alike.
    """
    check_alike(fresh, stored)
    lines, tests = compare_scores(by_score(fresh), by_score(stored), rate)
    unequal = unequal_values(fresh, stored)
    lines = [_with_parts(line, unequal.get((line.score, line.view, line.method)) if line.view else None) for line in lines]
    remarks = [*power_remarks(tests, rate), *shared_part_remarks(fresh, stored), *other_trainings(fresh, stored)]
    lines += [*sample_lines(fresh, stored), *sampled_lines(fresh, stored), *data_lines(fresh, stored)]
    lines += neuron_lines(fresh, stored, fresh_neurons or {}, stored_neurons or {})
    return GateReport(sorted(lines, key=lambda line: (ORDER.index(line.verdict), line.adjusted if line.tested else 0)), remarks)


def _with_parts(line: GateLine, unequal: GateLine | None) -> GateLine:
    """The line of a score, with what its parts say: equal ones whose values are not are a difference, whatever the seeds say."""
    if unequal is None or (unequal.verdict == "note" and line.verdict == "difference"):
        return line
    return replace(line, verdict=unequal.verdict, why=unequal.why)


def check_alike(fresh: pd.DataFrame, stored: pd.DataFrame) -> None:
    """UserError that names what was measured differently: the study, or for a score that both have its n, settings or arithmetic."""
    if names := set(fresh["study"]) ^ set(stored["study"]):
        raise UserError(
            f"fresh and stored rows are of different studies ({', '.join(sorted(names))}); give --study, --rows and --against of one"
        )
    before, after = (rows[rows["status"] == "ok"].groupby(["score", *View._fields], sort=False)[ALIKE].first() for rows in (stored, fresh))
    for column in ("step", "guidance"):
        old, new = (list(dict.fromkeys(rows[column])) for rows in (stored, fresh))
        if not set(old) & set(new):
            raise UserError(
                f"fresh and stored rows cannot be compared: {column} is {old[0]} in the stored rows and {new[0]} in the fresh ones"
            )
    keys = before.index.intersection(after.index)
    for column in ALIKE:
        for key in keys[(before.loc[keys, column] != after.loc[keys, column]).to_numpy()][:1]:
            raise UserError(
                f"score '{key[0]}' cannot be compared: {column} is {before.loc[key, column]} in the stored rows and "
                f"{after.loc[key, column]} in the fresh ones; measure alike, or store the fresh rows with --update"
            )
