"""A new score is its description and its function, and nothing else: here both are written in the test."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch

from harness.evaluation import functions, outlier_scores
from harness.evaluation.bootstrap import by_resampling, means
from harness.report.gate.compare import compare_rows
from harness.report.rows import collect, from_csv, to_csv
from harness.report.sheets import score_sheets
from harness.report.specs import Column, parse_spec
from harness.report.table import table_texts
from harness.results.scores import SCORES, ScoreInfo, scores_of
from harness.study.study import load_study, study_names

BRIGHTNESS = ScoreInfo(
    title="Brightness",
    better="higher",
    of="samples",
    about="mean brightness of the samples, black 0 and white 1",
    needs=lambda study: study.evaluation.resamples > 1,
    scale=100.0,
    unit="%",
    digits=1,
    averages=True,
    note="Brightness is a toy.",
)
SPEC = """
title: Toy
panels: [{title: Toy, columns: [{score: brightness}, {score: brightness, digits: 3, scale: 1}]}]
"""
METHODS = ["baseline", "masked"]


def brightness(seen):
    values = torch.from_numpy(seen.images).double().mean(dim=(1, 2, 3)) / 255
    return by_resampling(values.mean().item(), means("brightness", values, seen.resamples))


@pytest.fixture
def scored(runs, tmp_path, monkeypatch):
    """The first run of two methods, scored again with the new score."""
    monkeypatch.setitem(SCORES, "brightness", BRIGHTNESS)
    monkeypatch.setitem(functions.FUNCTIONS, "brightness", brightness)
    pipeline = copy.copy(runs)
    pipeline.root = tmp_path
    for method in METHODS:
        shutil.copytree(runs.runs[method][0], tmp_path / "runs" / method / "seed0")
        pipeline.score(method, [0])
    return pipeline


def test_a_new_score_is_its_description_and_its_function(study, scored, tmp_path):
    rows = collect(study, METHODS, [0], tmp_path)
    own = rows[rows["score"] == "brightness"]
    assert list(own["ema"].unique()) == study.sampled
    assert set(own["better"]) == {"higher"}
    assert not own["shared"].any()
    assert list(dict.fromkeys(rows["score"]))[: len(scores_of(study, "scores"))] == scores_of(study, "scores")
    value = own["value"].iloc[0]

    text, _ = table_texts(study, rows, METHODS, [0], parse_spec(SPEC))
    row = next(line for line in text.splitlines() if line.startswith("| baseline"))
    assert "| Brightness, % ↑ | Brightness ↑ |" in text
    assert [cell.split(" [")[0].strip() for cell in row.split("|")[2:4]] == [f"{100 * value:.1f}", f"{value:.3f}"]
    assert "- Brightness is a toy.\n" in text
    sheet = next(sheet for sheet in score_sheets(study, rows, page="tiny", table="table1") if sheet.title.startswith("Brightness"))
    assert sheet.about == BRIGHTNESS.about

    (tmp_path / "rows.csv").write_text(to_csv(rows), encoding="utf-8")
    stored, changed = from_csv(tmp_path / "rows.csv"), from_csv(tmp_path / "rows.csv")
    changed.loc[changed["score"] == "brightness", ["value", "low", "high"]] += 0.1
    changed["seed"] += 100
    lines = [line for line in compare_rows(changed, stored).lines if line.score == "brightness" and line.method == "baseline"]
    assert {(line.verdict, line.better) for line in lines} == {("undecided", "higher")}  # a test needs two seeds a side


def test_the_gate_wants_what_a_description_calls_counted_equal(study, scored, tmp_path, monkeypatch):
    rows = collect(study, METHODS, [0], tmp_path)
    monkeypatch.setitem(SCORES, "brightness", replace(BRIGHTNESS, counted=True))
    changed = rows.copy()
    changed.loc[changed["score"] == "brightness", "value"] += 0.1
    lines = [line for line in compare_rows(changed, rows).lines if line.score == "brightness"]
    assert {(line.verdict, line.why) for line in lines} == {("difference", "must be equal")}


def test_every_description_has_a_function_of_its_stage():
    by_stage = {"scores": functions.FUNCTIONS, "outliers": outlier_scores.FUNCTIONS}
    for stage, registered in by_stage.items():
        names = [name for study in study_names() for name in scores_of(load_study(study), stage)]
        assert {name.partition("@")[0] for name in names} == set(registered)


def test_a_column_is_shown_as_the_description_says_unless_it_says_so_itself():
    assert Column(score="kid").text(0.00123) == "1.2"
    assert Column(score="kid").heading == "KID, ×1000 ↓"
    assert Column(score="kid", scale=1, digits=4).text(0.00123) == "0.0012"
    assert Column(score="kid", scale=1).heading == "KID ↓"


def test_a_study_of_prompts_without_reconstruction_has_no_score_of_the_checker():
    study = load_study("shapes")
    without = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"reconstruction": False})})
    assert {"checker_accuracy", "checker_accuracy_reconstructed", "rfid", "psnr"} == set(scores_of(study)) - set(scores_of(without))
