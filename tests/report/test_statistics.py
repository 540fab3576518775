import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.report.statistics import difference, estimate

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@given(values)
def test_interval_is_students(sample):
    found = estimate(np.array(sample))
    spread = stats.sem(sample)
    assert found.mean == pytest.approx(np.mean(sample))
    assert found.half == pytest.approx(stats.t.ppf(0.975, len(sample) - 1) * spread, abs=1e-9)


def test_one_seed_has_no_interval_and_decides_nothing():
    found = estimate(np.array([3.0]))
    assert (found.mean, found.n) == (3.0, 1)
    assert math.isnan(found.half)
    assert not found.excludes_zero


def test_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    covered = np.mean([not estimate(draw).excludes_zero for draw in draws])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_differences_are_paired_by_seed():
    rows = pd.DataFrame(
        [{"method": m, "score": "fid", "seed": s, "value": v} for m, s, v in [("a", 0, 1.0), ("a", 1, 9.0), ("b", 1, 10.0), ("b", 0, 2.0)]]
    )
    found = difference(rows, "b", "a", "fid")
    assert found.mean == 1.0
    assert found.half == pytest.approx(0.0)
    assert found.excludes_zero
