"""The regression gate on real runs: silent over re-draws of unchanged code, and not over real regressions.

The study is of pixels, 8x8 and 4 tokens, so that a run of training, sampling and scoring takes about a second.
"""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pipeline import Pipeline
from scipy import stats

from harness.denoiser import sample
from harness.denoiser.base import Denoiser
from harness.denoiser.recipe import recipe_of
from harness.machine import device as runtime
from harness.report.gate.command import report_text
from harness.report.gate.compare import RATE, compare_rows
from harness.report.rows import typed
from harness.results.schema import ScoreFile, rows_of
from harness.store import artifacts
from harness.study import typed as config
from harness.study.study import parse_study, read_study
from harness.training.ema import Weights

pytestmark = pytest.mark.slow  # thirty runs, for a promise about rates

METHOD = "diffusion_registers"
POOL, STORED, FRESH = range(24), 8, 4
PIXELS = {
    "data": {"image_size": 8},
    "encoder": {"kind": "pixels"},
    "outliers": "none",
    "planted": [],
    "search": None,
    "latents": {"whitening": "none"},
    "decoder": {"kind": "encoder"},
    "denoiser": {
        "patch": 4, "width": 32, "depth": 2, "heads": 2, "time_shift": 1.0, "ema": [0.99], "ema_warm_up": False,
        "training": {"steps": 150, "batch": 16, "lr": 1.0e-2, "schedule": {"decay": "constant"}},
    },
    "sampling": {"count": 100, "batch": 100, "grid_points": 6, "averages": []},
    "evaluation": {
        "judge": {"width": 16, "training": {"steps": 150}}, "clip": None, "reconstruction": False,
        "kid_subset": 50, "kid_subsets": 3, "resamples": 20,
    },
    "outlier_statistics": {"images": 20, "times": [0.5]},
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    runtime.set_up(1)
    study = parse_study("pixels", config.merge(read_study("digits"), PIXELS))
    return Pipeline(study, tmp_path_factory.mktemp("pixels")).prepare(["plain"])


@pytest.fixture(scope="module")
def rows_of_seeds(prepared):
    """rows_of_seeds(seeds, name): the rows of runs below a folder of that name."""

    def rows(seeds, name):
        pipeline = copy.copy(prepared)
        pipeline.root, pipeline.state, pipeline.runs = prepared.root / name, prepared.root / name / "state", {}
        pipeline.run(METHOD, seeds)
        files = [ScoreFile(**artifacts.read_json(run / f)) for run in pipeline.runs[METHOD] for f in ("scores.json", "outliers.json")]
        return typed(pd.DataFrame([row.model_dump() for file in files for row in rows_of(file)]))

    return rows


@pytest.fixture(scope="module")
def pool(rows_of_seeds):
    """Rows of many seeds of unchanged code."""
    return rows_of_seeds(POOL, "pool")


def of(rows, seeds):
    return rows[rows["seed"].isin(seeds)]


def test_silent_over_twenty_redraws_of_unchanged_code(pool):
    rng, reports = np.random.default_rng(0), []
    for _ in range(20):
        seeds = rng.permutation(POOL)
        reports.append(compare_rows(of(pool, seeds[:FRESH]), of(pool, seeds[FRESH : FRESH + STORED])))
    alarms = sum(report.exit_code == 1 for report in reports)
    assert alarms <= stats.binom.ppf(0.98, 20, RATE)  # 3
    assert not any(report.exit_code == 2 for report in reports)
    values = [line.p for report in reports for line in report.lines if line.tested]
    assert len(values) >= 20 * 8
    assert min(values) < 0.1
    assert 0.3 < np.mean(values) < 0.7  # neither all near 0 nor all near 1


def test_the_same_seeds_again_are_identical(pool, rows_of_seeds):
    report = compare_rows(rows_of_seeds([3], "again"), of(pool, range(STORED)))
    assert report.identical
    assert report.exit_code == 0


def without_average(monkeypatch):
    """The raw weights are kept in the place of their average. (After so few steps they score better: the average lags behind.)"""
    follow = Weights.follow
    monkeypatch.setattr(Weights, "follow", lambda self, decays: follow(self, [0.0] * len(decays)))


def other_time_shift(monkeypatch):
    """Sampling with another shift than in training."""
    monkeypatch.setattr(sample, "recipe_of", lambda study: replace(recipe_of(study), time_shift=16.0))


def register_rows_left_in(monkeypatch):
    """Registers join behind the patches, while the rows in front are cut off: the output ends with the registers' rows."""
    prepend = Denoiser.prepend_registers
    monkeypatch.setattr(Denoiser, "prepend_registers", lambda self, x: prepend(self, x).roll(-self.registers, dims=1))


@pytest.mark.parametrize(
    ("regression", "direction"), [(without_average, "better"), (other_time_shift, "worse"), (register_rows_left_in, "worse")]
)
def test_a_regression_is_caught(pool, rows_of_seeds, monkeypatch, regression, direction):
    """Stored: seeds 0 to 7. Fresh: other seeds, after the regression."""
    regression(monkeypatch)
    report = compare_rows(rows_of_seeds(range(100, 100 + FRESH), regression.__name__), of(pool, range(STORED)))
    assert report.exit_code == 1, report_text(report, everything=True)
    assert ("fid", direction) in {(line.score, line.why) for line in report.of("difference")}


@pytest.mark.parametrize("regression", [without_average, other_time_shift])
def test_the_same_seeds_tell_what_they_were_drawn_with(pool, rows_of_seeds, monkeypatch, regression):
    """Two of the stored seeds again, after the regression: too few for a test over seeds, and no test is needed."""
    regression(monkeypatch)
    report = compare_rows(rows_of_seeds(range(2), f"same {regression.__name__}"), of(pool, range(STORED)))
    assert report.exit_code == 1
    assert "sampled with" in {line.score for line in report.of("difference")}
