"""Figures of rows that no run made: every family, one seed, a method that diverged."""

from pathlib import Path

import pandas as pd
import pytest
from figure_checks import check, drawn, problems
from synthetic import synthetic

from harness.report import figure_specs
from harness.report.figure_specs import figure_names, load_figure
from harness.report.figures.context import Context
from harness.report.figures.registry import FIGURES
from harness.study.study import load_study


def of_rows(name, study, methods, seeds=(0, 1, 2), scores=("fid",), **changes):
    """A Context of synthetic rows at every step and EMA decay of a study; each method a little better than the one before."""
    fids = {method: [0.6 * 0.9**place * (1 + 0.03 * seed) for seed in range(3)] for place, method in enumerate(methods)}
    views = [(study.ema, step) for step in study.snapshots] + [(ema, study.steps) for ema in study.sampled]
    tables = [
        synthetic({m: [v * (study.steps / step) ** 0.9 for v in values] for m, values in fids.items()}, seeds,
                  study=study.name, scores=scores, ema=ema, step=step, guidance=study.sampling.guidance.text, **changes)
        for ema, step in views
    ]  # fmt: skip
    return Context(study, list(methods), list(seeds), Path(), pd.concat(tables), load_figure(name))


FROM_ROWS = ("fid", "intervals", "ablation", "fid_steps", "geneval_steps", "clip_steps", "fid_ema")
SCORES = {"geneval_steps": ("geneval",), "clip_steps": ("clip_score",), "intervals": ("fid", "kid", "is", "precision")}


def of_family(name, configured):
    """The same of what a figure shows where a study is configured; skips where its family has no such figure."""
    study = load_study(configured)
    if name not in figure_names(study):
        pytest.skip("the family has no study for it")
    part = figure_specs.part(load_figure(name), study, study.methods or ["baseline", "masked", "ttr", "dsr"])
    return of_rows(name, part.study, part.methods, scores=SCORES.get(name, ("fid",)))


@pytest.mark.parametrize("name", FROM_ROWS)
def test_figure_from_rows(name, tmp_path):
    context = of_family(name, "digits")
    check(lambda: FIGURES[name](context), tmp_path)


@pytest.mark.parametrize("configured", ["smoke", "imagenet256_siglip2_b"])
@pytest.mark.parametrize("name", FROM_ROWS)
def test_figure_from_rows_of_other_families(name, configured):
    context = of_family(name, configured)
    with drawn(lambda: FIGURES[name](context)) as (figure, _):
        assert not problems(figure)


@pytest.mark.parametrize("name", ["fid", "intervals", "ablation", "fid_steps", "fid_ema"])
def test_one_seed_and_a_diverged_method(name, tmp_path):
    study = load_study("digits")
    part = figure_specs.part(load_figure(name), study, ["baseline", "masked", "dsr"])
    failed = {(part.methods[-1], 0, "fid"): ("diverged", "the loss was not finite")}
    one = of_rows(name, part.study, part.methods, [0], failed=failed)
    with drawn(lambda: FIGURES[name](one)) as (figure, _):
        assert not problems(figure)


def test_differences_are_signed_so_that_right_is_better():
    study = load_study("digits")
    context = of_rows("intervals", study, ["baseline", "dsr"], scores=("fid", "is"))  # both fall from baseline to dsr
    with drawn(lambda: FIGURES["intervals"](context)) as (_, data):
        differences = data.set_index("score")
    assert differences.loc["fid", "difference"] == pytest.approx(0.06 * 1.03)
    assert differences.loc["is", "difference"] < 0
