"""In what share of its steps a method is where the baseline ends."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import synthetic

from harness.report import paper
from harness.report.speedup import crossing, speedup

STEPS = [2, 4, 8, 16]


def rows(curves):
    """Rows of {method: {seed: values by step}}; None is a run that diverged."""
    tables = []
    for method, by_seed in curves.items():
        for seed, values in by_seed.items():
            for step, value in zip(STEPS, values, strict=True):
                failed = {} if value is not None else {(method, seed, "fid"): ("diverged", "the loss was not finite")}
                tables.append(synthetic({method: {seed: float(value or 0)}}, [seed], scores=["fid"], step=step, failed=failed))
    return pd.concat(tables, ignore_index=True)


def test_the_papers_curve_reaches_its_baseline_in_about_a_quarter_of_the_epochs():
    base, ours = (paper.curves("imagenet256_siglip2_b_800ep")[method] for method in ("baseline", "dsr"))
    assert base.epochs[-1] / crossing(ours.epochs, ours.values, base.values[-1]) == pytest.approx(3.6, rel=0.05)


def test_a_factor_has_an_interval_over_seeds():
    curves = {"baseline": {}, "dsr": {}}
    for seed, factor in enumerate((2.0, 3.0, 4.5)):  # value: minus the logarithm of the step, so that the interpolation is exact
        curves["baseline"][seed] = [10 - math.log(step) for step in STEPS]
        curves["dsr"][seed] = [10 - math.log(step * factor) for step in STEPS]
    faster = speedup(rows(curves), "dsr", "baseline")
    assert faster.factor == pytest.approx(3.0)
    half = 4.302652729911275 * math.log(1.5) / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert faster.interval == pytest.approx((3 * math.exp(-half), 3 * math.exp(half)))
    assert faster.text == f"3.00 [{3 * math.exp(-half):.2f}, {3 * math.exp(half):.2f}]"
    one = speedup(rows({method: {0: curves[method][0]} for method in curves}), "dsr", "baseline")
    assert (one.text, one.known) == ("2.00", True)
    assert speedup(rows(curves), "baseline", "baseline").factor == 1


@pytest.mark.parametrize(
    ("ours", "text"),
    [
        ({0: [9, 8, 7, 6], 1: [3, 3, 3, 3]}, "not reached by seed 0"),
        ({0: [9, 8, 7, 6], 1: [9, 8, 7, 6]}, "not reached by seeds 0, 1"),
        ({0: [9, None, 1, 1], 1: [9, 9, 1, 1]}, "no value for seed 0"),
        ({0: [9, 8, 7, 6], 1: [9, 8, 7, None]}, "not reached by seed 0; no value for seed 1"),
        ({0: [9, 9, 1, 1], 2: [9, 9, 1, 1]}, "no value for seed 2"),  # the baseline has none
    ],
)
def test_a_seed_without_a_factor_is_named_and_none_is_made_from_the_others(ours, text):
    faster = speedup(rows({"baseline": {0: [6, 5, 4, 3], 1: [6, 5, 4, 3.5]}, "dsr": ours}), "dsr", "baseline")
    assert (faster.text, faster.known) == (text, False)
    assert np.isnan([faster.factor, *faster.interval]).all()


def test_a_baseline_that_diverged_gives_no_factor():
    assert speedup(rows({"baseline": {0: [6, 5, 4, None]}, "dsr": {0: [6, 5, 4, 3]}}), "dsr", "baseline").text == "no value for seed 0"


def test_what_is_there_at_the_first_step_is_a_bound_without_an_interval():
    faster = speedup(rows({"baseline": {0: [6, 5, 4, 3], 1: [6, 5, 4, 3]}, "dsr": {0: [2, 2, 2, 2], 1: [3, 3, 3, 3]}}), "dsr", "baseline")
    assert faster.text == "≥ 8.00"
    assert np.isnan(faster.interval).all()


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8), st.floats(0.1, 10))
def test_the_crossing_lies_between_the_last_value_above_and_the_first_at_the_target(values, target):
    steps = [2**place for place in range(len(values))]
    reached = crossing(steps, values, target)
    if reached is None:
        assert min(values) > target
    else:
        after = next(place for place, step in enumerate(steps) if step >= reached * (1 - 1e-9))
        assert values[after] <= target
        assert all(value > target for value in values[:after])
