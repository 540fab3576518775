"""The gate's test of scores: Student's t over seeds, corrected for many.

A score that seeds change is compared by Student's two-sample t with one variance: if the code is unchanged, so is the variance. Seeds that
both sides share make the test careful, not wrong: their noise is common. Besides each method's own line, each score has one over all
methods, of the mean over methods of each seed; averaging first keeps one value a seed, since the methods of a seed share its noise. Spread
is never pooled over methods: theirs differ several fold. Both kinds of line get half of the rate, each corrected by Holm (1979), so that
many methods do not cost the lines over all of them their power.

What one draw decides (encoder, decoder, judge) has no spread over seeds. The rate holds as long as these are the stored ones, bit by bit;
where they are not, the report says so.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from harness.report.gate.lines import EVERY, GateLine, Key, ScoreBySeed
from harness.report.statistics import POWER, Estimate, estimate, holm
from harness.results.schema import LEVEL
from harness.results.scores import score_info
from harness.results.views import View


def compare_scores(fresh: dict[Key, ScoreBySeed], stored: dict[Key, ScoreBySeed], rate: float) -> list[GateLine]:
    """A line for each score of each method, one for each score over all methods, and one for each method that only one side has."""
    before, after = (dict.fromkeys(method for _, _, method in side) for side in (stored, fresh))
    both = [key for key in dict.fromkeys([*stored, *fresh]) if key[2] in before and key[2] in after]
    by_key = {key: _line(key, stored.get(key), fresh.get(key)) for key in both}
    lines = list(by_key.values())
    lines += [GateLine(method, "every score", verdict="difference", why="gone") for method in before if method not in after]
    lines += [GateLine(method, "every score", verdict="note", why="new") for method in after if method not in before]
    own = [line for line in lines if line.tested]
    methods: dict[tuple[str, View], list[str]] = {}
    for (score, view, method), line in by_key.items():
        if line.tested:
            methods.setdefault((score, view), []).append(method)
    over_all = [one for (score, view), some in methods.items() if (one := _over_all(score, view, some, stored, fresh))]
    families = [family for family in (own, over_all) if family]
    corrected = [line for line in lines if not line.tested]
    for family in families:
        adjusted = holm([line.p for line in family])
        corrected += [_judged(line, min(1.0, p * len(families)), rate) for line, p in zip(family, adjusted, strict=True)]
    return corrected


def _line(key: Key, stored: ScoreBySeed | None, fresh: ScoreBySeed | None) -> GateLine:
    """Of one score of one method, before the correction for many."""
    score, view, method = key
    better = next(side.better for side in (fresh, stored) if side)
    before, after = (side.estimate if side else None for side in (stored, fresh))
    line = GateLine(method, score, view, better=better, stored=before, fresh=after)
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


def _compared(line: GateLine, stored: ScoreBySeed, fresh: ScoreBySeed) -> GateLine:
    """Of a score that both sides have, with other values."""
    before, after = set(stored.values.values()), set(fresh.values.values())
    if (score_info(line.score).counted or stored.shared) and before == after:
        return replace(line, verdict="identical")
    if score_info(line.score).counted:
        return replace(line, verdict="difference", why="must be equal")
    if stored.shared:
        error = math.hypot(stored.half, fresh.half)
        size = f"; {abs(line.effect) / error:.1f} half-widths of the intervals over images" if error > 0 else ""
        return replace(line, verdict="moved", why=f"one draw, no test{size}")
    if min(len(stored.values), len(fresh.values)) < 2:
        return replace(line, verdict="undecided", why="a test needs two seeds a side")
    if len(before) == len(after) == 1:
        return line if before == after else replace(line, verdict="undecided", why="no spread over seeds to test with")
    return _tested(line)


def _over_all(score: str, view: View, methods: list[str], stored: dict[Key, ScoreBySeed], fresh: dict[Key, ScoreBySeed]) -> GateLine | None:
    """The mean over the methods, of each seed that all have; None for fewer than two methods or seeds."""

    def means(side: dict[Key, ScoreBySeed]) -> list[float]:
        values = [side[score, view, method].values for method in methods]
        return [sum(of[seed] for of in values) / len(values) for seed in sorted(set.intersection(*map(set, values)))]

    before, after = means(stored), means(fresh)
    if len(methods) < 2 or min(len(before), len(after)) < 2:
        return None
    better = fresh[score, view, methods[0]].better
    return _tested(GateLine(EVERY, score, view, better=better, stored=estimate(before), fresh=estimate(after)))


def _tested(line: GateLine) -> GateLine:
    """With the test of its two sides; as it is where there is only one."""
    if line.stored is None or line.fresh is None:
        return line
    low, high, p = two_sample(line.stored, line.fresh)
    return replace(line, low=low, high=high, p=p)


def _judged(line: GateLine, adjusted: float, rate: float) -> GateLine:
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


def power_remarks(lines: list[GateLine], rate: float) -> Iterator[str]:
    """A remark on how many tests there were, and how large a change they find."""
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
