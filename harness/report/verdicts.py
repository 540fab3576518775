"""Verdicts on claims, from rows. Imports no torch.

Most conditions of a claim are t-tests over seeds, paired where two methods are compared, with Holm's correction over all that are tested
together.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from harness.report import paper
from harness.report.condition import Condition, Ruling, names
from harness.report.hypotheses import Claim, Claims, first, lacking
from harness.report.statistics import Estimate, holm
from harness.report.words import number, p_text, seeds_text
from harness.results.schema import LEVEL
from harness.study.study import Study, study_names

Conclusion = Literal["replicates", "does not replicate", "undecided", "not tested"]

ALPHA = 1 - LEVEL
MOST_SEEDS = 1000  # more are not looked for


@dataclass(frozen=True)
class Result:
    """What became of a condition. `effect` is over seeds, in the score's units; `relative` is its mean over that of `against`.

    `p`, `adjusted`: two-sided, before and after Holm's correction; None where nothing is tested over seeds. `seeds_needed`: fewest and
    most, None beyond MOST_SEEDS, where it is tested and undecided; `reason` says why it is not tested, and what was found where that is no
    mean over seeds; `detail` stands beside the effect.
    """

    condition: Condition
    text: str
    method: str  # that was taken, of those that the condition names
    against: str
    outcome: Ruling
    reason: str = ""
    effect: Estimate | None = None
    relative: float | None = None
    p: float | None = None
    adjusted: float | None = None
    seeds: int = 0
    seeds_needed: tuple[int | None, int | None] | None = None
    detail: str = ""
    paper: str = ""  # the same comparison of the values that the paper prints

    @property
    def kind(self) -> str:
        """Of the condition."""
        return self.condition.kind

    @property
    def score(self) -> str:
        """Of the condition."""
        return self.condition.score

    @property
    def needed_text(self) -> str:
        """`seeds_needed`, and that there are more than are looked for."""
        if self.seeds_needed is None:
            return "–"
        fewest, most = self.seeds_needed
        last = most or f"> {MOST_SEEDS}"
        return str(last) if fewest in (None, most) else f"{fewest} to {last}"


@dataclass(frozen=True)
class Verdict:
    """On one claim. `conditions` has a result for each of its conditions, tested or not; `key` is the one that `why` is about."""

    id: str
    text: str
    source: str
    note: str
    verdict: Conclusion
    why: str
    conditions: list[Result]
    key: Result


class _Value(NamedTuple):
    """What is read of a row."""

    value: float
    status: str
    reason: str


Runs = dict[tuple[str, str, float], dict[int, _Value]]  # (score, method, EMA decay) -> seed -> its row


@dataclass(frozen=True)
class _Measured:
    """A result before Holm's correction. `side`: the mean that is tested against 0; `holds`: whether it lies on the claim's side."""

    result: Result
    side: Estimate | None = None
    holds: bool = False
    tests: int = 1
    lost: bool = False  # a run that the condition needs has no value


def judge(spec: Claims, rows: pd.DataFrame, study: Study, methods: list[str]) -> list[Verdict]:
    """The verdicts on `spec`, in its order, from the rows of `methods`: the long table, with every sampled average of the weights."""
    runs: Runs = {}
    for row in rows[["score", "method", "ema", "seed", "value", "status", "reason"]].sort_values("seed").to_dict("records"):
        of_seeds = runs.setdefault((row["score"], row["method"], row["ema"]), {})
        of_seeds[row["seed"]] = _Value(row["value"], row["status"], row["reason"])
    measured = [[_measure(claim, condition, runs, study, methods) for condition in claim.conditions] for claim in spec.claims]
    tested = {id(one): one.result.p for of_claim in measured for one in of_claim if one.result.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    left = max(1, sum(p >= ALPHA for p in adjusted.values()))
    verdicts = []
    for claim, of_claim in zip(spec.claims, measured, strict=True):
        results = [_decide(one, adjusted.get(id(one)), ALPHA / left) for one in of_claim]
        verdict, key = _conclude(results, any(one.lost for one in of_claim))
        why = f"{key.text}: {finding(key)}"
        verdicts.append(Verdict(claim.id, claim.text, claim.source, claim.note, verdict, why, results, key))
    return verdicts


def _conclude(results: list[Result], lost: bool) -> tuple[Conclusion, Result]:
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
        return "undecided", max(of("undecided"), key=lambda r: r.p or 0.0)
    return "replicates", max(results, key=lambda r: r.adjusted or 0.0)


def _decide(one: _Measured, adjusted: float | None, alpha: float) -> Result:
    """With Holm's adjusted p; `alpha` is the level that an undecided condition faces."""
    if adjusted is None or one.side is None:
        return one.result
    if adjusted < ALPHA:
        return replace(one.result, adjusted=adjusted, outcome="holds" if one.holds else "refuted")
    needed = one.result.condition.needed(one.side, alpha / one.tests, MOST_SEEDS)
    return replace(one.result, adjusted=adjusted, seeds_needed=needed)


def _measure(claim: Claim, condition: Condition, runs: Runs, study: Study, methods: list[str]) -> _Measured:
    """Effect and p of a condition, or why there are none. `runs`: (score, method, EMA decay) -> seed -> row."""
    method, against = first(names(condition.method), methods), first(condition.others, methods)
    text, shown = condition.described(method, against), _printed(claim, condition, study)
    blank = Result(condition, text, method, against, "not tested", paper=shown)
    decays = {method: [study.ema]} | ({against: condition.decays(study)} if against else {})
    absent = [f"method {name} is not in this run" for name in decays if name not in methods]
    absent += [f"the weights of {name} are published, and of no seed" for name in decays if name in study.denoiser.released]
    if reason := lacking(claim, condition, study) or next(iter(absent), ""):
        return _Measured(replace(blank, reason=reason))
    of_seeds = {(name, decay): runs.get((condition.score, name, decay), {}) for name in decays for decay in decays[name]}
    if skipped := [row.reason for seeds in of_seeds.values() for row in seeds.values() if row.status == "skipped"]:
        return _Measured(replace(blank, reason=f"{condition.score} was skipped: {skipped[0]}"))
    if gone := _gone(of_seeds):
        return _Measured(replace(blank, outcome="undecided", reason=gone), lost=True)
    columns = {key: np.array([seeds[seed].value for seed in sorted(seeds)]) for key, seeds in of_seeds.items()}
    m, b = columns[method, study.ema], columns[against or method, study.ema]
    averages = {decay: columns[against or method, decay] for decay in decays[against or method]}
    one = condition.measure(m, b, averages)
    found = {name: getattr(one, name) for name in ("outcome", "reason", "effect", "relative", "p", "detail")}
    return _Measured(replace(blank, seeds=len(m), **found), one.side, one.holds, one.tests)


def _gone(of_seeds: dict[tuple[str, float], dict[int, _Value]]) -> str:
    """Which runs have no value, and why; empty if every seed has one for each method and decay."""
    lost = [
        f"{name}/seed{seed} {row.status}: {row.reason}"
        for (name, _), seeds in of_seeds.items()
        for seed, row in seeds.items()
        if row.status != "ok"
    ]
    every = sorted({seed for seeds in of_seeds.values() for seed in seeds})
    lost += [
        f"{name}/seed{seed} has no row at EMA {decay:g}" for (name, decay), seeds in of_seeds.items() for seed in every if seed not in seeds
    ]
    return "; ".join(lost) if every else "there are no rows"


def finding(result: Result) -> str:
    """Effect, interval, p and seeds in words; where nothing was tested, why."""
    if result.effect is None or result.condition.in_words:
        return result.reason
    relative = f" ({number(100 * result.relative, 1, signed=True)} %)" if result.relative is not None else ""
    relative += f" ({result.detail})" if result.detail else ""
    if not result.condition.over_seeds:
        return f"{effect_text(result)}{relative}, {result.reason}"
    if result.p is None or result.adjusted is None:
        return f"{effect_text(result)}{relative}; {result.reason}"
    needed = f"; {result.needed_text} seeds needed" if result.outcome == "undecided" else ""
    chance = f"p {p_text(result.p)}, adjusted p {p_text(result.adjusted)}"
    return f"{effect_text(result)}{relative} over {seeds_text(result.seeds)}, {chance}{needed}"


def effect_text(result: Result) -> str:
    """Mean [low, high], with the digits that its interval deserves; a difference has a sign."""
    effect, signed = result.effect, result.condition.signed
    if effect is None:
        return "–"
    wide = effect.half if effect.n > 1 and effect.half > 1e-9 * abs(effect.mean) else None
    size = wide or abs(effect.mean) / 100
    digits = min(6, max(0, 1 - int(np.floor(np.log10(size))))) if size else 0
    mean = number(effect.mean, digits, signed=signed)
    return f"{mean} [{number(effect.low, digits, signed=signed)}, {number(effect.high, digits, signed=signed)}]" if wide else mean


def _printed(claim: Claim, condition: Condition, study: Study) -> str:
    """The paper's own effect: of this study where it prints one, otherwise of the claim's, which is then named."""
    if claim.printed:
        return claim.printed
    for name in dict.fromkeys([study.name, claim.paper_study]):
        values = paper.values(name) if name in study_names() else {}
        printed = {method: scores[condition.score] for method, scores in values.items() if condition.score in scores}
        method, against = first(names(condition.method), list(printed)), first(condition.others, list(printed))
        if method in printed and against in printed:
            new, old = printed[method], printed[against]
            effect = condition.printed(new.value, old.value, old.digits)
            return f"{effect} ({old.text} → {new.text}{'' if name == study.name else f', {name}'})"
    if condition.score == "denoiser_outlier_share":
        shares = paper.paper().outlier_shares
        method = first(names(condition.method), list(shares.methods))
        return f"{max(shares.methods[method].blocks):.2f} ({shares.study})" if method in shares.methods else ""
    return ""
