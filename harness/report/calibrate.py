"""`dsr calibrate`: what the gate, the claims page and the intervals do on seeds that are drawn from a user's own rows. Imports no torch.

Seeds are few, so that how new ones are drawn is an assumption, of which there are two. Both work on each score's own scale, as the gate has
it (logarithm, arc sine of a share's root, or plain), and draw all scores and methods of a seed together:

- `normal`: the mean and normal combinations of the centred seeds; their covariance is the sample's (rank n - 1).
- `bootstrap`: a seed of the sample, drawn with replacement, and `SMOOTH` of such a combination, scaled to the same covariance.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.machine.progress import Progress
from harness.report.conditions import EmaAbove, Tested
from harness.report.gate.compare import RATE
from harness.report.gate.lines import EVERY, Key, ScoreBySeed, by_score
from harness.report.gate.matrix import Matrix
from harness.report.gate.scores import compare_scores
from harness.report.hypotheses import load_claims
from harness.report.rows import from_csv, trained
from harness.report.statistics import half_width, holm
from harness.report.verdicts import ALPHA, Result, judge
from harness.results.schema import LEVEL
from harness.results.scores import score_info
from harness.study.study import Study, load_study
from harness.study.typed import UserError

NULLS = ("normal", "bootstrap")
SMOOTH = 0.5  # standard deviations of a seed that the bootstrap adds
PRIMARY = "fid"
CHANGES = (0.25, 0.5, 1.0)  # of the primary score of one method, relative
TRUTH = 20_000  # seeds that true means are of


@dataclass(frozen=True)
class Seeds:
    """What new seeds are drawn from: `centred` (n, L) and `mean` (L,) of the `keys` on their `scales`; `images` (L,) of counts, else 0."""

    keys: list[Key]
    scales: list[str]
    mean: np.ndarray
    centred: np.ndarray
    images: np.ndarray
    better: list[str]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Seeds":
        """Of the scores that every seed has and that vary by seed. UserError for fewer than two seeds, or none of these scores."""
        seeds = sorted(set(rows["seed"]))
        if len(seeds) < 2:
            raise UserError(
                f"rows of {len(seeds)} seed; how scores vary is told by two, better six: run more seeds, or give more to --seeds"
            )
        cells = {key: cell for key, cell in by_score(rows).items() if not cell.shared and sorted(cell.values) == seeds}
        cells = {key: cell for key, cell in cells.items() if not score_info(key[0]).counted and cell.estimate and cell.estimate.spreads}
        if not cells:
            raise UserError("no score of the rows varies by seed and has a value in every seed; give rows of runs that did not fail")
        matrix = Matrix.of(cells, cells)
        kept = [place for place, key in enumerate(matrix.keys) if key[2] != EVERY]
        scales, values = [matrix.scales[place] for place in kept], matrix.stored[:, kept]
        counts = np.array([cells[key].n if score_info(key[0]).of == "samples" else 0 for key in cells], float)
        whole = np.isclose(values * counts, np.round(values * counts), rtol=0, atol=1e-6).all(0) & (np.array(scales) == "share")
        on_scale = matrix.lines(both_scales=False)[0].values[: len(seeds), kept]
        mean = on_scale.mean(0)
        return cls(list(cells), scales, mean, on_scale - mean, np.where(whole, counts, 0), [cell.better for cell in cells.values()])

    @property
    def count(self) -> int:
        """How many seeds the sample has."""
        return len(self.centred)

    def draw(self, rng: np.random.Generator, seeds: int, null: str) -> np.ndarray:
        """(seeds, L) values of new seeds, in the units of the scores."""
        drawn = rng.standard_normal((seeds, self.count)) @ self.centred / math.sqrt(self.count - 1)
        if null == "bootstrap":
            whole = self.centred[rng.integers(self.count, size=seeds)] * math.sqrt(self.count / (self.count - 1))
            drawn = (whole + SMOOTH * drawn) / math.sqrt(1 + SMOOTH**2)
        values, scales = self.mean + drawn, np.array(self.scales)
        values[:, scales == "log"] = np.exp(values[:, scales == "log"])
        values[:, scales == "share"] = np.sin(np.clip(values[:, scales == "share"], 0, math.pi / 2)) ** 2
        of = self.images > 0
        values[:, of] = np.round(values[:, of] * self.images[of]) / self.images[of]
        return values

    def cells(self, values: np.ndarray, first: int) -> dict[Key, ScoreBySeed]:
        """Values (S, L) as the gate takes them, of seeds from `first` on."""
        seeds = range(first, first + len(values))
        columns = zip(self.keys, self.better, self.images, values.T, strict=True)
        return {key: ScoreBySeed(False, better, dict(zip(seeds, of.tolist(), strict=True)), n=int(n)) for key, better, n, of in columns}

    def place(self, score: str, method: str, ema: float) -> int | None:
        """The column of a score; None without one."""
        return next((i for i, (name, view, who) in enumerate(self.keys) if (name, view.ema, who) == (score, ema, method)), None)


def run_calibrate(study: str, *, against: Path | None = None, seeds: list[int] | None = None, redraws: int, spec: Path) -> str:
    """What `dsr calibrate` prints. Default rows: those of the study's own table, reports/<study>/table1.csv."""
    of, path = load_study(study), against or Path(f"reports/{study}/table1.csv")
    if not path.is_file():
        raise UserError(f"{path}: no rows; run snakemake --cores all reports/table1.md --config study={study}, or give --against FILE")
    rows = trained(from_csv(path), path)
    if set(rows["study"]) != {study}:
        raise UserError(f"{path}: rows of study '{rows['study'].iloc[0]}', not of '{study}'; give --study and --against of one")
    if missing := set(seeds or ()) - set(rows["seed"]):
        raise UserError(f"{path}: no rows of seed {min(missing)}; it has {', '.join(map(str, sorted(set(rows['seed']))))}")
    rows = rows[rows["seed"].isin(seeds)] if seeds else rows
    sample, results = Seeds.of(rows), decidable(rows, of, spec)
    lines = [
        f"{path}: {sample.count} seeds, {len(sample.keys)} scores of methods that vary by seed; {redraws} redraws, ± one Monte Carlo "
        "standard error.",
        "New seeds are drawn from these: `normal` with the sample's own covariance over scores and methods, each on its scale (log, arc "
        f"sine of a share's root, plain), and `bootstrap` of whole seeds, smoothed. Both take the spread of {sample.count} seeds for the "
        "true one, and no tail that these do not show.",
    ]
    for null in NULLS:
        lines += ["", f"Seeds drawn by {null}:", *_gate_text(sample, null, redraws), *_page_text(sample, results, of, null, redraws)]
        lines += _coverage_text(sample, null, redraws)
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------------------- gate


def gate_rates(
    sample: Seeds, null: str, stored: int, fresh: int, redraws: int, *, same_seeds: bool = False, change: float = 0.0, seed: int = 0
) -> tuple[int, int, int]:
    """Of `redraws` comparisons: with any difference, undecided without one, and with a difference in the changed line.

    `change`: relative, of the fresh values of the first method's primary score. `same_seeds`: both sides have the same seed numbers.
    """
    rng, alarms, undecided, found = np.random.default_rng(seed), 0, 0, 0
    place, progress = _primary(sample), Progress(f"gate {stored}/{fresh}, {null}", redraws, "redraws")
    for number in range(redraws):
        before, after = sample.draw(rng, stored, null), sample.draw(rng, fresh, null)
        after[:, place] *= 1 + change
        lines, _ = compare_scores(sample.cells(after, 0 if same_seeds else stored), sample.cells(before, 0), RATE)
        differ = [line for line in lines if line.verdict == "difference"]
        alarms += bool(differ)
        undecided += not differ and any(line.verdict == "undecided" for line in lines)
        found += any((line.score, line.view, line.method) == sample.keys[place] for line in differ)
        progress.update(number + 1)
    return alarms, undecided, found


def _primary(sample: Seeds) -> int:
    return next((place for place, key in enumerate(sample.keys) if key[0] == PRIMARY), 0)


def _gate_text(sample: Seeds, null: str, redraws: int) -> Iterator[str]:
    n = sample.count
    for stored, fresh in dict.fromkeys([(n, n), (n, 3), (3, 3)]):
        for same in (False, True)[: 1 + (stored == fresh == n)]:
            alarms, undecided, _ = gate_rates(sample, null, stored, fresh, redraws, same_seeds=same)
            seeds = f"{stored} stored, {fresh} fresh" + ", the same seed numbers on both sides, values redrawn" * same
            alarm, silent = _rate(alarms, redraws), _rate(undecided, redraws)
            yield f"  dsr check, {seeds}: false alarm in {alarm} (promised: {RATE:.0%}); cannot decide {silent}"
    place = _primary(sample)
    score, _, method = sample.keys[place]
    mean = float(sample.draw(np.random.default_rng(0), TRUTH, null)[:, place].mean())
    for change in CHANGES if score == PRIMARY else ():
        found = gate_rates(sample, null, n, 3, redraws, change=change)[2]
        change_text = f"{score} of {method} from {mean:.3g} to {mean * (1 + change):.3g}"
        yield f"  power, {n} stored, 3 fresh: {change_text} found in {_rate(found, redraws)}"


# ------------------------------------------------------------------------------------------------------------------------ claims


def decidable(rows: pd.DataFrame, study: Study, spec: Path) -> list[Result]:
    """The conditions of the claims that these rows decide by a test over seeds."""
    verdicts = judge(load_claims(spec), rows, study, list(dict.fromkeys(rows["method"])))
    of = [result for one in verdicts for result in one.conditions if result.p is not None]
    return [result for result in of if isinstance(result.condition, Tested) and not isinstance(result.condition, EmaAbove)]


def page_rates(
    sample: Seeds, results: list[Result], study: Study, null: str, redraws: int, *, effects: bool, seed: int = 0
) -> tuple[int, list[int], list[int]]:
    """Of `redraws` pages of the sample's seeds: with any decided condition; of each condition, how often it holds and is refuted.

    `effects`: the true ones are the sample's; else each is taken off, so that whatever is decided is wrong.
    """
    rng, decided = np.random.default_rng(seed), 0
    holds, refuted = [0] * len(results), [0] * len(results)
    truth = sample.draw(np.random.default_rng(1), TRUTH, null).mean(0, keepdims=True)
    for _ in range(redraws):
        values, found = sample.draw(rng, sample.count, null), []
        for one in results:
            condition = one.condition
            assert isinstance(condition, Tested)
            own, other = (sample.place(one.score, name, study.ema) for name in (one.method, one.against or one.method))
            m, b = values[:, own], values[:, other]
            if not effects:
                at, step = condition.sides(truth[:, own], truth[:, other])[1], condition.sides(truth[:, own] + 1, truth[:, other])[1]
                m = m - at / (step - at)
            found.append(condition.measure(m, b, {}))
        adjusted = holm([1.0 if one.p is None else one.p for one in found])
        any_decided = False
        for place, (one_found, p) in enumerate(zip(found, adjusted, strict=True)):
            if one_found.p is not None and p < ALPHA:
                any_decided = True
                (holds if one_found.holds else refuted)[place] += 1
        decided += any_decided
    return decided, holds, refuted


def _page_text(sample: Seeds, results: list[Result], study: Study, null: str, redraws: int) -> Iterator[str]:
    results = [
        one
        for one in results
        if all(sample.place(one.score, name, study.ema) is not None for name in (one.method, one.against or one.method))
    ]
    if not results:
        yield "  claims: none that these rows decide by a test over seeds"
        return
    wrong, _, _ = page_rates(sample, results, study, null, redraws, effects=False)
    yield f"  claims, {len(results)} tests, no effect: a page decides one wrongly in {_rate(wrong, redraws)} (promised: {ALPHA:.0%})"
    _, holds, refuted = page_rates(sample, results, study, null, redraws, effects=True)
    for one, yes, no in zip(results, holds, refuted, strict=True):
        yield f"  power, if effects are as in these rows: {one.text}: holds {_rate(yes, redraws)}, refuted {_rate(no, redraws)}"


# -------------------------------------------------------------------------------------------------------------------- intervals


def coverage(sample: Seeds, null: str, redraws: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(redraws,) each: share of the scores whose interval over seeds has the true mean, and of paired differences to the first method."""
    rng, truth = np.random.default_rng(seed), sample.draw(np.random.default_rng(1), TRUTH, null).mean(0)
    first = sample.keys[0][2]
    base = {(score, view): place for place, (score, view, method) in enumerate(sample.keys) if method == first}
    pairs = [(place, base[key[:2]]) for place, key in enumerate(sample.keys) if key[2] != first and key[:2] in base]
    means, differences = np.full(redraws, np.nan), np.full(redraws, np.nan)
    for number in range(redraws):
        values = sample.draw(rng, sample.count, null)
        means[number] = _inside(values, truth)
        if pairs:
            differences[number] = _inside(
                *(side[..., [i for i, _ in pairs]] - side[..., [j for _, j in pairs]] for side in (values, truth))
            )
    return means, differences


def _inside(values: np.ndarray, truth: np.ndarray) -> float:
    """Share of the columns of values (S, L) whose interval over seeds has the true mean (L,)."""
    return float((np.abs(values.mean(0) - truth) <= half_width(values.std(0, ddof=1), len(values))).mean())


def _coverage_text(sample: Seeds, null: str, redraws: int) -> Iterator[str]:
    for what, shares in zip(
        ("mean over seeds", f"difference to {sample.keys[0][2]}, paired"), coverage(sample, null, redraws), strict=True
    ):
        if not np.isnan(shares).any():
            error = shares.std(ddof=1) / math.sqrt(redraws)
            yield f"  {LEVEL:.0%} interval of the {what}: has the true one in {shares.mean():.1%} ± {error:.1%}, mean of all scores"


def _rate(count: int, redraws: int) -> str:
    """A share with its standard error, which is not 0 where the share is."""
    near = (count + 1) / (redraws + 2)
    return f"{count / redraws:.1%} ± {math.sqrt(near * (1 - near) / redraws):.1%}"
