"""What the gate promises of its errors, by simulation: at most 5 % false alarms in a whole comparison, and what it finds.

A promise fails where the redraws exceed it by more than chance: beyond the 99.9 % quantile of their binomial number. `slow`: the same with
more redraws, and on further distributions.
"""

import numpy as np
import pytest
from gate_nulls import NULLS, RATE, judged, power, rates, redraw
from scipy import stats

from harness.report.gate.joint import pairs, two_samples
from harness.report.gate.scores import detectable, two_sample
from harness.report.statistics import estimate

FAST = [
    ("normal", 8, 3, 150), ("log-normal 1", 8, 3, 400), ("spikes", 8, 3, 150), ("counts", 8, 3, 150), ("normal", 3, 3, 80),
    ("counts", 3, 3, 80), ("spikes", 2, 2, 80),
]  # fmt: skip


def kept(null, stored, fresh, redraws, **options):
    alarms, undecided = rates(null, stored, fresh, redraws, **options)
    assert alarms * redraws <= stats.binom.ppf(0.999, redraws, RATE), alarms
    assert undecided * redraws <= (0 if stored == 8 else stats.binom.ppf(0.999, redraws, 0.1)), undecided
    return alarms


@pytest.mark.parametrize(("null", "stored", "fresh", "redraws"), FAST)
def test_false_alarms_are_as_rare_as_promised(null, stored, fresh, redraws):
    kept(null, stored, fresh, redraws)


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "fresh"), [(8, 3), (3, 3), (2, 2)])
@pytest.mark.parametrize("null", NULLS)
def test_false_alarms_are_as_rare_as_promised_on_every_null(null, stored, fresh):
    kept(null, stored, fresh, 200 if stored == 8 else 100, seed=1)


def test_the_test_does_alarm():
    """The rate is used, not only kept: of exchanged seeds the p-values are uniform, by exchange and by rotation."""
    rng = np.random.default_rng(0)
    for seeds in ((8, 3), (3, 3)):
        values = [
            float(judged(redraw("correlated", seeds[0], rng), redraw("correlated", seeds[1], rng), 199)[0].adjusted.min())
            for _ in range(80)
        ]
        assert stats.kstest(values, "uniform").pvalue > 0.01
        assert min(values) < 0.1


@pytest.mark.parametrize(("stored", "fresh", "one", "everything"), [(8, 3, 4.9, 3.7), (3, 3, 12.7, 7.5)])
def test_changes_are_found_as_often_as_promised(stored, fresh, one, everything):
    """In standard deviations over seeds: of one method, and of all by their mean's."""
    redraws = 60
    least = stats.binom.ppf(0.001, redraws, 0.8) / redraws
    assert power("normal", stored, fresh, redraws, lambda values: values + one) >= least
    assert power("normal", stored, fresh, redraws, lambda values: values + everything / np.sqrt(8), over_all=True) >= least


def test_a_change_of_log_normal_scores_is_found_by_its_ratio():
    """Seven times in ten by 4.9 standard deviations of the logarithm, where Student's t on the scores themselves finds next to none."""
    assert power("log-normal 1", 8, 3, 60, lambda values: values * np.exp(4.9)) >= stats.binom.ppf(0.001, 60, 0.7) / 60


def test_the_detectable_change_is_found_as_often_as_stated():
    rng, alpha = np.random.default_rng(0), 0.004
    size = detectable(5, 3, alpha)
    detected = [two_sample(estimate(rng.normal(size=5)), estimate(rng.normal(size=3) + size))[2] <= alpha for _ in range(2000)]
    assert np.mean(detected) == pytest.approx(0.8, abs=0.04)
    assert detectable(8, 3, alpha) < size < detectable(3, 3, alpha)


def test_seeds_are_exchanged_where_there_are_splits_enough():
    assert [two_samples(*seeds, RATE).exact for seeds in ((8, 3), (6, 3), (5, 2), (4, 4), (3, 3), (4, 2), (2, 2))] == [True] * 4 + [
        False
    ] * 3
    assert [pairs(seeds, RATE).exact for seeds in (8, 6, 5, 2)] == [True, True, False, False]
    every = two_samples(8, 3, RATE).weights
    assert len({tuple(row) for row in every}) == len(every) == 165
    assert list(every[0]) == [0] * 8 + [1] * 3
    assert list(pairs(6, RATE).weights[0]) == [1] * 6
    assert len(two_samples(10, 10, RATE).weights) == 5000
