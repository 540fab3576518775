"""Further views of a run: the weights at earlier steps, and guidance chosen with a held-out seed."""

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_values
from faults import diverging

from harness.denoiser.sample import load_samples
from harness.evaluation import guidance
from harness.evaluation.guidance import search_guidance
from harness.evaluation.runs import check_run
from harness.report import rows as row_files
from harness.report.trace import trace_score
from harness.results.views import Choice, View, plain_view
from harness.store import artifacts
from harness.store.files import write_text
from harness.study import typed as config
from harness.study.study import parse_study
from harness.study.typed import UserError
from harness.workflow.run import Run

SEARCH = {"scales": [1.5, 4.0], "intervals": [[0.0, 1.0], [0.2, 0.8]], "seed": 7, "count": 40}
VALUES = tiny_values(denoiser={"snapshots": [3, 8]}, sampling={"guidance_search": SEARCH})
METHODS, SEEDS = ["baseline", "dsr"], [0, 1]


def of(study, built, root):
    """The pipeline of a study that shares everything before the denoiser with the tiny one."""
    pipeline = copy.copy(built)
    pipeline.study, pipeline.root, pipeline.state, pipeline.runs = study, root, root / "state", {}
    return pipeline


@pytest.fixture(scope="module")
def viewed(built, tmp_path_factory):
    """Both methods and seeds with all of their views."""
    pipeline = of(parse_study("tiny", VALUES), built, tmp_path_factory.mktemp("views"))
    for method in METHODS:
        for seed in SEEDS:
            pipeline.train(method, seed)
        choice = pipeline.choose_guidance(method)
        for folder, view in (("", {}), ("", {"steps": True}), ("guided", {"guidance": choice})):
            pipeline.draw(method, SEEDS, folder, **view)
            pipeline.score(method, SEEDS, folder, **view)
        for seed in SEEDS:  # outlier statistics are not looked at here
            out = pipeline.root / "runs" / method / f"seed{seed}" / "outliers.json"
            values = json.loads(out.with_name("scores.json").read_text(encoding="utf-8")) | {"scores": {}}
            with artifacts.artifact(out, stage="outliers", module="harness.evaluation.outliers") as path:
                path.write_text(json.dumps(values), encoding="utf-8")
    return pipeline


def choice_of(pipeline, method):
    return Choice.model_validate(artifacts.read_json(pipeline.root / "runs" / method / "guidance.json"))


# --------------------------------------------------------------------------------------------------------------- guidance


def test_every_candidate_is_recorded_and_the_lowest_fid_chosen(viewed):
    grid = viewed.study.sampling.guidance_search.candidates
    assert grid == [(1.0, (0.0, 1.0)), *((scale, interval) for scale in (1.5, 4.0) for interval in ((0.0, 1.0), (0.2, 0.8)))]
    for method in METHODS:
        choice = choice_of(viewed, method)
        assert [(one.scale, one.interval) for one in choice.candidates] == grid
        fids = [one.fid for one in choice.candidates]
        assert len(set(fids)) == len(grid)
        assert (choice.scale, choice.interval) == grid[int(np.argmin(fids))]
        assert choice.guidance.endswith(", chosen on seed 7")
        assert (choice.method, choice.seed, choice.n, choice.status) == (method, 7, 40, "ok")
        record = artifacts.meta(viewed.root / "runs" / method / "guidance.json")
        assert (record["stage"], record["method"], record["seed"], record["status"]) == ("guidance", method, 7, "ok")
        assert any(name.endswith("seed7/denoiser.safetensors") for name in record["inputs"])


def test_a_candidate_is_sampled_as_a_run_with_that_guidance_is(viewed, built, tmp_path):
    study, choice = viewed.study, choice_of(viewed, "dsr")
    for candidate in choice.candidates[::2]:
        section = {"count": 40, "guidance": {"scale": candidate.scale, "interval": list(candidate.interval)}}
        changed = parse_study("tiny", config.merge(VALUES, {"sampling": section, "evaluation": {"kid_subset": 40}}))
        pipeline = of(changed, built, tmp_path / f"{candidate.scale:g}{candidate.interval}")
        pipeline.train("dsr", 7)
        pipeline.draw("dsr", [7])
        pipeline.score("dsr", [7])
        content = artifacts.read_json(pipeline.root / "runs" / "dsr" / "seed7" / "scores.json")
        assert content["scores"]["fid"]["value"] == candidate.fid
    assert study.sampling.count == 60


def test_the_search_goes_on_after_a_kill_and_gives_the_same(viewed, tmp_path, monkeypatch):
    pipeline = of(viewed.study, viewed, tmp_path)
    tried, original = [], guidance._Judged.__call__

    def judged(self, candidate, images):
        tried.append(candidate.scale)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return original(self, candidate, images)

    monkeypatch.setattr(guidance._Judged, "__call__", judged)
    with pytest.raises(KeyboardInterrupt):
        pipeline.choose_guidance("dsr")
    assert not (tmp_path / "runs" / "dsr" / "guidance.json").exists()
    pipeline.choose_guidance("dsr")
    assert len(tried) == 6  # five candidates, the third of them twice
    assert choice_of(pipeline, "dsr") == choice_of(viewed, "dsr")
    assert not list((tmp_path / "state").iterdir())


def test_a_guided_run_is_that_of_a_study_with_the_chosen_guidance(viewed, built, tmp_path):
    choice = choice_of(viewed, "baseline")
    section = {"guidance": {"scale": choice.scale, "interval": list(choice.interval)}}
    pipeline = of(parse_study("tiny", config.merge(VALUES, {"sampling": section})), built, tmp_path)
    pipeline.train("baseline", 0)
    pipeline.draw("baseline", [0])
    images = [
        load_samples(root / "runs" / "baseline" / "seed0" / name / "samples.npz")[0]
        for root, name in ((tmp_path, ""), (viewed.root, "guided"))
    ]
    assert np.array_equal(*images)


def test_where_the_held_out_run_diverged_nothing_is_chosen_and_the_scores_say_so(viewed, tmp_path, monkeypatch):
    pipeline = of(viewed.study, viewed, tmp_path)
    pipeline.train("baseline", 0)
    diverging(monkeypatch, 0)
    choice = pipeline.choose_guidance("baseline")
    chosen = choice_of(pipeline, "baseline")
    assert (chosen.status, chosen.scale, {one.fid for one in chosen.candidates}) == ("diverged", 1.0, {None})
    pipeline.draw("baseline", [0], "guided", guidance=choice)
    pipeline.score("baseline", [0], "guided", guidance=choice)
    scores = artifacts.read_json(tmp_path / "runs" / "baseline" / "seed0" / "guided" / "scores.json")["scores"]
    assert {(score["status"], score["value"]) for score in scores.values()} == {("diverged", None)}
    assert scores["fid"]["reason"] == chosen.reason


def refused(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_searched_or_taken_is_one_line(viewed, built, tmp_path):
    base = viewed.root / "runs" / "baseline"
    assert "guidance.json: is of tiny/baseline, not of tiny/dsr" in refused(
        viewed.draw, "dsr", [0], "guided", guidance=base / "guidance.json"
    )
    plain = parse_study("tiny", tiny_values(sampling={"guidance_search": None}))
    encoder = built.encoders["plain"]
    options = {"method": "baseline", "decoder": encoder.decoder, "latents": encoder.latents, "judge": built.judge}
    options |= {"references": built.references, "state": tmp_path / "state", "out": tmp_path / "guidance.json"}
    assert "searches for no guidance" in refused(search_guidance, plain, denoiser=base / "seed0" / "denoiser.safetensors", **options)
    assert "is of baseline/seed0, not of baseline/seed7" in refused(
        search_guidance, viewed.study, denoiser=base / "seed0" / "denoiser.safetensors", **options
    )
    assert not (tmp_path / "guidance.json").exists()


def test_the_seed_that_guidance_is_chosen_on_is_not_scored_with_it():
    run = Run(parse_study("tiny", VALUES), [0, 7], ["baseline"])
    assert "seed 7: guidance of study 'tiny' is chosen on it" in refused(run.rows, {"guided"})
    assert run.rows({"steps"})


# ------------------------------------------------------------------------------------------------------------------ steps


def test_a_step_is_scored_as_a_run_of_its_weights(viewed, tmp_path):
    run = viewed.root / "runs" / "dsr" / "seed1"
    pipeline = of(viewed.study, viewed, tmp_path)
    target = tmp_path / "runs" / "dsr" / "seed1" / "denoiser.safetensors"
    with artifacts.artifact(
        target, stage="denoiser", module="harness.denoiser.train", method="dsr", seed=1, status="ok", filtered_share=0.0
    ) as path:
        path.write_bytes((run / "step8" / "denoiser.safetensors").read_bytes())
    for decay in viewed.study.sampling.averages:
        other = viewed.study.average_file(target, decay)
        with artifacts.artifact(other, stage="denoiser", module="harness.denoiser.train", method="dsr", seed=1, status="ok") as path:
            path.write_bytes(target.read_bytes())
    pipeline.draw("dsr", [1])
    pipeline.score("dsr", [1])
    whole, step = (artifacts.read_json(file)["scores"] for file in (target.with_name("scores.json"), run / "step8" / "scores.json"))
    assert list(step) == ["fid", "fid_infinity"]
    assert {name: whole[name] for name in step} == step


def test_steps_that_a_run_did_not_reach_have_no_value(viewed, built, tmp_path, monkeypatch):
    values = config.merge(VALUES, {"denoiser": {"training": {"skips": 2}}})
    pipeline = of(parse_study("tiny", values), built, tmp_path)
    diverging(monkeypatch, 4)
    pipeline.train("baseline", 0)
    pipeline.draw("baseline", [0], steps=True)
    pipeline.score("baseline", [0], steps=True)
    run = tmp_path / "runs" / "baseline" / "seed0"
    scores = [artifacts.read_json(run / f"step{step}" / "scores.json")["scores"]["fid"] for step in (3, 8)]
    assert [score["status"] for score in scores] == ["ok", "diverged"]
    assert "training.skips allows 2" in scores[1]["reason"]
    assert len(load_samples(run / "step8" / "samples.npz")[0]) == 0


def test_weights_of_another_step_are_refused(viewed, tmp_path):
    plain = of(parse_study("tiny", tiny_values()), viewed, viewed.root)
    assert "keeps no weights of earlier steps" in refused(plain.draw, "dsr", [1], steps=True)
    run, moved = viewed.root / "runs" / "dsr" / "seed1", tmp_path / "denoiser.safetensors"
    for suffix in ("", artifacts.META):
        moved.with_name(moved.name + suffix).write_bytes((run / "step8" / f"denoiser.safetensors{suffix}").read_bytes())
    assert "is of step 8, not last" in refused(check_run, moved, "dsr", 1)
    check_run(moved, "dsr", 1, 8)


# ------------------------------------------------------------------------------------------------------------------- rows


def test_views_are_collected_where_they_are_asked_for_and_never_mixed(viewed):
    study, plain = viewed.study, plain_view(viewed.study)
    alone = row_files.collect(study, METHODS, SEEDS, viewed.root)
    assert set(alone["step"]) == {12}
    assert set(alone["guidance"]) == {"none"}
    every = row_files.collect(study, METHODS, SEEDS, viewed.root, views={"steps", "guided"})
    fids = every[every["score"] == "fid"]
    seen = {View(*view) for view in zip(fids["ema"], fids["step"], fids["guidance"], strict=True)}
    chosen = {choice_of(viewed, method).guidance for method in METHODS}
    assert seen == {plain._replace(ema=decay) for decay in study.sampled} | {plain._replace(step=step) for step in (3, 8)} | {
        plain._replace(guidance=guidance) for guidance in chosen
    }
    for options in ({}, {"step": 3}, {"guided": True}, {"ema": study.sampling.averages[0]}):
        assert len(row_files.of_view(fids, study, **options)) == len(METHODS) * len(SEEDS)
    of_every, of_alone = (row_files.of_view(table, study).reset_index(drop=True) for table in (every, alone))
    pd.testing.assert_frame_equal(of_every, of_alone)
    assert row_files.choices(every) == {method: choice_of(viewed, method).guidance.partition(", chosen")[0] for method in METHODS}


def test_the_csv_of_every_view_can_be_read_and_traced(viewed, tmp_path):
    study = viewed.study
    table = row_files.collect(study, METHODS, SEEDS, viewed.root, views={"steps", "guided"})
    write_text(tmp_path / "rows.csv", row_files.to_csv(table))
    assert row_files.to_csv(row_files.from_csv(tmp_path / "rows.csv")) == (tmp_path / "rows.csv").read_text(encoding="utf-8")
    texts = {}
    for name, options in {"plain": {}, "step": {"step": 3}, "guided": {"guided": True}}.items():
        texts[name], _ = trace_score(tmp_path / "rows.csv", method="dsr", score="fid", seed=1, results=viewed.root, **options)
    assert "runs/dsr/seed1/scores.json" in texts["plain"]
    assert "runs/dsr/seed1/step3/scores.json" in texts["step"]
    assert "runs/dsr/seed1/guided/scores.json" in texts["guided"]
    assert "runs/dsr/guidance.json" in texts["guided"]
    assert "runs/dsr/seed7/denoiser.safetensors" in texts["guided"]
    assert "unknown step '4'" in refused(trace_score, tmp_path / "rows.csv", method="dsr", score="fid", step=4, results=viewed.root)


def test_a_guided_score_of_an_older_choice_is_refused(viewed, tmp_path):
    shutil.copytree(viewed.root / "runs", tmp_path / "runs")
    path = tmp_path / "runs" / "dsr" / "guidance.json"
    values = json.loads(path.read_text(encoding="utf-8")) | {"guidance": "none, chosen on seed 8"}
    with artifacts.artifact(path, stage="guidance", module="harness.evaluation.guidance") as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")
    message = refused(row_files.collect, viewed.study, METHODS, SEEDS, tmp_path, views={"guided"})
    assert "dsr/seed0/guided/scores.json: guidance is" in message
    assert "not none, chosen on seed 8" in message
