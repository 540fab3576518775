import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.report.statistics import (
    Estimate,
    critical,
    detectable,
    difference,
    estimate,
    holm,
    seeds_needed,
    seeds_range,
    skewed_p,
)

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@given(values)
def test_interval_is_students(sample):
    estimated = estimate(np.array(sample))
    spread = stats.sem(sample)
    assert estimated.mean == pytest.approx(np.mean(sample))
    assert estimated.half == pytest.approx(stats.t.ppf(0.975, len(sample) - 1) * spread, abs=1e-9)


def test_one_seed_has_no_interval_and_decides_nothing():
    estimated = estimate(np.array([3.0]))
    assert (estimated.mean, estimated.n) == (3.0, 1)
    assert math.isnan(estimated.half)
    assert not estimated.excludes_zero


def test_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    covered = np.mean([not estimate(draw).excludes_zero for draw in draws])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_differences_are_paired_by_seed():
    rows = pd.DataFrame(
        [{"method": m, "score": "fid", "seed": s, "value": v} for m, s, v in [("a", 0, 1.0), ("a", 1, 9.0), ("b", 1, 10.0), ("b", 0, 2.0)]]
    )
    paired = difference(rows, "b", "a", "fid")
    assert paired.mean == 1.0
    assert paired.half == pytest.approx(0.0)
    assert not paired.excludes_zero  # without a spread there is nothing to hold it against


@given(values)
def test_p_is_that_of_a_t_test_and_agrees_with_the_interval(sample):
    estimated, spread = estimate(np.array(sample)), np.std(sample)
    if spread > 1e-6:
        assert estimated.p == pytest.approx(stats.ttest_1samp(sample, 0).pvalue, abs=1e-9)
    if abs(abs(estimated.mean) - estimated.half) > 1e-9:
        assert estimated.excludes_zero == (estimated.p < 0.05)
    assert (estimated.low + estimated.high) / 2 == pytest.approx(estimated.mean)


def test_p_without_a_spread():
    assert estimate(np.array([3.0])).p == 1.0
    assert estimate(np.array([0.0, 0.0])).p == 1.0
    assert estimate(np.array([2.0, 2.0])).p == 1.0
    assert estimate(np.array([0.97, 0.97, 0.97 + 2e-16])).p == 1.0  # rounding is no spread


chances = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(chances)
def test_holm_rejects_what_its_steps_reject(p):
    adjusted = holm(p)
    assert all(after >= before for before, after in zip(p, adjusted, strict=True))
    assert all(after <= min(1, len(p) * before) + 1e-12 for before, after in zip(p, adjusted, strict=True))
    alpha, rejected = 0.05, set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):  # the textbook's own form
        if p[i] * (len(p) - step) >= alpha:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(adjusted) if value < alpha} == rejected


def test_holm_keeps_the_chance_of_any_false_finding():
    draws = np.random.default_rng(0).uniform(size=(4000, 7))
    assert np.mean([min(holm(draw)) < 0.05 for draw in draws]) == pytest.approx(0.05, abs=0.012)


def test_seeds_needed_reach_the_power_that_is_asked():
    n = seeds_needed(1.0)
    assert n == 10  # as in tables of the paired t-test: d = 1, 5 %, 80 %
    draws = np.random.default_rng(0).normal(1.0, 1.0, size=(4000, n))
    assert np.mean([estimate(draw).p < 0.05 for draw in draws]) == pytest.approx(0.8, abs=0.03)
    assert seeds_needed(0.0) is seeds_needed(math.nan) is seeds_needed(0.001, most=50) is None
    assert seeds_needed(100.0) == 2
    assert detectable(n, 0.05) <= 1.0 < detectable(n - 1, 0.05)
    assert Estimate(1.0, math.nan, 1).p == 1.0


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_a_pilot_of_three_gives_a_range_that_holds_the_seeds_needed(size):
    """In 95 of 100 pilots. Their mean alone would give a number whose power is .52 to .67 in place of .8."""
    rng, pilots, true = np.random.default_rng(0), 1000, seeds_needed(size)
    inside = 0
    for _ in range(pilots):
        fewest, most = seeds_range(estimate(rng.normal(size, 1.0, size=3)), alpha=0.05)
        inside += (fewest or 1001) <= true <= (most or 1001)
    assert inside >= stats.binom.ppf(0.001, pilots, 0.95)


def test_skewed_seeds_take_more_seeds():
    assert seeds_needed(2.0) < seeds_needed(2.0, skewed=True)
    rng, limit = np.random.default_rng(1), critical(6, 0.01, skewed=True)
    values = np.exp(rng.standard_normal((20000, 6))) - math.exp(0.5)
    beyond = np.abs(values.mean(1)) / (values.std(1, ddof=1) / math.sqrt(6)) > limit
    assert beyond.mean() == pytest.approx(0.01, abs=0.003)
    edge = estimate(np.array([1.0, -1.0] * 3) + limit * np.std([1.0, -1.0] * 3, ddof=1) / math.sqrt(6))
    assert skewed_p(edge) == pytest.approx(0.01, abs=1e-3)
    assert skewed_p(edge) > edge.p
    assert skewed_p(estimate([1.0, 1.0])) == skewed_p(estimate([1.0])) == 1.0
