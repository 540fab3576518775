"""The gate on synthetic rows: its verdicts, its error rate by simulation, its power, its files."""

import json
import math

import numpy as np
import pytest
from gate_rows import FRESH, draws, table
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.report.gate.command import QUIET, report_text, run_gate
from harness.report.gate.compare import compare_rows
from harness.report.gate.lines import EVERY
from harness.report.gate.scores import two_sample
from harness.report.rows import from_csv, to_csv, typed
from harness.report.statistics import estimate
from harness.store import artifacts
from harness.store.files import write_json, write_text
from harness.study import typed as config
from harness.study.typed import UserError


def verdict(report, method, score):
    (line,) = [line for line in report.lines if (line.method, line.score) == (method, score)]
    return line.verdict, line.why


# --------------------------------------------------------------------------------------------------------------- the test


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_the_test_is_students(stored, fresh):
    before, after = estimate(np.array(stored)), estimate(np.array(fresh))
    if min(before.sd, after.sd) > 1e-3:  # below, scipy warns
        low, high, p = two_sample(before, after)
        theirs = stats.ttest_ind(fresh, stored)
        interval = theirs.confidence_interval(0.95)
        assert (low, high, p) == pytest.approx((interval.low, interval.high, theirs.pvalue), rel=1e-6, abs=1e-9)


def test_a_change_of_all_methods_is_found_where_no_single_line_would_be():
    rng, methods = np.random.default_rng(0), [f"method_{i}" for i in range(8)]

    def values(shift, seeds):
        return {(method, "fid"): list(shift + rng.normal(size=seeds)) for method in methods}

    report = compare_rows(table(values(1.5, 3), FRESH), table(values(0.0, 5)))
    assert report.exit_code == 1
    assert [line.method for line in report.of("difference")] == [EVERY]
    assert report.lines[0].why == "worse"


def test_one_changed_method_is_named():
    rng = np.random.default_rng(0)
    stored, fresh = draws(rng, 5), draws(rng, 3)
    fresh["baseline", "is"] = [value + 40 for value in fresh["baseline", "is"]]
    report = compare_rows(table(fresh, FRESH), table(stored))
    assert verdict(report, "baseline", "is") == ("difference", "better")
    assert verdict(report, "baseline", "fid")[0] == "no difference"
    assert report.exit_code == 1


# --------------------------------------------------------------------------------------------------------------- verdicts


def test_the_same_bits_are_identical_whatever_their_number():
    stored = draws(np.random.default_rng(0), 3)
    for seeds in (1, 2, 3):
        report = compare_rows(table({key: of[:seeds] for key, of in stored.items()}), table(stored))
        assert report.identical
        assert report.exit_code == 0
        assert report_text(report).endswith("Result: identical (exit code 0).")


BEFORE = {("baseline", "fid"): [1.0, 1.1, 0.9], ("baseline", "rfid"): [0.05] * 3, ("baseline", "parameters"): [10.0] * 3}


@pytest.mark.parametrize(
    ("score", "values", "expected", "code"),
    [
        ("fid", [1.05, 0.95, 1.02], "no difference", 0),
        ("fid", [5.05, 4.95, 5.02], "difference", 1),
        ("fid", [1.05], "undecided", 2),
        ("fid", [1.05, 0.95, None], "difference", 1),
        ("fid", [None, None, None], "difference", 1),
        ("fid", None, "difference", 1),
        ("parameters", [11.0] * 3, "difference", 1),
        ("rfid", [0.06] * 3, "difference", 1),  # of the same decoder
    ],
)
def test_verdict_and_exit_code(score, values, expected, code):
    fresh = {key: of for key, of in (BEFORE | {("baseline", score): values}).items() if of}
    report = compare_rows(table(fresh, FRESH), table(BEFORE))
    assert verdict(report, "baseline", score)[0] == expected
    assert report.exit_code == code


def test_a_score_of_one_draw_that_moved_does_not_alarm_beside_tests():
    fresh = BEFORE | {("baseline", "rfid"): [0.06] * 3, ("baseline", "fid"): [1.05, 0.95, 1.02]}
    stored = table(BEFORE, low=0.03, high=0.07).where(lambda rows: rows["score"] != "fid", table(BEFORE))
    report = compare_rows(table(fresh, FRESH, low=0.04, high=0.08, decoder="c" * 64), typed(stored))
    assert verdict(report, "baseline", "rfid") == ("moved", "one draw, no test; 0.4 half-widths of the intervals over images")
    assert report.exit_code == 0


def test_a_constant_that_became_another_constant_is_undecided():
    before = {("baseline", "denoiser_outlier_share"): [0.0, 0.0, 0.0]}
    report = compare_rows(table({("baseline", "denoiser_outlier_share"): [0.1, 0.1, 0.1]}, FRESH), table(before))
    assert report.exit_code == 2
    assert compare_rows(table({("baseline", "denoiser_outlier_share"): [0.0, 0.0]}, FRESH), table(before)).exit_code == 0
    before = {("baseline", "denoiser_outlier_share"): [0.0] * 8}  # of eight seeds three can be chosen in ways enough
    assert compare_rows(table({("baseline", "denoiser_outlier_share"): [0.1, 0.1, 0.1]}, FRESH), table(before)).exit_code == 1


def test_a_gone_method_differs_and_a_new_one_is_noted():
    rng = np.random.default_rng(0)
    stored = draws(rng, 3)
    fresh = {(method.replace("ttr", "dsr"), score): of for (method, score), of in stored.items()}
    report = compare_rows(table(fresh), table(stored))
    assert verdict(report, "ttr", "every score") == ("difference", "gone")
    assert verdict(report, "dsr", "every score") == ("note", "new")


def test_a_divergence_that_is_stored_too_is_told_and_not_judged():
    report = compare_rows(table({("baseline", "fid"): [1.05, 0.95, 1.1]}, FRESH), table({("baseline", "fid"): [None, None, None]}))
    assert verdict(report, "baseline", "fid") == ("note", "3 diverged of 3 seeds before, ok now")


@pytest.mark.parametrize(
    ("column", "value"), [("n", 61), ("config", "f" * 16), ("precision", "bfloat16"), ("tf32", True), ("compile", True)]
)
def test_what_was_measured_otherwise_is_refused(column, value):
    with pytest.raises(UserError, match=f"score 'fid' cannot be compared: {column} is .* in the stored rows and {value} in the fresh ones"):
        compare_rows(table(BEFORE, **{column: value}), table(BEFORE))


def test_rows_of_another_study_are_refused():
    with pytest.raises(UserError, match=r"are of different studies \(digits, smoke\)"):
        compare_rows(table(BEFORE, study="smoke"), table(BEFORE))


def test_other_data_differ_and_another_judge_is_remarked():
    report = compare_rows(table(BEFORE, reference="c" * 64), table(BEFORE))
    assert report.exit_code == 1
    assert verdict(report, EVERY, "data compared with") == (
        "difference",
        f"must be equal: {'a' * 12} before, {'c' * 12} now, for fid, rfid, parameters",
    )
    remarks = compare_rows(table(BEFORE, extractor="c" * 64), table(BEFORE)).remarks
    assert any(remark.startswith("Not the stored bits: judge (") for remark in remarks)


def test_neuron_lists_of_one_encoder_must_be_equal():
    stored, known = table(draws(np.random.default_rng(0), 3)), {"ttr": {"2": [3, 17]}}
    other = {"fresh_neurons": {"ttr": {"2": [3, 18]}}, "stored_neurons": known}
    assert compare_rows(stored, stored, fresh_neurons=known, stored_neurons=known).identical
    report = compare_rows(stored, stored, **other)
    assert verdict(report, "ttr", "register neurons") == (
        "difference", "must be equal for the same encoder: layer 2: 3, 17 before, layer 2: 3, 18 now"
    )  # fmt: skip
    assert report.exit_code == 1
    report = compare_rows(stored.assign(encoder="c" * 64), stored, **other)
    assert verdict(report, "ttr", "register neurons")[0] == "note"
    assert report.exit_code == 0


# ------------------------------------------------------------------------------------------------------- text and files


def test_text_shows_the_worst_first_and_counts_the_rest():
    rng = np.random.default_rng(0)
    stored, fresh = draws(rng, 5), draws(rng, 3)
    fresh["baseline", "is"] = [value + 40 for value in fresh["baseline", "is"]]
    report = compare_rows(table(fresh, FRESH), table(stored))
    short, long = report_text(report).splitlines(), report_text(report, everything=True).splitlines()
    assert short[1].split()[:3] == ["difference", "baseline", "is"]
    assert sum("no difference" in line for line in short[:-3]) == 0
    assert len(long) - len(short) == sum(line.verdict in QUIET for line in report.lines)
    assert short[-1] == "Result: difference (exit code 1)."
    assert "(5 stored, 3 fresh)" in short[-2]
    assert "at most 5%" in short[-2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with fresh rows of three seeds and the neuron list that they name."""
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "results" / "digits" / "encoders" / "ttr_1" / "registers.json"
    with artifacts.artifact(listed, stage="registers", module="harness.encoder.encode") as path:
        write_json(path, {"neurons": {"2": [3, 17]}, "rounds": [{"threshold": 1.25}]})
    rows = table(draws(np.random.default_rng(0), 3))
    rows.loc[rows["method"] == "ttr", "registers"] = artifacts.checked(listed)
    write_text("reports/digits/table1.csv", to_csv(rows))
    return tmp_path


def test_update_then_check_then_a_change(folder):
    with pytest.raises(UserError, match=r"reports/reference/digits.csv: no stored rows; write them with dsr check --study digits --update"):
        run_gate("digits")
    said, code = run_gate("digits", renew=True)
    assert code == 0
    assert said == "reports/reference/digits.csv: 2 methods, seeds 0, 1, 2, 5 scores"
    assert json.loads((folder / "reports/reference/digits.json").read_text(encoding="utf-8")) == {"ttr": {"2": [3, 17]}}
    assert run_gate("digits") == ("Lines: 12 identical.\nResult: identical (exit code 0).", 0)
    assert run_gate("digits", renew=True)[0].endswith("\nnothing changed")
    rows = from_csv(folder / "reports/digits/table1.csv")
    rows.loc[(rows["method"] == "baseline") & (rows["score"] == "fid"), "value"] += 100
    write_text("reports/digits/table1.csv", to_csv(rows[rows["seed"] < 2]))
    said, code = run_gate("digits")
    assert code == 1
    assert said.splitlines()[1].startswith("difference  baseline")
    said, _ = run_gate("digits", renew=True)
    assert "seeds: 0, 1, 2 before, 0, 1 now" in said
    assert "baseline fid (EMA 0.98, step 1500): " in said
    assert run_gate("digits")[1] == 0
    rows = from_csv(folder / "reports/digits/table1.csv")
    rows["step"] = 1250
    write_text("reports/digits/table1.csv", to_csv(rows))
    assert "measured at: EMA 0.98, step 1500 before, EMA 0.98, step 1250 now; " in run_gate("digits", renew=True)[0]


def test_files_that_are_not_what_they_should_be_are_one_line(folder):
    with pytest.raises(UserError, match="unknown study 'digts', did you mean 'digits'"):
        run_gate("digts")
    with pytest.raises(UserError, match=r"reports/smoke/table1.csv: no fresh rows; run snakemake"):
        run_gate("smoke")
    with pytest.raises(UserError, match="rows of study 'digits', not of 'smoke'"):
        run_gate("smoke", rows=folder / "reports/digits/table1.csv")
    with pytest.raises(UserError, match=r"results/smoke/encoders: lacks the neuron list .* of the rows of 'ttr'"):
        run_gate("digits", results=folder / "results/smoke")
    run_gate("digits", renew=True)
    (folder / "reports/reference/digits.json").write_text('{"ttr": [1]}', encoding="utf-8")
    with pytest.raises(UserError, match=r"reports/reference/digits.json: not lists of register neurons"):
        run_gate("digits")
    (folder / "reports/reference/digits.csv").write_text("study,method\ndigits,ttr\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"digits.csv: not rows of this schema"):
        run_gate("digits")
    assert "the old ones could not be read" in run_gate("digits", renew=True)[0]
    assert run_gate("digits")[1] == 0


def test_nothing_here_imports_torch():
    folder = config.ROOT / "harness" / "report" / "gate"
    assert not any("torch" in path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    assert math.isnan(compare_rows(table(BEFORE), table(BEFORE)).lines[0].p)
