"""The cells of a column: mean and interval of a score, or the reason why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.report.specs import Column
from harness.report.statistics import by_seed, difference, estimate, holm
from harness.results.schema import LEVEL
from harness.results.scores import score_info
from harness.study.method import load_method
from harness.study.seeds import PUBLISHED
from harness.study.typed import UserError

EMPTY = "–"
UNPAIRED = "published weights have a run of no seed, so that nothing is paired with them"
BOLD_FROM = 3  # seeds: with two, a t-test of a score that has few steps finds certainty by chance


@dataclass(frozen=True)
class Cell:
    """A formatted value. `half` is of the interval over seeds; `within`, the ends of that within the only run; `why`: why there is none."""

    mean: str
    half: str = ""
    within: tuple[str, str] | None = None
    bold: bool = False
    why: str = ""

    @property
    def text(self) -> str:
        """Without bold and footnote mark."""
        if self.within:
            return f"{self.mean} [{', '.join(self.within)}]"
        return f"{self.mean} ± {self.half}" if self.half else self.mean


def cells(table: pd.DataFrame, column: Column, methods: list[str], baseline: str) -> dict[str, Cell]:
    """A column, by method, from the rows of one EMA decay.

    Bold is the best mean, if its difference to the baseline, paired by seed, is not zero at LEVEL after Holm's correction over the methods,
    and BOLD_FROM seeds or more differ by more than rounding. Published weights are never bold, and have no difference.
    A method with a seed that has no value has none. UserError for a method without rows.
    """
    rows = table.loc[table["score"] == column.score, ["method", "seed", "score", "value", "low", "high", "status", "reason"]]
    for method in methods:
        if not (rows["method"] == method).any():
            raise UserError(f"no row of score '{column.score}' for method '{method}'; run the whole line again")
    why = empty(rows, methods)
    if column.difference and baseline in why:
        why = {method: why.get(method) or f"no difference to the baseline: {why[baseline]}" for method in methods}
    published = {str(method) for method in rows.loc[rows["seed"] == PUBLISHED, "method"]}
    if column.difference and baseline in published:
        why |= {method: why.get(method) or UNPAIRED for method in methods}
    elif column.difference:
        why |= {method: why.get(method) or UNPAIRED for method in published}
    best = () if column.difference else _best(rows, column, [m for m in methods if m not in {*why, *published}], baseline)
    by_method = {}
    for method in methods:
        if column.difference and method == baseline:
            by_method[method] = Cell(EMPTY)
        elif method in why:
            by_method[method] = Cell(EMPTY, why=why[method])
        else:
            by_method[method] = _cell(rows, column, method, baseline, method in best)
    return by_method


def _cell(rows: pd.DataFrame, column: Column, method: str, baseline: str, bold: bool) -> Cell:
    chosen = rows[rows["method"] == method]
    if column.difference:
        value = difference(rows, method, baseline, column.scored)
    else:
        values = by_seed(rows, method, column.scored).to_numpy()
        value = estimate(values[:1] if score_info(column.scored).shared else values)
    half = column.text(value.half).lstrip("+") if value.n > 1 else ""
    ends = [chosen["low"].iloc[0], chosen["high"].iloc[0]]
    shown = len(chosen) == 1 and not column.difference and not pd.isna(ends).any()
    return Cell(column.text(value.mean), half, (column.text(ends[0]), column.text(ends[1])) if shown else None, bold)


def _best(rows: pd.DataFrame, column: Column, methods: list[str], baseline: str) -> list[str]:
    """Methods that share the best mean, if it differs from the baseline's."""
    info = score_info(column.scored)
    if info.better == "neither" or info.shared or baseline not in methods or len(methods) < 2:
        return []
    return leaders({method: by_seed(rows, method, column.scored) for method in methods}, baseline, lowest=info.better == "lower")


def leaders(values: dict[str, pd.Series], baseline: str, *, lowest: bool) -> list[str]:
    """Methods that share the best mean, if it differs from the baseline's; `values`: of every method, by seed."""
    means = {method: of.mean() for method, of in values.items()}
    differences = {method: estimate((of - values[baseline]).dropna().to_numpy()) for method, of in values.items() if method != baseline}
    if min(one.n for one in differences.values()) < BOLD_FROM:
        return []
    p = dict(zip(differences, holm([one.p for one in differences.values()]), strict=True))
    leader = (min if lowest else max)(means, key=lambda method: means[method])
    return [method for method in means if means[method] == means[leader]] if p.get(leader, 1.0) < 1 - LEVEL else []


def empty(rows: pd.DataFrame, methods: Sequence[str]) -> dict[str, str]:
    """Of the methods that have a seed without a value, by `rows` of one score: which seeds, and why."""
    rows = rows[rows["method"].isin(methods)]
    bad = rows[rows["status"] != "ok"]
    if len(bad) == len(rows) > 0 and len(bad[["status", "reason"]].drop_duplicates()) == 1:
        first = bad.iloc[0]
        whose = f"{named(methods[0])}: " if len(methods) == 1 else f"{score_info(first['score']).title}, every run: "
        return dict.fromkeys(methods, f"{whose}{first['status']}: {first['reason']}")
    reasons = {}
    for method, group in ((str(method), group) for method, group in bad.groupby("method", sort=False)):
        parts = []
        for (status, reason), alike in group.groupby(["status", "reason"], sort=False):
            seeds = sorted(alike["seed"])
            of = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds != [PUBLISHED] else "published weights"
            parts.append(f"{of}: {status}: {reason}")
        every = len(rows[rows["method"] == method])
        have = every - len(group)
        rest = f"; {have} of {every} seeds {'has' if have == 1 else 'have'} a value, in the CSV" if have else ""
        reasons[method] = f"{named(method)}, {'; '.join(parts)}{rest}"
    return reasons


def named(method: str) -> str:
    """Its title within a sentence."""
    return load_method(method).title.removeprefix("+ ")
