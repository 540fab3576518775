"""Verdicts on claims, from rows. Imports no torch.

Most conditions of a claim are Student-t tests over seeds, paired where two methods are compared, with Holm's correction over all that are
tested together.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from harness.report import paper
from harness.report.hypotheses import REFUTED, Claim, Claims, Condition, described, first, lacking
from harness.report.statistics import Estimate, estimate, holm, seeds_needed
from harness.results.schema import LEVEL
from harness.study.study import Study, study_names

ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 1000  # more are not looked for


@dataclass(frozen=True)
class Result:
    """What became of a condition. `effect` is over seeds, in the score's units; `relative` is its mean over that of `against`.

    `p`, `adjusted`: two-sided, before and after Holm's correction; None where nothing is tested over seeds. `seeds_needed`: None where it
    is decided, or not to be had; `reason` says why, and what was found where that is no mean over seeds.
    """

    text: str
    refuted_if: str
    kind: str
    method: str
    against: str
    score: str
    outcome: Literal["holds", "refuted", "undecided", "not tested"]
    reason: str = ""
    effect: Estimate | None = None
    relative: float | None = None
    p: float | None = None
    adjusted: float | None = None
    seeds: int = 0
    seeds_needed: int | None = None
    paper: str = ""  # the same comparison of the values that the paper prints

    @property
    def needed_text(self) -> str:
        """`seeds_needed`, and that there are more than can be looked for."""
        beyond = self.outcome == "undecided" and self.p is not None and self.seeds_needed is None
        return f"> {MOST_SEEDS}" if beyond else "–" if self.seeds_needed is None else str(self.seeds_needed)


@dataclass(frozen=True)
class Verdict:
    """On one claim. `conditions` has a result for each of its conditions, tested or not; `key` is the one that `why` is about."""

    id: str
    text: str
    source: str
    note: str
    verdict: Literal["replicates", "does not replicate", "undecided", "not tested"]
    why: str
    conditions: list[Result]
    key: Result


@dataclass(frozen=True)
class _Measured:
    """A result before Holm's correction. `side`: the mean that is tested against 0; `holds`: whether it lies on the claim's side."""

    result: Result
    side: Estimate | None = None
    holds: bool = False
    lost: bool = False  # a run that the condition needs has no value


def judge(spec: Claims, rows: pd.DataFrame, study: Study, methods: list[str]) -> list[Verdict]:
    """The verdicts on `spec`, in its order, from the rows of `methods`: the long table, with every sampled average of the weights."""
    runs: dict[tuple[str, str, float], dict[int, NamedTuple]] = {}
    for row in rows[["score", "method", "ema", "seed", "value", "status", "reason"]].sort_values("seed").itertuples():
        runs.setdefault((row.score, row.method, row.ema), {})[row.seed] = row
    measured = [[_measure(claim, condition, runs, study, methods) for condition in claim.conditions] for claim in spec.claims]
    tested = [one for found in measured for one in found if one.side is not None]
    adjusted = dict(zip(map(id, tested), holm([one.result.p for one in tested]), strict=True))
    left = max(1, sum(p >= ALPHA for p in adjusted.values()))
    verdicts = []
    for claim, found in zip(spec.claims, measured, strict=True):
        results = [_decide(one, adjusted.get(id(one)), ALPHA / left) for one in found]
        verdict, key = _conclude(results, any(one.lost for one in found))
        why = f"{key.text}: {finding(key)}"
        verdicts.append(Verdict(claim.id, claim.text, claim.source, claim.note, verdict, why, results, key))
    return verdicts


def _conclude(results: list[Result], lost: bool) -> tuple[str, Result]:
    """The verdict, and the result that it hangs on."""

    def of(outcome: str) -> list[Result]:
        return [result for result in results if result.outcome == outcome]

    if lost:
        return "undecided", next(result for result in of("undecided") if result.effect is None)
    if of("refuted"):
        return "does not replicate", min(of("refuted"), key=lambda r: r.adjusted or 0.0)
    if of("not tested"):
        return "not tested", of("not tested")[0]
    if of("undecided"):
        return "undecided", max(of("undecided"), key=lambda r: (r.p or 0.0, r.seeds_needed or 0))
    return "replicates", max(results, key=lambda r: r.adjusted or 0.0)


def _decide(one: _Measured, adjusted: float | None, alpha: float) -> Result:
    """With Holm's adjusted p; `alpha` is the level that an undecided condition faces."""
    if adjusted is None:
        return one.result
    if adjusted < ALPHA:
        return replace(one.result, adjusted=adjusted, outcome="holds" if one.holds else "refuted")
    needed = seeds_needed(one.side.mean, one.side.sd, alpha=alpha, power=POWER, most=MOST_SEEDS)
    return replace(one.result, adjusted=adjusted, seeds_needed=needed)


def _measure(claim: Claim, condition: Condition, runs: dict, study: Study, methods: list[str]) -> _Measured:
    """Effect and p of a condition, or why there are none. `runs`: (score, method, EMA decay) -> seed -> row."""
    method, against = first(condition.method, methods), first(condition.against, methods)
    text, refuted_if, shown = described(condition, method, against), REFUTED[condition.kind], _printed(claim, condition, study)
    blank = Result(text, refuted_if, condition.kind, method, against, condition.score, "not tested", paper=shown)
    decays = {method: [study.ema]} | ({against: study.sampled if condition.kind == "ema_range_above" else [study.ema]} if against else {})
    absent = [name for name in decays if name not in methods]
    if reason := lacking(claim, condition, study) or (f"method {absent[0]} is not in this run" if absent else ""):
        return _Measured(replace(blank, reason=reason))
    found = {(name, decay): runs.get((condition.score, name, decay), {}) for name in decays for decay in decays[name]}
    if skipped := [row.reason for seeds in found.values() for row in seeds.values() if row.status == "skipped"]:
        return _Measured(replace(blank, reason=f"{condition.score} was skipped: {skipped[0]}"))
    if gone := _gone(found):
        return _Measured(replace(blank, outcome="undecided", reason=gone), lost=True)
    columns = {key: np.array([seeds[seed].value for seed in sorted(seeds)]) for key, seeds in found.items()}
    m, b = columns[method, study.ema], columns[against or method, study.ema]
    blank = replace(blank, seeds=len(m))
    if condition.kind in ("zero", "not_zero", "ratio"):
        return _Measured(_counted(blank, condition, m, b))
    return _tested(blank, b, *_sides(condition, m, b, np.ptp([columns[key] for key in columns if key[0] == (against or method)], axis=0)))


def _gone(found: dict[tuple[str, float], dict]) -> str:
    """Which runs have no value, and why; empty if every seed has one for each method and decay."""
    lost = [
        f"{name}/seed{seed} {row.status}: {row.reason}"
        for (name, _), seeds in found.items()
        for seed, row in seeds.items()
        if row.status != "ok"
    ]
    every = sorted({seed for seeds in found.values() for seed in seeds})
    lost += [
        f"{name}/seed{seed} has no row at EMA {decay:g}" for (name, decay), seeds in found.items() for seed in every if seed not in seeds
    ]
    return "; ".join(lost) if every else "there are no rows"


def _sides(condition: Condition, m: np.ndarray, b: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By seed: the effect, what has a mean above 0 if the condition holds, and what has one below 0 if it is refuted.

    `m`, `b`: values of the method and of the other, whose range over the averages of the weights is `span`.
    """
    if condition.kind == "lower":
        return m - b, b - m, b - m
    if condition.kind == "not_lower":  # a non-inferiority test against the margin; refuted by what is lower at all
        return m - b, m - (1 - condition.margin) * b, m - b
    if condition.kind == "above":
        return m, m - condition.value, m - condition.value
    effect = m - b if condition.kind == "higher" else span - abs(m - b)
    return effect, effect, effect


def _tested(blank: Result, b: np.ndarray, effects: np.ndarray, support: np.ndarray, contrary: np.ndarray) -> _Measured:
    """The t-test of a condition: two-sided, by the side that is further from chance."""
    effect, holds, fails = estimate(effects), estimate(support), estimate(contrary)
    relative = effect.mean / abs(b.mean()) if blank.against and b.mean() else None
    blank = replace(blank, outcome="undecided", effect=effect, relative=relative)
    if effect.n < 2:
        return _Measured(replace(blank, reason="n = 1 seed"))
    if effect.sd <= 1e-9 * abs(effect.mean) and effect.mean:
        return _Measured(replace(blank, reason="the same in every seed, so there is no spread to test against"))
    p_holds, p_fails = holds.p if holds.mean > 0 else 1.0, fails.p if fails.mean < 0 else 1.0
    side = holds if p_holds <= p_fails else fails
    return _Measured(replace(blank, p=min(p_holds, p_fails)), side=side, holds=side is holds)


def _counted(blank: Result, condition: Condition, m: np.ndarray, b: np.ndarray) -> Result:
    """A condition on every seed, without a test: a counter-example refutes it. Cost is counted exactly, so that one value decides."""
    if condition.kind == "ratio":
        inside = abs(m / b - condition.value) <= condition.margin
        ratio = estimate(m / b)
        return replace(blank, outcome="holds" if inside.all() else "refuted", reason="counted", effect=ratio, relative=ratio.mean - 1)
    positive = int((m > 0).sum())
    found = f"above 0 in {positive} of {seeds_text(len(m))}, at most {m.max():.3g}" if positive else f"0 in all of {seeds_text(len(m))}"
    blank = replace(blank, effect=estimate(m), reason=found)
    if len(m) < 2:
        return replace(blank, outcome="undecided", reason=f"n = 1 seed ({found})")
    return replace(blank, outcome="holds" if (positive > 0) == (condition.kind == "not_zero") else "refuted")


def finding(result: Result) -> str:
    """Effect, interval, p and seeds in words; where nothing was tested, why."""
    if result.kind in ("zero", "not_zero") or result.effect is None:
        return result.reason
    relative = f" ({number(100 * result.relative, 1, signed=True)} %)" if result.relative is not None else ""
    if result.kind == "ratio":
        return f"{effect_text(result)}{relative}, counted"
    if result.p is None:
        return f"{effect_text(result)}{relative}; {result.reason}"
    needed = f"; {result.needed_text} seeds needed" if result.outcome == "undecided" else ""
    chance = f"p {p_text(result.p)}, adjusted p {p_text(result.adjusted)}"
    return f"{effect_text(result)}{relative} over {seeds_text(result.seeds)}, {chance}{needed}"


def effect_text(result: Result) -> str:
    """Mean [low, high], with the digits that its interval deserves; a difference has a sign."""
    effect, signed = result.effect, result.kind in ("lower", "higher", "not_lower", "ema_range_above")
    if effect is None:
        return "–"
    wide = effect.half if effect.n > 1 and effect.half > 1e-9 * abs(effect.mean) else None
    size = wide or abs(effect.mean) / 100
    digits = min(6, max(0, 1 - int(np.floor(np.log10(size))))) if size else 0
    mean = number(effect.mean, digits, signed=signed)
    return f"{mean} [{number(effect.low, digits, signed=signed)}, {number(effect.high, digits, signed=signed)}]" if wide else mean


def number(value: float, digits: int, *, signed: bool = False) -> str:
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def seeds_text(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _printed(claim: Claim, condition: Condition, study: Study) -> str:
    """The paper's own effect: of this study where it prints one, otherwise of the claim's, which is then named."""
    if claim.printed:
        return claim.printed
    for name in dict.fromkeys([study.name, claim.paper_study]):
        values = paper.values(name) if name in study_names() else {}
        printed = {method: scores[condition.score] for method, scores in values.items() if condition.score in scores}
        method, against = first(condition.method, list(printed)), first(condition.against, list(printed))
        if method in printed and against in printed:
            new, old = printed[method], printed[against]
            difference = number(new.value - old.value, old.digits, signed=True)
            effect = f"{new.value / old.value:.3f}" if condition.kind == "ratio" else difference
            return f"{effect} ({old.text} → {new.text}{'' if name == study.name else f', {name}'})"
    if condition.score == "denoiser_outlier_share":
        shares = paper.paper().outlier_shares
        method = first(condition.method, list(shares.methods))
        return f"{max(shares.methods[method].blocks):.2f} ({shares.study})" if method in shares.methods else ""
    return ""
