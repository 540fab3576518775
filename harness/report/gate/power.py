"""`dsr check --power`: what change of a score would be found, for the rows of a study."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from harness.report.gate.lines import EVERY, by_score
from harness.report.gate.matrix import Matrix
from harness.report.gate.scores import detectable
from harness.report.statistics import POWER
from harness.results.scores import score_info
from harness.study.typed import UserError


def power_text(stored: pd.DataFrame, fresh: int, rate: float) -> str:
    """By score and method: mean and standard deviation of the stored rows, and the values at which `fresh` seeds would find a change.

    Each with chance POWER, if this method alone has changed and its scores spread normally on their scale. It is the least that the test
    finds (Student's t with Bonferroni's correction); by the largest of all it finds rather more.
    """
    if fresh < 2:
        raise UserError(f"--power {fresh}: a test needs two seeds a side; give the number of fresh seeds, 2 or more")
    cells = {key: cell for key, cell in by_score(stored).items() if not cell.shared and len(cell.values) >= 2}
    if not cells:
        raise UserError("no score of the stored rows varies by seed and has two seeds; store rows of more seeds")
    matrix = Matrix.of(cells, cells)
    over_all = sum(method == EVERY for _, _, method in matrix.keys)
    own = len(matrix.keys) - over_all
    (fitted,), sides = matrix.lines(both_scales=False), matrix.sides()
    table = [["method", "score", "stored", "over seeds", f"found {POWER:.0%} of the time"]]
    for place, (score, view, method) in enumerate(matrix.keys):
        values = fitted.values[: len(matrix.stored_seeds), place]
        values = values[~np.isnan(values)]
        count = over_all if fitted.over_all[place] else own
        size = detectable(len(values), fresh, rate / count / (2 if over_all else 1))
        spread = max(float(values.std(ddof=1)), math.sqrt(fitted.least[place]))
        several = f" (EMA {view.ema:g}, step {view.step})" if len({key[1] for key in matrix.keys}) > 1 else ""
        before, info = sides[place][0], score_info(score)
        shown = f"{before.mean * info.scale:.4g} {info.unit}".rstrip()
        table.append(
            [
                method,
                score + several,
                shown,
                f"± {before.sd * info.scale:.2g}",
                _found(score, before.mean, size * spread, matrix.scales[place]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    seeds = len(matrix.stored_seeds)
    lines.append(
        f"{seeds} stored and {fresh} fresh seeds, {own} tests of single methods"
        + (f" and {over_all} over all methods" if over_all else "")
        + f", any false difference at most {rate:.0%}: a change of one method is found from "
        f"{detectable(seeds, fresh, rate / own / (2 if over_all else 1)):.1f} standard deviations over seeds on."
    )
    return "\n".join(lines)


def _found(score: str, mean: float, size: float, scale: str) -> str:
    """Values on both sides of the mean from which on a change is found, in the units of the score; `size` is on its scale."""
    if size == 0:
        return "no spread over seeds"
    to, back = SCALES[scale]
    low, high = back(to(mean) - size), back(to(mean) + size)
    factor, unit = score_info(score).scale, score_info(score).unit
    ends = [f"{word} {value * factor:.4g}" for word, value in (("below", low), ("above", high)) if not math.isnan(value)]
    change = max(abs(value - mean) for value in (low, high) if not math.isnan(value)) if ends else math.nan
    relative = f" (by up to {change / abs(mean):.0%})" if ends and mean else ""
    return (" or ".join(ends) + f" {unit}".rstrip() + relative) if ends else "nothing that a share can be"


def _share(angle: float) -> float:
    return math.sin(angle) ** 2 if 0 <= angle <= math.pi / 2 else math.nan


SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "plain": (lambda value: value, lambda value: value),
    "log": (math.log, math.exp),
    "share": (lambda value: math.asin(math.sqrt(value)), _share),
}
