"""Fresh rows against stored ones of unchanged code, by a test that knows how many seeds and how many comparisons there are.

A score that seeds change is compared by Student's two-sample t with one variance: if the code is unchanged, so is the variance. Seeds that
both sides share make the test careful, not wrong: their noise is common. Besides each method's own line, each score has one over all
methods, of the mean over methods of each seed; averaging first keeps one value a seed, since the methods of a seed share its noise. Spread
is never pooled over methods: theirs differ several fold. Both kinds of line get half of the rate, each corrected by Holm (1979), so that
many methods do not cost the lines over all of them their power.

What one draw decides (encoder, decoder, judge) has no spread over seeds. The rate holds as long as these are the stored ones, bit by bit;
where they are not, the report says so.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from harness.report.rows import PROTOCOL
from harness.report.statistics import Estimate, estimate, holm
from harness.results.schema import LEVEL, View
from harness.results.scores import OUTLIER_SCORES
from harness.study.typed import UserError

RATE = 0.05  # chance of any false difference in a report
POWER = 0.8  # of the change that is called detectable
EVERY = "all methods"
EQUAL = ("parameters", "gflops")  # counted, not measured
ALIKE = [column for column in PROTOCOL if column not in ("reference", "extractor")]
SHARED_PARTS = {"extractor": "judge", "encoder": "encoder", "latents": "latents", "decoder": "decoder"}

# difference: exit code 1. undecided: too little to say. moved: another single draw. note: told, not judged.
Verdict = Literal["difference", "undecided", "moved", "note", "no difference", "identical"]
ORDER = ("difference", "undecided", "moved", "note", "no difference", "identical")
Neurons = dict[str, dict[str, list[int]]]  # of methods with test-time registers: layer -> register neurons
Key = tuple[str, View, str]  # score, what its samples were drawn with, method


@dataclass(frozen=True)
class Line:
    """One comparison. `low`, `high`: interval at LEVEL of fresh minus stored; `p` before, `adjusted` after correction; NaN untested."""

    method: str
    score: str
    view: View | None = None
    verdict: Verdict = "no difference"
    why: str = ""
    better: str = "neither"
    stored: Estimate | None = None
    fresh: Estimate | None = None
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    adjusted: float = math.nan

    @property
    def effect(self) -> float:
        """Fresh minus stored mean."""
        return self.fresh.mean - self.stored.mean if self.fresh and self.stored else math.nan

    @property
    def tested(self) -> bool:
        return not math.isnan(self.p)


@dataclass(frozen=True)
class Report:
    """All lines, worst first, and remarks on the whole."""

    lines: list[Line]
    remarks: list[str]

    def of(self, verdict: Verdict) -> list[Line]:
        return [line for line in self.lines if line.verdict == verdict]

    @property
    def identical(self) -> bool:
        return all(line.verdict == "identical" for line in self.lines)

    @property
    def exit_code(self) -> int:
        """0: no difference found. 1: a difference. 2: cannot decide."""
        if self.of("difference"):
            return 1
        untested = self.of("moved") and not any(line.tested for line in self.lines)
        return 2 if self.of("undecided") or untested else 0


@dataclass
class Cell:
    """One score of one method: values by seed, and the status of the seeds that have none."""

    shared: bool
    better: str
    values: dict[int, float] = field(default_factory=dict)
    without: dict[int, str] = field(default_factory=dict)
    half: float = math.nan  # of the interval within a run, over images; of the last row

    @property
    def estimate(self) -> Estimate | None:
        return estimate(list(self.values.values())) if self.values else None

    @property
    def failures(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in Counter(self.without.values()).items())
        return f"{counts} of {len(self.without) + len(self.values)} seeds" if counts else "ok"


def cells(rows: pd.DataFrame) -> dict[Key, Cell]:
    """The rows by score, view and method."""
    found: dict[Key, Cell] = {}
    for row in rows.to_dict("records"):
        view = View(row["ema"], row["step"], row["guidance"])
        cell = found.setdefault((row["score"], view, row["method"]), Cell(row["shared"], row["better"]))
        if row["status"] == "ok":
            cell.values[row["seed"]] = row["value"]
            cell.half = (row["high"] - row["low"]) / 2
        else:
            cell.without[row["seed"]] = row["status"]
    return found


def check(
    fresh: pd.DataFrame,
    stored: pd.DataFrame,
    *,
    rate: float = RATE,
    fresh_neurons: Neurons | None = None,
    stored_neurons: Neurons | None = None,
) -> Report:
    """Compare two long tables, as `rows.from_csv` reads them. `rate`: the chance of any false difference, at most.

    UserError where they were not measured alike.
    """
    check_alike(fresh, stored)
    lines = compare(cells(fresh), cells(stored), rate)
    remarks = [*_power(lines, rate), *_shared_parts(fresh, stored)]
    lines += [*_data(fresh, stored), *_neurons(fresh, stored, fresh_neurons or {}, stored_neurons or {})]
    return Report(sorted(lines, key=lambda line: (ORDER.index(line.verdict), line.adjusted if line.tested else 0)), remarks)


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


def compare(fresh: dict[Key, Cell], stored: dict[Key, Cell], rate: float) -> list[Line]:
    """A line for each score of each method, one for each score over all methods, and one for each method that only one side has."""
    before, after = (dict.fromkeys(method for _, _, method in side) for side in (stored, fresh))
    lines = [
        _line(key, stored.get(key), fresh.get(key)) for key in dict.fromkeys([*stored, *fresh]) if key[2] in before and key[2] in after
    ]
    lines += [Line(method, "every score", verdict="difference", why="gone") for method in before if method not in after]
    lines += [Line(method, "every score", verdict="note", why="new") for method in after if method not in before]
    own = [line for line in lines if line.tested]
    groups = [[line for line in own if (line.score, line.view) == key] for key in dict.fromkeys((line.score, line.view) for line in own)]
    over_all = [line for group in groups if (line := _over_all(group, stored, fresh))]
    families = [family for family in (own, over_all) if family]
    corrected = [line for line in lines if not line.tested]
    for family in families:
        adjusted = holm([line.p for line in family])
        corrected += [_judged(line, min(1.0, p * len(families)), rate) for line, p in zip(family, adjusted, strict=True)]
    return corrected


def _line(key: Key, stored: Cell | None, fresh: Cell | None) -> Line:
    """Of one score of one method, before the correction for many."""
    score, view, method = key
    better = (fresh or stored).better
    line = Line(method, score, view, better=better, stored=stored and stored.estimate, fresh=fresh and fresh.estimate)
    if stored is None:
        return replace(line, verdict="note", why="new")
    if fresh is None:
        return replace(line, verdict="difference", why="gone")
    if fresh.values.items() <= stored.values.items() and fresh.without.items() <= stored.without.items():
        return replace(line, verdict="identical")
    if fresh.without and not stored.without:
        return replace(line, verdict="difference", why=fresh.failures)
    if not fresh.values or not stored.values:
        return replace(line, verdict="note", why=f"{stored.failures} before, {fresh.failures} now")
    return _compared(line, stored, fresh)


def _compared(line: Line, stored: Cell, fresh: Cell) -> Line:
    """Of a score that both sides have, with other values."""
    before, after = set(stored.values.values()), set(fresh.values.values())
    if (line.score in EQUAL or stored.shared) and before == after:
        return replace(line, verdict="identical")
    if line.score in EQUAL:
        return replace(line, verdict="difference", why="must be equal")
    if stored.shared:
        error = math.hypot(stored.half, fresh.half)
        size = f"; {abs(line.effect) / error:.1f} half-widths of the intervals over images" if error > 0 else ""
        return replace(line, verdict="moved", why=f"one draw, no test{size}")
    if min(line.stored.n, line.fresh.n) < 2:
        return replace(line, verdict="undecided", why="a test needs two seeds a side")
    if len(before) == len(after) == 1:
        return line if before == after else replace(line, verdict="undecided", why="no spread over seeds to test with")
    return _tested(line)


def _over_all(lines: list[Line], stored: dict[Key, Cell], fresh: dict[Key, Cell]) -> Line | None:
    """The mean over the methods of `lines`, of each seed that all have; None for fewer than two methods or seeds."""
    first = lines[0]

    def means(side: dict[Key, Cell]) -> list[float]:
        values = [side[first.score, first.view, line.method].values for line in lines]
        return [sum(of[seed] for of in values) / len(values) for seed in sorted(set.intersection(*map(set, values)))]

    before, after = means(stored), means(fresh)
    if len(lines) < 2 or min(len(before), len(after)) < 2:
        return None
    return _tested(Line(EVERY, first.score, first.view, better=first.better, stored=estimate(before), fresh=estimate(after)))


def _tested(line: Line) -> Line:
    low, high, p = two_sample(line.stored, line.fresh)
    return replace(line, low=low, high=high, p=p)


def _judged(line: Line, adjusted: float, rate: float) -> Line:
    if adjusted > rate:
        return replace(line, adjusted=adjusted)
    why = "" if line.better == "neither" else "better" if (line.effect < 0) == (line.better == "lower") else "worse"
    return replace(line, adjusted=adjusted, verdict="difference", why=why)


def two_sample(stored: Estimate, fresh: Estimate) -> tuple[float, float, float]:
    """Interval at LEVEL of the difference of means, and two-sided p: Student's t, one variance. Needs two values a side, some spread."""
    from scipy.special import stdtr, stdtrit

    freedom = stored.n + fresh.n - 2
    variance = ((stored.n - 1) * stored.sd**2 + (fresh.n - 1) * fresh.sd**2) / freedom
    error, effect = math.sqrt(variance * (1 / stored.n + 1 / fresh.n)), fresh.mean - stored.mean
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    return effect - half, effect + half, 2 * float(stdtr(freedom, -abs(effect) / error))


def detectable(stored: int, fresh: int, alpha: float) -> float:
    """Change, in standard deviations over seeds, that a two-sided test of `alpha` finds with chance POWER."""
    from scipy.special import nctdtrinc, stdtrit

    freedom = stored + fresh - 2
    return float(nctdtrinc(freedom, 1 - POWER, stdtrit(freedom, 1 - alpha / 2))) * math.sqrt(1 / stored + 1 / fresh)


# ----------------------------------------------------------------------------------------------- what is not a mean over seeds


def _data(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[Line]:
    """A line for each data set that samples are compared with."""
    before, after = (_of_samples(rows).groupby("score", sort=False)["reference"].first() for rows in (stored, fresh))
    scores: dict[tuple[str, str], list[str]] = {}
    for score in before.index.intersection(after.index):
        scores.setdefault((before[score], after[score]), []).append(score)
    for (old, new), of in scores.items():
        why = f"must be equal: {old[:12]} before, {new[:12]} now, for {', '.join(of)}"
        yield (
            Line(EVERY, "data compared with", verdict="identical")
            if old == new
            else Line(EVERY, "data compared with", verdict="difference", why=why)
        )


def _neurons(fresh: pd.DataFrame, stored: pd.DataFrame, found: Neurons, known: Neurons) -> Iterator[Line]:
    """A line a method: the neuron lists of one and the same encoder must be equal; those of one that was trained anew need not be."""
    before, after = (rows.groupby("method", sort=False)["encoder"].first() for rows in (stored, fresh))
    for method in (method for method in known if method in before and method in after):
        line = Line(method, "register neurons")
        change = f"{_listed(known[method])} before, {_listed(found.get(method, {}))} now"
        if known[method] == found.get(method):
            yield replace(line, verdict="identical")
        elif before[method] == after[method]:
            yield replace(line, verdict="difference", why=f"must be equal for the same encoder: {change}")
        else:
            yield replace(line, verdict="note", why=f"{change}; the encoder is another one")


def _listed(neurons: dict[str, list[int]]) -> str:
    return "; ".join(f"layer {layer}: {', '.join(map(str, listed))}" for layer, listed in neurons.items()) or "none"


def _of_samples(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["score"].str.startswith(OUTLIER_SCORES)]


def _shared_parts(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[str]:
    before, after = (_of_samples(rows).groupby("method")[list(SHARED_PARTS)].first() for rows in (stored, fresh))
    methods = before.index.intersection(after.index)
    other = [name for part, name in SHARED_PARTS.items() if (before.loc[methods, part] != after.loc[methods, part]).any()]
    if other:
        yield (
            f"Not the stored bits: {', '.join(other)} (another machine, or changed code). Each is one draw, which the spread over seeds does "
            "not hold: the rate is not guaranteed, and a difference may be theirs."
        )


def _power(lines: list[Line], rate: float) -> Iterator[str]:
    tested = [line for line in lines if line.tested]
    families = [
        family for family in ([line for line in tested if (line.method == EVERY) == over_all] for over_all in (False, True)) if family
    ]
    if not families:
        return
    stored, fresh = (max(getattr(line, side).n for line in tested) for side in ("stored", "fresh"))
    sizes = [detectable(stored, fresh, rate / len(families) / len(family)) for family in families]
    yield (
        f"{len(tested)} tests over seeds ({stored} stored, {fresh} fresh): Student's t, Holm; the chance of any false difference is at "
        f"most {rate:.0%}. Found with chance {POWER:.0%}: a change of one method by {sizes[0]:.1f} standard deviations over seeds"
        + (f", of all methods by {sizes[1]:.1f} of their mean's." if sizes[1:] else ".")
    )
