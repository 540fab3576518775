"""What verdicts and bold promise of their errors, by simulation: at most 5 % of pages with a wrong verdict, of columns with a false bold.

A promise fails where the draws exceed it by more than chance: beyond the 99.9 % quantile of their binomial number. `slow`: the same with
more draws, and of further seeds.
"""

import math

import numpy as np
import pandas as pd
import pytest
from claims_of_rows import STUDY, judged, rows
from scipy import stats

from harness.report.cells import cells, leaders
from harness.report.conditions import CONDITIONS
from harness.report.specs import Column
from harness.report.statistics import holm
from harness.report.verdicts import ALPHA

RATE = 0.05
SEEDS = {  # (generator, shape) -> values of that shape, of mean 0
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log-normal .5": lambda rng, shape: np.exp(0.5 * rng.normal(size=shape)) - math.exp(0.125),
    "log-normal 1": lambda rng, shape: np.exp(rng.normal(size=shape)) - math.exp(0.5),
    "log-normal 1, mirrored": lambda rng, shape: math.exp(0.5) - np.exp(rng.normal(size=shape)),
}
OTHERS = ["ttr", "recursive_ttr", "diffusion_registers", "dsr"]
LOWER = [{"kind": "lower", "method": method, "against": "baseline", "score": "fid"} for method in OTHERS]
ABOVE = [{"kind": "above", "method": "baseline", "score": score, "value": 0} for score in ("denoiser_noise_fall", "denoiser_middle_blocks")]
MARGIN = {"kind": "not_lower", "method": "masked", "against": "baseline", "score": "fid", "margin": 0.05}
EMA = {"kind": "ema_above", "method": "dsr", "against": "baseline", "score": "fid"}
PAGE = [*LOWER, *ABOVE, MARGIN]  # as many tests as reports/claims.yaml has, and of the same kinds
METHODS = ["baseline", "masked", *OTHERS]


def outcomes(values, conditions):
    """Of the conditions of a page, from {(method, score): values by seed}, as harness/report/verdicts.py decides them."""
    kinds = [CONDITIONS[one["kind"]](**one) for one in conditions]
    found = []
    for kind in kinds:
        m, b = (np.asarray(values[name, kind.score]) for name in (kind.method, (kind.others or [kind.method])[0]))
        found.append(kind.measure(m, b, {STUDY.ema: b} | values.get("averages", {})))
    adjusted = holm([one.p or 1.0 for one in found])
    return [
        ("holds" if one.holds else "refuted") if one.p is not None and p < ALPHA else "undecided"
        for one, p in zip(found, adjusted, strict=True)
    ]


def most(draws, rate=RATE):
    """As many as chance allows of so many draws."""
    return stats.binom.ppf(0.999, draws, rate)


def page(draw, seeds, rng, effects=None):
    """Values of a page of which nothing is true: masking is at the edge of its margin. `effects`: score -> mean of the baseline's."""
    shared = draw(rng, seeds)  # noise that the methods of a seed have in common
    fid = 20 + shared
    values = {("baseline", "fid"): fid + draw(rng, seeds), ("masked", "fid"): (1 - MARGIN["margin"]) * (fid + draw(rng, seeds))}
    values |= {(method, "fid"): fid + draw(rng, seeds) for method in OTHERS}
    return values | {("baseline", one["score"]): draw(rng, seeds) + (effects or {}).get(one["score"], 0.0) for one in ABOVE}


def wrong_pages(name, seeds, pages, seed=0):
    rng = np.random.default_rng(seed)
    return sum(set(outcomes(page(SEEDS[name], seeds, rng), PAGE)) != {"undecided"} for _ in range(pages))


@pytest.mark.parametrize("seeds", [3, 6, 12])
@pytest.mark.parametrize("name", ["normal", "log-normal 1"])
def test_a_page_is_wrong_as_rarely_as_it_says(name, seeds):
    assert wrong_pages(name, seeds, 500) <= most(500)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 6, 12, 24])
@pytest.mark.parametrize("name", SEEDS)
def test_a_page_is_wrong_as_rarely_as_it_says_at_length(name, seeds):
    assert wrong_pages(name, seeds, 1500, seed=1) <= most(1500)


@pytest.mark.parametrize(("seeds", "size"), [(6, 5.7), (12, 2.6)])
def test_what_is_above_a_value_is_found_as_often_as_stated(seeds, size):
    """Eight times in ten, among six other tests: the power that is left of 2.9 and 1.5, which Student's t has where seeds are normal."""
    rng, pages, at = np.random.default_rng(0), 200, len(LOWER)
    effects = {ABOVE[0]["score"]: size}
    found = [outcomes(page(SEEDS["normal"], seeds, rng, effects), PAGE)[at] == "holds" for _ in range(pages)]
    assert sum(found) >= stats.binom.ppf(0.001, pages, 0.8)


# ------------------------------------------------------------------------------------------------------------------ EMA decays


def ema_outcomes(seeds, draws, *, moved=0.0, apart=0.0, noise=1.0):
    """Where the baseline's FID at one of the other decays is `moved`, and DSR's `apart` from the baseline's own."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        shared = 20 + noise * rng.normal(size=seeds)
        values = {("baseline", "fid"): shared + rng.normal(size=seeds), ("dsr", "fid"): shared + apart + rng.normal(size=seeds)}
        shifts = [moved, *[0.0] * (len(STUDY.sampling.averages) - 1)]
        averages = {decay: shared + shift + rng.normal(size=seeds) for decay, shift in zip(STUDY.sampling.averages, shifts, strict=True)}
        found += outcomes(values | {"averages": averages}, [EMA])
    return found


@pytest.mark.parametrize(("seeds", "noise"), [(6, 0.0), (20, 3.0)])
def test_ema_without_any_effect_decides_as_rarely_as_it_says(seeds, noise):
    """A range over decays against a difference of two was decided in 42 to 100 of 100."""
    assert len([one for one in ema_outcomes(seeds, 500, noise=noise) if one != "undecided"]) <= most(500)


@pytest.mark.parametrize("seeds", [6, 12])
def test_ema_and_method_that_move_alike_are_told_apart_as_rarely_as_it_says(seeds):
    assert len([one for one in ema_outcomes(seeds, 500, moved=5.0, apart=-5.0) if one != "undecided"]) <= most(500)


def test_ema_that_moves_more_is_found():
    assert ema_outcomes(6, 50, moved=10.0, apart=-2.0).count("holds") >= 40
    assert ema_outcomes(6, 50, moved=0.0, apart=-10.0).count("refuted") >= 40


# --------------------------------------------------------------------------------------------------------------------- margins


def margin_outcomes(effect, seeds, draws):
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        base = 1 + 0.05 * rng.normal(size=seeds)
        found += outcomes({("baseline", "fid"): base, ("masked", "fid"): base + effect + 0.05 * rng.normal(size=seeds)}, [MARGIN])
    return found


@pytest.mark.parametrize(("effect", "end"), [(0.0, "holds"), (-0.025, "holds"), (-0.04, "holds"), (-0.06, "refuted")])
def test_more_seeds_always_lead_to_one_end(effect, end):
    """Inside the margin or outside: the share of the right verdict grows to 1, and that of the wrong one stays within the rate."""
    found = [margin_outcomes(effect, seeds, 100) for seeds in (6, 60, 600)]
    shares = [one.count(end) for one in found]
    assert shares == sorted(shares)
    assert shares[-1] >= 98
    wrong = {"holds": "refuted", "refuted": "holds"}[end]
    assert all(one.count(wrong) <= most(100) for one in found)


def test_at_the_margin_neither_is_found_more_often_than_it_says():
    assert sum(one != "undecided" for one in margin_outcomes(-0.05, 30, 500)) <= most(500)


# ------------------------------------------------------------------------------------------------------------------------ bold


def false_bold(draw, seeds, columns):
    """Columns of six methods without any difference in which something is bold. `draw`: (generator, shape) -> values."""
    rng, bold = np.random.default_rng(0), 0
    for _ in range(columns):
        values = {method: pd.Series(draw(rng, seeds)) for method in METHODS}
        bold += bool(leaders(values, "baseline", lowest=True))
    return bold


def counts(mean):
    return lambda rng, shape: rng.poisson(mean, size=shape) / 1000


@pytest.mark.parametrize("name", ["normal", "log-normal 1"])
def test_a_column_is_bold_by_chance_in_one_table_of_forty(name):
    """As the note under a table says, which does not correct columns for one another."""
    assert false_bold(SEEDS[name], 3, 300) <= most(300, 1 / 40)


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("mean", [0.2, 1, 5, 50])
def test_a_column_of_discrete_shares_is_bold_as_rarely_as_it_says(seeds, mean):
    """With two seeds, equal differences were significant in 14 of 100 columns."""
    assert false_bold(counts(mean), seeds, 100) <= (most(100, 1 / 40) if seeds > 2 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 6, 12])
@pytest.mark.parametrize("mean", [0.2, 1, 5, 50])
def test_a_column_of_discrete_shares_is_bold_as_rarely_as_it_says_at_length(seeds, mean):
    assert false_bold(counts(mean), seeds, 2000) <= most(2000, 1 / 40)


def test_equal_differences_are_not_bold():
    """The difference is the same in every seed: of a share in steps of 1/1000 that is no certainty."""
    table = rows({("baseline", "accuracy"): [0.97, 0.96, 0.98], ("dsr", "accuracy"): [0.972, 0.962, 0.982]}).assign(low=np.nan, high=np.nan)
    assert not any(cell.bold for cell in cells(table, Column(score="accuracy"), ["baseline", "dsr"], "baseline").values())


def test_the_simulated_verdicts_are_those_of_the_page():
    rng, same = np.random.default_rng(0), {"holds": "replicates", "refuted": "does not replicate", "undecided": "undecided"}
    for _ in range(3):
        values = page(SEEDS["normal"], 6, rng, {ABOVE[0]["score"]: 8.0})
        assert [one.verdict for one in judged(values, *PAGE)] == [same[one] for one in outcomes(values, PAGE)]
