"""Rendered tables against golden files; regenerate them with `pytest tests/report/test_table.py --update-golden`."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA, METHODS, SEEDS
from hypothesis import given
from hypothesis import strategies as st
from synthetic import FIDS, synthetic

from harness.report import rows as row_files
from harness.report import specs, table
from harness.report.cells import cells
from harness.report.specs import Column
from harness.report.table import render_table
from harness.results.scores import SCORES
from harness.study import typed as config
from harness.study.typed import UserError

SPEC = config.ROOT / "reports" / "tables" / "table1.yaml"
DIVERGED = ("diverged", "the loss was not finite in 11 steps, the first of them step 40")
SKIPPED = ("skipped", "N = 60 is less than 4 x 32 features")
FAILED = {("dsr", 1, ""): DIVERGED, ("masked", 0, "kid"): ("failed", "a matrix_root {x} & 5 % had no answer")}
FAILED |= {(method, seed, "fid_infinity"): SKIPPED for method in FIDS for seed in (0, 1, 2)}
GOLDEN = {"three_seeds": synthetic(), "one_seed": synthetic(seeds=[0]), "failed_seeds": synthetic(failed=FAILED)}


@pytest.mark.parametrize("name", GOLDEN)
def test_rendered_table_is_the_golden_one(study, monkeypatch, tmp_path, request, name):
    monkeypatch.setattr(row_files, "collect", lambda *_: GOLDEN[name])
    monkeypatch.setattr(row_files, "times", lambda *_: pd.DataFrame({"stage": ["data"], "seconds": [1.0]}))
    seeds = sorted(set(GOLDEN[name]["seed"]))
    render_table(study, methods=list(FIDS), seeds=seeds, results=tmp_path, spec=SPEC, out=tmp_path / f"{name}.md")
    for suffix in (".md", ".tex", ".csv"):
        golden, rendered = DATA / f"{name}{suffix}", (tmp_path / f"{name}{suffix}").read_text(encoding="utf-8")
        if request.config.getoption("--update-golden"):
            golden.write_text(rendered, encoding="utf-8")
        assert rendered == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_csv_alone_gives_the_same_table(study, name):
    rows = row_files.from_csv(DATA / f"{name}.csv")
    made = table.table_texts(study, rows, list(FIDS), sorted(set(rows["seed"])), specs.load_spec(SPEC))
    assert made == tuple((DATA / f"{name}{suffix}").read_text(encoding="utf-8") for suffix in (".md", ".tex"))


def columns(rows):
    spec, methods = specs.load_spec(SPEC), list(dict.fromkeys(rows["method"]))
    return {(c.score, c.difference): cells(rows, c, methods, spec.baseline) for panel in spec.panels for c in panel.columns}


# -------------------------------------------------------------------------------------------------------------------- bold


def test_bold_only_where_the_paired_difference_is_not_zero():
    shown = columns(synthetic())
    assert [m for m in FIDS if shown["fid", False][m].bold] == ["dsr"]
    assert shown["fid", False]["dsr"].mean == "0.507"
    assert shown["fid", True]["baseline"].mean == "–"
    assert shown["fid", True]["dsr"].mean == "−0.493"
    assert not any(cell.bold for cell in shown["rfid", False].values())  # shared by the seeds: no interval, no bold
    assert not any(cell.half for cell in shown["rfid", False].values())


def test_bold_is_corrected_for_the_number_of_methods():
    two = FIDS | {"dsr": [0.34, 0.60, 0.56]}  # differences -0.66, -0.5, -0.34: p = 0.03, and 0.06 as one of two
    alone = {method: two[method] for method in ("baseline", "dsr")}
    assert columns(synthetic(alone))["fid", False]["dsr"].bold
    assert not any(cell.bold for cell in columns(synthetic(two))["fid", False].values())


def test_the_best_is_not_bold_when_seeds_disagree():
    assert not any(cell.bold for cell in columns(synthetic(FIDS | {"dsr": [0.5, 1.5, 0.1]}))["fid", False].values())


def test_equal_bests_are_both_bold():
    shown = columns(synthetic(FIDS | {"masked": FIDS["dsr"]}))["fid", False]
    assert [m for m in FIDS if shown[m].bold] == ["masked", "dsr"]


def test_one_seed_bolds_nothing_and_shows_the_interval_within_the_run():
    shown = columns(synthetic(seeds=[0]))
    assert not any(cell.bold or cell.half for column in shown.values() for cell in column.values())
    assert shown["fid", False]["dsr"].text == "0.500 [0.480, 0.520]"
    assert shown["fid", True]["dsr"].text == "−0.500"  # of two runs: the interval within one does not belong to it
    assert not any(cell.within for column in columns(synthetic()).values() for cell in column.values())


# ---------------------------------------------------------------------------------------------------------------- statuses


runs = st.sets(st.tuples(st.sampled_from(list(FIDS)), st.sampled_from([0, 1, 2])), min_size=1)


@given(runs, st.sampled_from(["diverged", "failed", "skipped"]))
def test_a_seed_without_a_value_empties_its_method_and_no_other(failed, status):
    rows = synthetic(scores=["fid"], failed={(*run, "fid"): (status, "because") for run in failed})
    whole = synthetic(scores=["fid"])
    bad = {method for method, _ in failed}
    for difference in (False, True):
        column = Column(score="fid", difference=difference)
        after, before = (cells(one, column, list(FIDS), "baseline") for one in (rows, whole))
        for method in FIDS:
            if method in bad or (difference and "baseline" in bad and method != "baseline"):
                assert after[method].text == "–"
                assert not after[method].bold
                assert f"{status}: because" in after[method].why or (difference and method == "baseline")
            else:
                assert after[method].text == before[method].text


def test_the_footnote_says_which_seeds_and_how_many_are_left(study):
    text, tex = table.table_texts(study, GOLDEN["failed_seeds"], list(FIDS), [0, 1, 2], specs.load_spec(SPEC))
    assert f"- ³ DSR, seed 1: diverged: {DIVERGED[1]}; 2 of 3 seeds have a value, in the CSV.\n" in text
    assert f"- ¹ FID∞, every run: skipped: {SKIPPED[1]}.\n" in text
    assert "| + DSR | –³ | –¹ | –³ |" in text
    assert r"--\textsuperscript{3}" in tex
    assert r"a matrix\_root \{x\} \& 5 \% had no answer" in tex


def test_one_reason_for_all_is_one_footnote(study):
    failed = {(method, seed, "fid_infinity"): SKIPPED for method in FIDS for seed in (0, 1, 2)}
    text, _ = table.table_texts(study, synthetic(failed=failed), list(FIDS), [0, 1, 2], specs.load_spec(SPEC))
    assert text.count(SKIPPED[1]) == 1
    assert f"- ¹ FID∞, every run: skipped: {SKIPPED[1]}.\n" in text
    assert text.count("–¹") == len(FIDS)
    assert "FID∞ is FID extrapolated" not in text  # there is no bias to state


def test_without_a_baseline_there_is_no_difference():
    shown = columns(synthetic(failed={("baseline", 2, "fid"): DIVERGED}))["fid", True]
    assert {shown[method].why.split(",")[0] for method in ("masked", "dsr")} == {"no difference to the baseline: baseline (RAE-DiT)"}
    assert {cell.mean for cell in shown.values()} == {"–"}


# ------------------------------------------------------------------------------------------------------------------- notes


def note(study, rows, start):
    text, _ = table.table_texts(study, rows, list(FIDS), sorted(set(rows["seed"])), specs.load_spec(SPEC))
    return next((line for line in text.splitlines() if start in line), "")


def test_the_bias_at_this_n_is_stated(study):
    rows = synthetic()
    rows.loc[(rows["score"] == "fid_infinity") & (rows["method"] == "dsr"), "value"] -= 0.03
    assert "FID is 0.06 above it at N = 60: its bias (mean over 3 methods, from 0.05 to 0.08)." in note(study, rows, "FID∞ is")


def test_the_bias_is_never_of_the_seeds_that_are_left(study):
    rows = synthetic(failed={("dsr", 1, "fid"): DIVERGED})
    assert "FID is 0.05 above it at N = 60: its bias (mean over 2 methods" in note(study, rows, "FID∞ is")


def test_what_bold_and_columns_promise_is_said(study):
    assert "Columns are not corrected for one another" in note(study, synthetic(), "Bold:")
    two = synthetic(seeds=[0, 1])
    assert "Nothing is bold with fewer than 3 seeds." in note(study, two, "Mean ±")
    assert not any(cell.bold for column in columns(two).values() for cell in column.values())


def test_the_references_own_bias_is_told_where_it_is_known(study):
    assert "not to what the reference was drawn from." in note(study, synthetic(), "FID∞ is")
    rows = synthetic()
    rows.loc[rows["score"] == "fid_infinity", "how"] = "synthetic; bias of the reference, by halves: 0.0123 (597 images)"
    rows.loc[(rows["score"] == "fid_infinity") & (rows["method"] == "dsr"), "how"] = (
        "synthetic; bias of the reference, by halves: 0.0153 (597 images)"
    )
    assert "was drawn from: its 597 images put it about 0.013 too high (by halves)." in note(study, rows, "FID∞ is")


def test_few_samples_a_feature_are_said_to_bend_the_line(study):
    assert "FID∞ is then itself too low" in note(study, synthetic(), "FID∞ is")
    many = study.model_copy(update={"sampling": study.sampling.model_copy(update={"count": 16 * study.features})})
    assert "too low" not in note(many, synthetic(), "FID∞ is")


def test_other_devices_and_versions_are_said(study):
    assert "Device: a CPU. Libraries: torch 2.13.0. Commit 0123456789ab." in note(study, synthetic(), "Commit")
    rows = synthetic()
    rows.loc[(rows["method"] == "dsr") & (rows["seed"] == 1), "device"] = "a GPU"
    rows.loc[rows["method"] == "masked", "dirty"] = True
    line = note(study, rows, "Commit")
    assert "Device differs between rows: a CPU (baseline/seed0, baseline/seed1, baseline/seed2 and 5 more); a GPU (dsr/seed1)." in line
    assert "Commit 0123456789ab, 0123456789ab+dirty." in line


def test_a_table_of_nothing_but_diverged_runs_says_so(study):
    rows = synthetic(failed={(method, seed, ""): DIVERGED for method in FIDS for seed in (0, 1, 2)})
    text, _ = table.table_texts(study, rows, list(FIDS), [0, 1, 2], specs.load_spec(SPEC))
    assert "every run: diverged" in text
    values = [value for line in text.splitlines() if line.startswith(("| +", "| base")) for value in line.split("|")[2:]]
    assert not any(char in "0123456789" for value in values for char in value)  # but marks of footnotes


# ----------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (synthetic().iloc[1:], "no row of score 'fid' for baseline/seed0 at EMA 0.98"),
        (synthetic(seeds=[0, 1]), "no row of score 'fid' for baseline/seed2"),
        (synthetic({m: FIDS[m] for m in ("baseline", "dsr")}), "no row of score 'fid' for masked/seed0"),
        (synthetic(scores=[score for score in SCORES if score != "gflops"]), "no row of score 'gflops'"),
        (synthetic(ema=0.9), "no row of score 'fid' for baseline/seed0 at EMA 0.98"),
        (synthetic(study="digits"), "rows of baseline/seed0 are of study 'digits', not 'tiny'"),
    ],
)
def test_a_row_that_is_missing_is_named(study, rows, message):
    with pytest.raises(UserError, match=message) as caught:
        table.table_texts(study, rows, list(FIDS), [0, 1, 2], specs.load_spec(SPEC))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("score: fid,", "score: fidd,"), "unknown score 'fidd', did you mean 'fid'"),
        (("digits: 5", "digts: 5"), "unknown field"),
        (("panels:", "panel:"), "unknown field 'panel'|panels"),
    ],
)
def test_a_bad_spec_is_one_line(tmp_path, change, message):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        specs.load_spec(path)
    assert "\n" not in str(caught.value)


def test_no_spec_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: not a readable text"):
        specs.load_spec(tmp_path / "none.yaml")


# -------------------------------------------------------------------------------------------------------------- real runs


def test_real_rows_render_twice_to_the_same_bytes(study, runs, tmp_path):
    for name in ("a", "b"):
        render_table(study, methods=METHODS, seeds=SEEDS, results=runs.root, spec=SPEC, out=tmp_path / name / "table1.md")
    for file in ("table1.md", "table1.csv", "table1.tex", "rows.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert "seconds" in (tmp_path / "a" / "times.csv").read_text(encoding="utf-8")
    assert not (tmp_path / "a" / "paper.csv").exists()
    kept = pd.read_parquet(tmp_path / "a" / "rows.parquet")
    pd.testing.assert_frame_equal(kept.drop(columns="seconds"), row_files.from_csv(tmp_path / "a" / "table1.csv"))
    assert (kept["seconds"] > 0).all()


# ------------------------------------------------------------------------------------------------------------------- LaTeX


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX with booktabs")
def test_latex_compiles(tmp_path):
    for name in GOLDEN:
        shutil.copy(DATA / f"{name}.tex", tmp_path)
    inputs = "".join(rf"\input{{{name}.tex}}\clearpage" for name in GOLDEN)
    (tmp_path / "main.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}",
        encoding="utf-8",
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "main.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert Path(tmp_path / "main.pdf").stat().st_size > 1000
