"""Verdicts on claims; regenerate the golden page with `pytest tests/report/test_claims.py --update-golden`."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import DATA, METHODS, SEEDS, tiny_values
from hypothesis import given
from hypothesis import strategies as st

from harness.report import claims, conditions
from harness.report.claims import render_claims
from harness.report.hypotheses import Claims, load_claims
from harness.report.verdicts import judge
from harness.results.scores import SCORES
from harness.study import typed as config
from harness.study.study import load_study, parse_study
from harness.study.typed import UserError

SPEC = config.ROOT / "reports" / "claims.yaml"
STUDY = parse_study("tiny", tiny_values())
DECLARED = load_claims(SPEC)
TESTED = [  # one condition of every kind that is a test over seeds, each with methods of its own
    {"kind": "lower", "method": "dsr", "against": "baseline", "score": "fid"},
    {"kind": "higher", "method": "ttr", "against": "baseline", "score": "is"},
    {"kind": "not_lower", "method": "masked", "against": "baseline", "score": "kid", "margin": 0.1},
    {"kind": "above", "method": "baseline", "score": "denoiser_noise_fall", "value": 2.0},
]


def spec(*conditions, **fields):
    """A claim for each condition, or for each list of conditions."""
    lists = [c if isinstance(c, list) else [c] for c in conditions]
    return Claims(
        title="Claims",
        claims=[{"id": f"c{i}", "text": f"Claim {i}.", "source": "here", "conditions": c} | fields for i, c in enumerate(lists)],
    )


def rows(values, ema=STUDY.ema):
    """Rows of {(method, score): values by seed}, with the columns that verdicts are made from."""
    common = {"ema": ema, "status": "ok", "reason": "", "commit": "0123456789ab", "dirty": False}
    lines = [
        {"method": method, "score": score, "seed": seed, "value": float(value)} | common
        for (method, score), column in values.items()
        for seed, value in enumerate(column)
    ]
    return pd.DataFrame(lines)


def judged(values, *conditions, methods=None, study=STUDY, **fields):
    table = values if isinstance(values, pd.DataFrame) else rows(values)
    declared = conditions[0] if isinstance(conditions[0], Claims) else spec(*conditions, **fields)
    return judge(declared, table, study, methods or sorted(set(table["method"])))


def only(values, condition, **fields):
    return judged(values, condition, **fields)[0]


def whole(methods, seeds, **changed):
    """Rows of everything that reports/claims.yaml asks for; `changed` replaces FIDs."""
    rng = np.random.default_rng(0)
    fid = (
        dict(
            zip(
                ["baseline", "masked", "ttr", "recursive_ttr", "diffusion_registers", "dsr"], [1.0, 1.04, 0.7, 0.8, 0.98, 0.79], strict=True
            )
        )
        | changed
    )
    values = {}
    for method in methods:
        values[method, "fid"] = fid[method] + 0.02 * rng.normal(size=seeds)
        values[method, "gflops"] = [1.1 if method in ("dsr", "diffusion_registers") else 1.0] * seeds
        values[method, "encoder_outlier_share"] = [0.0 if "ttr" in method or method == "dsr" else 0.05] * seeds
        values[method, "denoiser_outlier_share"] = [0.0 if method == "dsr" else 0.03] * seeds
        values[method, "denoiser_middle_blocks"] = 1 + 0.1 * rng.normal(size=seeds)
        values[method, "denoiser_noise_fall"] = 0.02 + 0.1 * rng.normal(size=seeds)
    averages = [
        rows({("baseline", "fid"): fid["baseline"] + high + 0.02 * rng.normal(size=seeds)}, ema=ema)
        for ema, high in ((0.9, 0.5), (0.995, 0.2))
    ]
    return pd.concat([rows(values), *averages], ignore_index=True)


# ------------------------------------------------------------------------------------------------------------------ the page


def test_the_page_is_the_golden_one(request):
    methods = ["baseline", "masked", "ttr", "recursive_ttr", "dsr"]
    found = dict(zip((".md", ".csv"), claims.document(STUDY, whole(methods, 5), methods, list(range(5)), DECLARED), strict=True))
    for suffix, text in found.items():
        golden = DATA / f"claims{suffix}"
        if request.config.getoption("--update-golden"):
            golden.write_text(text)
        assert text == golden.read_text()
    assert set(pd.read_csv(DATA / "claims.csv")["verdict"]) == {"replicates", "does not replicate", "undecided", "not tested"}


def test_the_page_of_real_rows_is_the_same_twice(study, runs, tmp_path):
    for name in ("a", "b"):
        said = render_claims(study, methods=METHODS, seeds=SEEDS, results=runs.root, spec=SPEC, out=tmp_path / name / "claims.md")
    assert sum(said["verdicts"].values()) == len(DECLARED.claims)
    for suffix in ("md", "csv"):
        assert (tmp_path / "a" / f"claims.{suffix}").read_bytes() == (tmp_path / "b" / f"claims.{suffix}").read_bytes()
    assert "method ttr is not in this run" in (tmp_path / "a" / "claims.md").read_text()


def test_the_order_of_rows_does_not_matter():
    methods, declared = ["baseline", "masked", "ttr", "dsr"], DECLARED
    table = whole(methods, 3)
    wanted = claims.document(STUDY, table, methods, [0, 1, 2], declared)
    for seed in range(5):
        assert claims.document(STUDY, table.sample(frac=1, random_state=seed), methods, [0, 1, 2], declared) == wanted


def test_claims_of_every_study_have_a_place_for_the_papers_values():
    found = judge(DECLARED, whole(["baseline", "ttr", "dsr"], 2), load_study("imagenet256_siglip2_b"), ["baseline", "ttr", "dsr"])
    assert {one.id: one.key.paper for one in found}["ttr"] == "−1.26 (5.89 → 4.63)"
    assert {one.id: one.key.paper for one in found}["recursive_ttr"] == "−0.18 (6.66 → 6.48, imagenet256_siglip2_so400m)"
    assert {one.id: one.key.paper for one in found}["cost"] == "1.104 (238.1 → 262.9)"


def test_verdicts_import_no_torch():
    code = "import sys, harness.report.claims; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, check=False).returncode == 0


# -------------------------------------------------------------------------------------------------------------- the verdicts


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


@pytest.mark.parametrize(("seeds", "edge"), [(2, 0.0), (5, 0.0), (3, 0.1)])
def test_wrong_verdicts_are_as_rare_as_said(seeds, edge):
    """No effect anywhere: no claim may be decided, but that not_lower may hold. At the edge of its margin it may not: it may be refuted."""
    rng, pages, wrong = np.random.default_rng(seeds), 120, 0
    conditions = [c for c in TESTED for _ in range(2)]
    declared = spec(*conditions)
    for _ in range(pages):
        shared = rng.normal(size=seeds)
        values = {("baseline", score): 10 + shared for score in ("fid", "is", "kid")}
        values |= {("dsr", "fid"): 10 + rng.normal(size=seeds), ("ttr", "is"): 10 + rng.normal(size=seeds)}
        values |= {
            ("masked", "kid"): (1 - edge) * (10 + shared) + 0.1 * rng.normal(size=seeds),
            ("baseline", "denoiser_noise_fall"): 2 + rng.normal(size=seeds),
        }
        right = "does not replicate" if edge else "replicates"
        found = zip(conditions, judged(values, declared), strict=True)
        wrong += any(one.verdict != "undecided" and not (c["kind"] == "not_lower" and one.verdict == right) for c, one in found)
    assert wrong / pages <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / pages)


def test_holm_makes_company_costly():
    values = {("baseline", "fid"): [1.0, 1.0, 1.0, 1.0], ("dsr", "fid"): [0.8, 0.9, 0.82, 0.95], ("masked", "fid"): [1.1, 0.9, 1.2, 0.8]}
    first, other = ({"kind": "lower", "method": method, "against": "baseline", "score": "fid"} for method in ("dsr", "masked"))
    assert only(values, first).verdict == "replicates"
    crowded = judged(values, first, *[other] * 6)[0]
    assert crowded.verdict == "undecided"
    assert crowded.key.p == only(values, first).key.p
    assert crowded.key.adjusted == pytest.approx(7 * crowded.key.p)
    assert crowded.key.seeds < crowded.key.seeds_needed < 20


@pytest.mark.parametrize(
    ("masked", "verdict"),
    [
        ([1.02, 1.01, 0.99, 1.0], "replicates"),  # no difference, well inside the margin
        ([0.80, 0.81, 0.79, 0.80], "does not replicate"),
        ([0.98, 0.9811, 0.9789, 0.98], "replicates"),  # lower for certain, and for certain by less than the margin
        ([0.96, 0.9601, 0.9599, 0.96], "does not replicate"),  # the same, but further from nothing than from the margin
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
    condition = {"kind": "ema_range_above", "method": "dsr", "against": "baseline", "score": "fid"}
    own = rows({("baseline", "fid"): [1.0, 1.1, 0.9], ("dsr", "fid"): [0.9, 1.0, 0.81]})
    wide = [rows({("baseline", "fid"): [2.0, 2.11, 1.88]}, ema=ema) for ema in STUDY.sampling.averages]
    one = judged(pd.concat([own, *wide]), condition)[0]
    assert one.verdict == "replicates"
    assert one.key.effect.mean == pytest.approx((1.0 - 0.1 + 1.01 - 0.1 + 0.98 - 0.09) / 3)
    near = [rows({("baseline", "fid"): [1.001, 1.102, 0.902]}, ema=ema) for ema in STUDY.sampling.averages]
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

        def sides(self, m, b, span):
            return m - b, abs(m - b) - self.value, abs(m - b) - self.value

    monkeypatch.setitem(conditions.CONDITIONS, "apart", Apart)
    values = {("baseline", "fid"): [1.0, 1.1, 0.9], ("dsr", "fid"): [0.5, 0.61, 0.39]}
    condition = {"kind": "apart", "method": "dsr", "against": "baseline", "score": "fid", "value": 0.3}
    near, far = (only(values, condition | {"value": value}) for value in (0.3, 0.9))
    assert (near.verdict, far.verdict) == ("replicates", "does not replicate")
    assert near.why.startswith("FID of DSR is 0.3 or more from that of baseline (RAE-DiT): −0.500")
    page, csv = claims.document(STUDY, rows(values), ["baseline", "dsr"], [0, 1, 2], spec(condition))
    assert "Refuted if it is significantly nearer." in page
    assert ",apart,dsr,baseline,fid," in csv


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_lost_run_leaves_its_claims_undecided_and_is_named(status):
    values = {("baseline", "fid"): [1.0, 1.1, 0.9], ("ttr", "fid"): [0.5, 0.61, 0.39], ("dsr", "fid"): [0.5, 0.6, 0.41]}
    table = rows(values)
    lost = (table["method"] == "dsr") & (table["seed"] == 1)
    table.loc[lost, ["value", "status", "reason"]] = [math.nan, status, "loss was not finite"]
    conditions = [{"kind": "lower", "method": method, "against": "baseline", "score": "fid"} for method in ("dsr", "ttr")]
    found, other = judged(table, *conditions)
    assert (found.verdict, other.verdict) == ("undecided", "replicates")
    assert f"dsr/seed1 {status}: loss was not finite" in found.why
    refuted = conditions[1] | {"kind": "higher"}
    assert judged(table, [conditions[0], refuted])[0].verdict == "undecided"  # although the other condition is refuted
    assert "dsr/seed1 has no row" in judged(table[~lost], *conditions)[0].why


def test_what_the_run_or_the_study_lacks_is_not_tested():
    values = {("baseline", "fid"): [1.0, 1.1], ("ttr", "fid"): [0.9, 0.95], ("recursive_ttr", "fid"): [0.8, 0.82]}
    condition = {"kind": "lower", "method": "recursive_ttr", "against": "ttr", "score": "fid"}
    one_population = STUDY.model_copy(update={"planted": STUDY.planted[:1]})
    control = STUDY.model_copy(update={"outliers": "none"})
    assert only(values, condition, needs="two_populations").verdict == "undecided"
    for why, found in (
        ("method recursive_ttr is not in this run", only(values, condition, methods=["baseline", "ttr"])),
        ("this study has one population", only(values, condition, study=one_population, needs="two_populations")),
        ("no outliers are planted", only(values, condition, study=control, needs="outliers")),
        ("has no score accuracy", only(values, condition | {"score": "accuracy"}, study=load_study("imagenet256_siglip2_b"))),
    ):
        assert found.verdict == "not tested"
        assert why in found.why


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
    found = judged(values, *[[lower[method] for method in group] for group in groups])
    assert [one.verdict for one in found] == ["replicates", "undecided", "does not replicate", "not tested", "does not replicate"]
    assert [len(one.conditions) for one in found] == [1, 2, 3, 2, 2]
    assert found[2].key.method == "masked"


def test_no_spread_is_no_certainty():
    values = {("baseline", "fid"): [1.0, 1.5], ("dsr", "fid"): [0.9, 1.4]}
    one = only(values, {"kind": "lower", "method": "dsr", "against": "baseline", "score": "fid"})
    assert one.verdict == "undecided"
    assert "the same in every seed" in one.why


# ------------------------------------------------------------------------------------------------------------------ the file


def test_a_claim_is_a_few_lines(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(
        SPEC.read_text()
        + """
  - id: recall
    text: TTR raises recall.
    source: somewhere
    conditions: [{kind: higher, method: ttr, against: baseline, score: recall}]
"""
    )
    values = {("baseline", "recall"): [0.5, 0.51, 0.49], ("ttr", "recall"): [0.6, 0.62, 0.59]}
    assert judge(load_claims(path), rows(values), STUDY, ["baseline", "ttr"])[-1].verdict == "replicates"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: lower,", "kind: lowre,"), "kind is 'lowre', did you mean 'lower'"),
        (("method: masked", "method: maskd"), "unknown method 'maskd', did you mean 'masked'"),
        (("score: fid", "score: fidd"), "unknown score 'fidd', did you mean 'fid'"),
        (("margin: 0.05", "margn: 0.05"), "unknown field 'claims.0.conditions.0.margn', did you mean 'margin'"),
        ((", margin: 0.05", ""), "kind not_lower needs margin"),
        (("against: ttr", "against: recursive_ttr"), "method recursive_ttr is compared with itself"),
        (("against: baseline, score: gflops", "against: baseline, score: fid"), "kind ratio is for scores that are counted"),
        (("score: denoiser_noise_fall", "score: rfid"), "score 'rfid' has one value for all seeds"),
        (("value: 0}", "value: .inf}"), "finite"),
        (("id: noise", "id: ttr"), "claim 'ttr' stands there twice"),
        (("paper_study: imagenet256_siglip2_so400m", "paper_study: imagenet256"), "unknown study 'imagenet256'"),
        (("claims:\n", "claims: 3\nmore:\n"), "claims"),
        (("title:", "title: ["), "not a file of claims"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    text = SPEC.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(UserError, match=message) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["title", "claims", "id", "kind", "method", "score", "against", "conditions", "text"]), inner, max_size=5
            )
        ),
    )
)
def test_any_other_file_is_one_line(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("claims") / "claims.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(UserError) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)


def test_what_is_counted_is_a_score_without_spread():
    assert all(SCORES[score].shared for score in conditions.COUNTED)
