"""The verdicts on claims, by kind of condition: their tests, their error rates, what is lost or lacking."""

import math

import numpy as np
import pandas as pd
import pytest
from claims_of_rows import DECLARED, STUDY, TESTED, judged, only, rows, spec, whole
from hypothesis import given
from hypothesis import strategies as st

from harness.report import claims, conditions
from harness.report.verdicts import judge
from harness.study.study import load_study


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_one_seed_decides_nothing_but_what_is_counted(seed, size):
    methods = ["baseline", "masked", "ttr", "recursive_ttr", "diffusion_registers", "dsr"]
    table = whole(methods, 1)
    table["value"] = 10**size * np.random.default_rng(seed).random(len(table))
    for one in judge(DECLARED, table, STUDY, methods):
        if one.id != "cost":
            assert one.verdict == "undecided"
            assert "n = 1 seed" in one.why


@given(st.lists(st.lists(st.floats(-1, 1), min_size=4, max_size=4), min_size=4, max_size=4), st.floats(0, 3))
def test_effects_of_the_other_sign_never_leave_a_claim_standing(noise, shift):
    directed = [c for c in TESTED if c["kind"] != "not_lower"]

    def verdicts_of(sign):
        base = 10 + np.array(noise[0])
        effects = [sign * (shift + np.array(n)) for n in noise[1:]]
        values = {("baseline", "fid"): base, ("dsr", "fid"): base - effects[0], ("baseline", "is"): base, ("ttr", "is"): base + effects[1]}
        return [one.verdict for one in judged(values | {("baseline", "denoiser_noise_fall"): 2 + effects[2]}, *directed)]

    opposite = {"replicates": "does not replicate", "does not replicate": "replicates", "undecided": "undecided"}
    assert verdicts_of(-1) == [opposite[verdict] for verdict in verdicts_of(1)]


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.std(v) > 1e-3),
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    st.integers(2, 4),
)
def test_more_seeds_alike_never_undo_a_verdict(noise, means, times):
    def verdicts_of(spread, count):
        base = np.full(count, 10.0)
        values = {("baseline", score): base for score in ("fid", "is", "kid")}
        values |= {
            ("dsr", "fid"): base + means[0] + spread,
            ("ttr", "is"): base + means[1] + spread,
            ("masked", "kid"): base + means[2] + spread,
        }
        return [one.verdict for one in judged(values | {("baseline", "denoiser_noise_fall"): 2 + means[3] + spread}, *TESTED)]

    few = np.array(noise) - np.mean(noise)
    many = np.tile(few, times)
    many *= np.std(few, ddof=1) / np.std(many, ddof=1)
    for before, after in zip(verdicts_of(few, 3), verdicts_of(many, 3 * times), strict=True):
        assert before in ("undecided", after)


def test_holm_makes_company_costly():
    values = {("baseline", "fid"): [1.0, 1.0, 1.0, 1.0], ("dsr", "fid"): [0.8, 0.9, 0.82, 0.95], ("masked", "fid"): [1.1, 0.9, 1.2, 0.8]}
    first, other = ({"kind": "lower", "method": method, "against": "baseline", "score": "fid"} for method in ("dsr", "masked"))
    assert only(values, first).verdict == "replicates"
    crowded = judged(values, first, *[other] * 6)[0]
    assert crowded.verdict == "undecided"
    assert crowded.key.p == only(values, first).key.p
    assert crowded.key.adjusted == pytest.approx(7 * crowded.key.p)
    fewest, most = crowded.key.seeds_needed
    assert 2 < fewest < 20 < most
    assert crowded.key.needed_text == f"{fewest} to {most}"


@pytest.mark.parametrize(
    ("masked", "verdict"),
    [
        ([1.02, 1.01, 0.99, 1.0], "replicates"),  # no difference, well inside the margin
        ([0.80, 0.81, 0.79, 0.80], "does not replicate"),
        ([0.98, 0.9811, 0.9789, 0.98], "replicates"),  # lower for certain, and for certain by less than the margin
        ([0.96, 0.9611, 0.9589, 0.96], "replicates"),  # the same, though nearer to the margin than to nothing
        ([0.94, 0.9411, 0.9389, 0.94], "does not replicate"),
        ([0.8, 1.1, 1.2, 0.9], "undecided"),
    ],
)
def test_not_lower_is_a_test_against_the_margin(masked, verdict):
    values = {("baseline", "fid"): [1.0, 1.001, 0.999, 1.0], ("masked", "fid"): masked}
    assert only(values, {"kind": "not_lower", "method": "masked", "against": "baseline", "score": "fid", "margin": 0.05}).verdict == verdict


@pytest.mark.parametrize(
    ("shares", "zero", "not_zero"),
    [
        ([0, 0], "replicates", "does not replicate"),
        ([0, 0.001], "does not replicate", "replicates"),
        ([0], "undecided", "undecided"),
        ([0.1], "undecided", "undecided"),
    ],
)
def test_a_counter_example_refutes_what_is_said_of_every_seed(shares, zero, not_zero):
    values = {("dsr", "denoiser_outlier_share"): shares}
    kinds = [{"kind": kind, "method": "dsr", "score": "denoiser_outlier_share"} for kind in ("zero", "not_zero")]
    assert [one.verdict for one in judged(values, *kinds)] == [zero, not_zero]


@pytest.mark.parametrize(
    ("gflops", "verdict"), [(1.1, "replicates"), (1.119, "replicates"), (1.13, "does not replicate"), (1.0, "does not replicate")]
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_counted_is_decided_by_one_value(gflops, verdict, seeds):
    condition = {"kind": "ratio", "method": "dsr", "against": "baseline", "score": "gflops", "value": 1.1, "margin": 0.02}
    assert only({("baseline", "gflops"): [1.0] * seeds, ("dsr", "gflops"): [gflops] * seeds}, condition).verdict == verdict


def test_ema_is_held_against_the_methods_own_effect():
    condition = {"kind": "ema_above", "method": "dsr", "against": "baseline", "score": "fid"}
    own = rows({("baseline", "fid"): [1.0, 1.1, 0.9], ("dsr", "fid"): [0.9, 1.0, 0.81]})
    decays = STUDY.sampling.averages
    near = [rows({("baseline", "fid"): [1.001, 1.102, 0.9025]}, ema=ema) for ema in decays]
    wide = [*near[:-1], rows({("baseline", "fid"): [2.0, 2.11, 1.88]}, ema=decays[-1])]
    one = judged(pd.concat([own, *wide]), condition)[0]
    assert one.verdict == "replicates"  # one decay is enough
    assert one.key.effect.mean == pytest.approx((1.0 - 0.1 + 1.01 - 0.1 + 0.98 - 0.09) / 3)
    assert f"(EMA {decays[-1]:g}, {STUDY.ema:g})" in one.why
    assert judged(pd.concat([own, *near]), condition)[0].verdict == "does not replicate"
    assert "has no row at EMA" in judged(pd.concat([own, wide[0]]), condition)[0].why
    alone = STUDY.model_copy(update={"sampling": STUDY.sampling.model_copy(update={"averages": []})})
    assert "samples one average" in judged(own, condition, study=alone)[0].why


def test_a_new_kind_of_condition_is_a_class_and_a_line(monkeypatch):
    class Apart(conditions.Compared):
        refuted_if = "it is significantly nearer"

        value: float

        def text(self, score, one, other):
            return f"{score} of {one} is {self.value:g} or more from that of {other}"

        def sides(self, m, b):
            return m - b, abs(m - b) - self.value

    monkeypatch.setitem(conditions.CONDITIONS, "apart", Apart)
    values = {("baseline", "fid"): [1.0, 1.1, 0.9], ("dsr", "fid"): [0.5, 0.61, 0.39]}
    condition = {"kind": "apart", "method": "dsr", "against": "baseline", "score": "fid", "value": 0.3}
    near, far = (only(values, condition | {"value": value}) for value in (0.3, 0.9))
    assert (near.verdict, far.verdict) == ("replicates", "does not replicate")
    assert near.why.startswith("FID of DSR is 0.3 or more from that of baseline (RAE-DiT): −0.500")
    page, csv = claims.claims_texts(STUDY, rows(values), ["baseline", "dsr"], [0, 1, 2], spec(condition))
    assert "Refuted if it is significantly nearer." in page
    assert ",apart,dsr,baseline,fid," in csv


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_lost_run_leaves_its_claims_undecided_and_is_named(status):
    values = {("baseline", "fid"): [1.0, 1.1, 0.9], ("ttr", "fid"): [0.5, 0.61, 0.39], ("dsr", "fid"): [0.5, 0.6, 0.41]}
    table = rows(values)
    lost = (table["method"] == "dsr") & (table["seed"] == 1)
    table.loc[lost, ["value", "status", "reason"]] = [math.nan, status, "loss was not finite"]
    conditions = [{"kind": "lower", "method": method, "against": "baseline", "score": "fid"} for method in ("dsr", "ttr")]
    one, other = judged(table, *conditions)
    assert (one.verdict, other.verdict) == ("undecided", "replicates")
    assert f"dsr/seed1 {status}: loss was not finite" in one.why
    refuted = conditions[1] | {"kind": "higher"}
    assert judged(table, [conditions[0], refuted])[0].verdict == "undecided"  # although the other condition is refuted
    assert "dsr/seed1 has no row" in judged(table[~lost], *conditions)[0].why


def test_what_the_run_or_the_study_lacks_is_not_tested():
    values = {("baseline", "fid"): [1.0, 1.1], ("ttr", "fid"): [0.9, 0.95], ("recursive_ttr", "fid"): [0.8, 0.82]}
    condition = {"kind": "lower", "method": "recursive_ttr", "against": "ttr", "score": "fid"}
    one_population = STUDY.model_copy(update={"planted": STUDY.planted[:1]})
    control = STUDY.model_copy(update={"outliers": "none"})
    assert only(values, condition, needs="two_populations").verdict == "undecided"
    for why, verdict in (
        ("method recursive_ttr is not in this run", only(values, condition, methods=["baseline", "ttr"])),
        ("this study has one population", only(values, condition, study=one_population, needs="two_populations")),
        ("no outliers are planted", only(values, condition, study=control, needs="outliers")),
        ("has no score accuracy", only(values, condition | {"score": "accuracy"}, study=load_study("imagenet256_siglip2_b"))),
    ):
        assert verdict.verdict == "not tested"
        assert why in verdict.why


def test_all_conditions_must_hold_and_one_refutes():
    values = {
        ("baseline", "fid"): [1.0, 1.1, 0.9],
        ("ttr", "fid"): [0.5, 0.61, 0.39],
        ("masked", "fid"): [1.5, 1.61, 1.39],
        ("dsr", "fid"): [0.9, 1.15, 0.95],
    }
    lower = {
        method: {"kind": "lower", "method": method, "against": "baseline", "score": "fid"}
        for method in ("ttr", "masked", "dsr", "recursive_ttr")
    }
    groups = [["ttr"], ["ttr", "dsr"], ["ttr", "dsr", "masked"], ["ttr", "recursive_ttr"], ["masked", "recursive_ttr"]]
    verdicts = judged(values, *[[lower[method] for method in group] for group in groups])
    assert [one.verdict for one in verdicts] == ["replicates", "undecided", "does not replicate", "not tested", "does not replicate"]
    assert [len(one.conditions) for one in verdicts] == [1, 2, 3, 2, 2]
    assert verdicts[2].key.method == "masked"


def test_no_spread_is_no_certainty():
    values = {("baseline", "fid"): [1.0, 1.5], ("dsr", "fid"): [0.9, 1.4]}
    one = only(values, {"kind": "lower", "method": "dsr", "against": "baseline", "score": "fid"})
    assert one.verdict == "undecided"
    assert "the same in every seed" in one.why
