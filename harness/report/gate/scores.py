"""Scores over seeds: a line for each score of each method, and one for each score over all methods, judged together (joint.py).

The line over all methods is of their mean, seed by seed. What one draw decides (encoder, decoder, judge) has no spread over seeds: the rate
holds as long as these are the stored ones, bit by bit; where they are not, the report says so.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from harness.report.gate.joint import joint_test, pairs, two_samples
from harness.report.gate.lines import EVERY, GateLine, Key, ScoreBySeed, Tests
from harness.report.gate.matrix import Matrix
from harness.report.statistics import POWER, Estimate
from harness.results.schema import LEVEL
from harness.results.scores import score_info


def compare_scores(fresh: dict[Key, ScoreBySeed], stored: dict[Key, ScoreBySeed], rate: float) -> tuple[list[GateLine], Tests]:
    """A line for each score of each method, one for each score over all methods, and one for each method that only one side has.

    With them how many tests over seeds there were, and of how many seeds.
    """
    before, after = (dict.fromkeys(method for _, _, method in side) for side in (stored, fresh))
    both = [key for key in dict.fromkeys([*stored, *fresh]) if key[2] in before and key[2] in after]
    tested = {key for key in both if _needs_test(key[0], stored.get(key), fresh.get(key), rate)}
    lines = [GateLine(method, "every score", verdict="difference", why="gone") for method in before if method not in after]
    lines += [GateLine(method, "every score", verdict="note", why="new") for method in after if method not in before]
    lines += [_line(key, stored.get(key), fresh.get(key), rate) for key in both if key not in tested]
    if not tested:
        return lines, Tests()
    matrix = Matrix.of(*({key: side[key] for key in both if key in tested} for side in (stored, fresh)))
    judged, tests = _tested(matrix, rate)
    return lines + judged, tests


def _line(key: Key, stored: ScoreBySeed | None, fresh: ScoreBySeed | None, rate: float) -> GateLine:
    """Of one score of one method, where no test over seeds is needed."""
    score, view, method = key
    better = next(side.better for side in (fresh, stored) if side)
    before, after = (side.estimate if side else None for side in (stored, fresh))
    line = GateLine(method, score, view, better=better, stored=before, fresh=after)
    if stored is None:
        return replace(line, verdict="note", why="new")
    if fresh is None:
        return replace(line, verdict="difference", why="gone")
    if _identical(stored, fresh):
        return replace(line, verdict="identical")
    if fresh.fails_more_than(stored, rate):
        return replace(line, verdict="difference", why=f"{stored.failures} before, {fresh.failures} now")
    if not fresh.values or not stored.values:
        return replace(line, verdict="note", why=f"{stored.failures} before, {fresh.failures} now")
    return _compared(line, stored, fresh)


def _identical(stored: ScoreBySeed, fresh: ScoreBySeed) -> bool:
    return fresh.values.items() <= stored.values.items() and fresh.without.items() <= stored.without.items()


def _needs_test(score: str, stored: ScoreBySeed | None, fresh: ScoreBySeed | None, rate: float) -> bool:
    """Whether a test over seeds says more than the values by themselves."""
    if stored is None or fresh is None or score_info(score).counted or stored.shared:
        return False
    if _identical(stored, fresh) or fresh.fails_more_than(stored, rate):
        return False
    return min(len(stored.values), len(fresh.values)) >= 2 and not _constant(stored, fresh)


def _constant(stored: ScoreBySeed, fresh: ScoreBySeed) -> bool:
    """Whether every seed of both sides has one value."""
    return len({*stored.values.values(), *fresh.values.values()}) == 1


def _compared(line: GateLine, stored: ScoreBySeed, fresh: ScoreBySeed) -> GateLine:
    """Of a score that both sides have, with other values, where there is no test over seeds."""
    before, after = set(stored.values.values()), set(fresh.values.values())
    if (score_info(line.score).counted or stored.shared) and before == after:
        return replace(line, verdict="identical")
    if score_info(line.score).counted:
        return replace(line, verdict="difference", why="must be equal")
    if stored.shared:
        error = math.hypot(stored.half, fresh.half)
        size = f"; {abs(line.effect) / error:.1f} half-widths of the intervals over images" if error > 0 else ""
        return replace(line, verdict="moved", why=f"one draw, no test{size}")
    if _constant(stored, fresh):
        return line
    return replace(line, verdict="undecided", why="a test needs two seeds a side")


def _tested(matrix: Matrix, rate: float) -> tuple[list[GateLine], Tests]:
    """The lines of a matrix, judged, and what was tested: fresh against stored seeds, and pairs of a seed, at half of the rate each."""
    share = rate / 2 if matrix.paired else rate
    sizes = len(matrix.stored_seeds), len(matrix.fresh_seeds)
    unpaired = two_samples(*sizes, share)
    of_all = joint_test(matrix.lines(both_scales=unpaired.exact or sizes[0] == sizes[1]), unpaired, share)
    by_pairs = {}
    if matrix.paired:
        of_pairs, kept = matrix.pairs()
        found = joint_test(of_pairs, pairs(len(matrix.shared_seeds), share), share)
        by_pairs = {int(place): (1.0 if bad else p) for place, p, bad in zip(kept, found.adjusted, found.spreadless, strict=True)}
    lines = []
    for place, ((score, view, method), (before, after)) in enumerate(zip(matrix.keys, matrix.sides(), strict=True)):
        better = score_info(score).better
        low, high, p = two_sample(before, after)
        line = GateLine(method, score, view, better=better, stored=before, fresh=after, low=low, high=high, p=p)
        least, of_pair = float(of_all.adjusted[place]), by_pairs.get(place, 1.0)
        if of_all.spreadless[place] and of_pair * 2 > rate:
            lines.append(replace(line, verdict="undecided", why="no spread over seeds to test with"))
            continue
        total = float(min(1.0, min(least, of_pair) * (2 if matrix.paired else 1)))
        lines.append(_judged(replace(line, adjusted=total), rate, paired=bool(of_pair < least)))
    over_all = sum(line.method == EVERY for line in lines)
    count = len(matrix.shared_seeds) if matrix.paired else 0
    return lines, Tests(len(lines) - over_all, over_all, *sizes, count, exact=unpaired.exact)


def _judged(line: GateLine, rate: float, *, paired: bool) -> GateLine:
    if line.adjusted > rate:
        return line
    direction = "" if line.better == "neither" else "better" if (line.effect < 0) == (line.better == "lower") else "worse"
    return replace(line, verdict="difference", why=", ".join(filter(None, [direction, "paired by seed" * paired])))


def two_sample(stored: Estimate, fresh: Estimate) -> tuple[float, float, float]:
    """Interval at LEVEL of the difference of means, and two-sided p: Student's t of this line alone, one variance.

    NaN where a side has fewer than two values, or without a spread beyond rounding.
    """
    from scipy.special import stdtr, stdtrit

    freedom = stored.n + fresh.n - 2
    if min(stored.n, fresh.n) < 2:
        return math.nan, math.nan, math.nan
    variance = ((stored.n - 1) * stored.sd**2 + (fresh.n - 1) * fresh.sd**2) / freedom
    error, effect = math.sqrt(variance * (1 / stored.n + 1 / fresh.n)), fresh.mean - stored.mean
    if error <= 1e-9 * max(abs(stored.mean), abs(fresh.mean)):
        return math.nan, math.nan, math.nan
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    return effect - half, effect + half, 2 * float(stdtr(freedom, -abs(effect) / error))


def detectable(stored: int, fresh: int, alpha: float) -> float:
    """Change, in standard deviations over seeds, that Student's two-sided test of `alpha` finds with chance POWER."""
    from scipy.special import nctdtrinc, stdtrit

    freedom = stored + fresh - 2
    return float(nctdtrinc(freedom, 1 - POWER, stdtrit(freedom, 1 - alpha / 2))) * math.sqrt(1 / stored + 1 / fresh)


def power_remarks(tests: Tests, rate: float) -> Iterator[str]:
    """A remark on how many tests there were, and how large a change they find at least."""
    families = [count for count in (tests.own, tests.over_all) if count]
    if not families or min(tests.stored, tests.fresh) < 2:
        return
    share = rate / len(families) / (2 if tests.pairs else 1)
    sizes = [detectable(tests.stored, tests.fresh, share / count) for count in families]
    of_pairs = f", {tests.pairs} of them pairs" if tests.pairs else ""
    yield (
        f"{sum(families)} tests over seeds ({tests.stored} stored, {tests.fresh} fresh{of_pairs}), by the largest of all: the chance of "
        f"any false difference is at most {rate:.0%}"
        + ("" if tests.exact else ", if the scores are normal on their scale (so few seeds cannot be exchanged)")
        + f". Found with chance {POWER:.0%}: a change of one method by {sizes[0]:.1f} standard deviations over seeds"
        + (f", of all methods by {sizes[1]:.1f} of their mean's." if sizes[1:] else ".")
    )
