"""The score files of runs: what every score is of, and what becomes of it where a run or a metric fails."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.data.images import NotFiniteError, to_uint8
from harness.data.stage import load_data
from harness.evaluation import subjects
from harness.evaluation.features import Extractor
from harness.evaluation.frechet import scarce
from harness.evaluation.functions import FUNCTIONS
from harness.evaluation.outcome import About, attempt, without
from harness.evaluation.outliers import measure_outliers
from harness.evaluation.references import make_references
from harness.evaluation.scores import score_runs
from harness.results.schema import NONE, ScoreFile, rows_of
from harness.results.scores import REFERENCES, SCORES, scores_of
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.tensors import load_tensors, save_tensors
from harness.study.sections.evaluation import Reference
from harness.study.typed import UserError

REASON = "step 9: the loss is nan"
OF_LATENTS = ("encoder_", "filtered_share@")  # of stage outliers, that the denoiser has no part in
OF_RUN = ("rfid", "psnr", "filtered_share", "parameters", "gflops")  # scores that do not look at samples


def read(path):
    return ScoreFile.model_validate(json.loads(path.read_text(encoding="utf-8")))


def scored(study, runs, run, out, **changes):
    """score_runs of one run of the baseline, or of a copy of it."""
    encoder = runs.encoders["plain"]
    files = {"decoder": encoder.decoder, "latents": encoder.latents, "data": runs.data, "judge": runs.judge}
    files |= {"clip": runs.clip, "references": runs.references} | changes
    samples, denoisers = [run / "samples.npz"], [run / "denoiser.safetensors"]
    score_runs(study, method="baseline", seeds=[0], samples=samples, denoisers=denoisers, out=[out], **files)
    return read(out)


def measured(study, runs, run, out):
    latents = runs.encoders["plain"].latents
    denoisers = [run / "denoiser.safetensors"]
    measure_outliers(study, method="baseline", seeds=[0], denoisers=denoisers, latents=latents, out=[out])
    return read(out)


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the baseline's first run, to spoil."""
    return shutil.copytree(runs.runs["baseline"][0], tmp_path / "seed0")


def diverge(path):
    artifacts.write_record(path, artifacts.meta(path) | {"status": "diverged", "reason": REASON})


def test_a_run_has_the_scores_that_its_study_names(study, runs):
    for folders in runs.runs.values():
        for folder in folders:
            names = [*read(folder / "scores.json").scores, *read(folder / "outliers.json").scores]
            assert sorted(names) == sorted(scores_of(study))


def test_every_score_says_what_it_is_of(study, runs):
    file, hashes = read(runs.runs["baseline"][0] / "scores.json"), {"held-out": artifacts.checked(runs.data), NONE: NONE}
    hashes |= {"judge": artifacts.checked(runs.judge), "clip": artifacts.checked(runs.clip)}
    compared = dict.fromkeys(["fid", "fid_infinity", "fid_clean", "kid", "precision", "recall"], (60, "held-out", "judge"))
    wanted = compared | {
        "is": (60, NONE, "judge"),
        "is_unsplit": (60, NONE, "judge"),
        "accuracy": (60, NONE, "judge"),
        "clip_score": (60, NONE, "clip"),
        "rfid": (study.data.reference, "held-out", "judge"),
        "psnr": (study.data.reference, "held-out", NONE),
        "filtered_share": (study.data.train_images, NONE, NONE),
        "parameters": (0, NONE, NONE),
        "gflops": (0, NONE, NONE),
    }
    assert set(wanted) == set(file.scores)
    for name, (n, reference, extractor) in wanted.items():
        score = file.scores[name]
        assert (score.n, score.reference, score.extractor) == (n, hashes[reference], hashes[extractor]), name


def test_a_score_has_an_interval_around_it_or_says_why_not(runs):
    for folders in runs.runs.values():
        for score in (score for name in ("scores", "outliers") for score in read(folders[0] / f"{name}.json").scores.values()):
            assert (score.low is None) == score.how.startswith("none: ")
            assert score.low is None or score.low <= score.value <= score.high
    scores = read(runs.runs["baseline"][0] / "scores.json").scores
    assert all(
        scores[name].low is not None for name in ("fid", "fid_clean", "is", "kid", "precision", "clip_score", "accuracy", "rfid", "psnr")
    )


def test_scored_again_the_file_is_the_same(study, runs, tmp_path):
    run = runs.runs["baseline"][0]
    scored(study, runs, run, tmp_path / "scores.json")
    assert (tmp_path / "scores.json").read_bytes() == (run / "scores.json").read_bytes()


def test_the_other_averages_have_fid_in_files_of_their_own(study, runs):
    run, whole = runs.runs["baseline"][0], read(runs.runs["baseline"][0] / "scores.json")
    assert whole.ema == study.ema
    assert len(study.sampling.averages) > 1
    for decay in study.sampling.averages:
        file = read(study.average_file(run / "scores.json", decay))
        assert list(file.scores) == ["fid", "fid_infinity"]
        assert file.ema == decay
        assert file.samples == artifacts.checked(study.average_file(run / "samples.npz", decay))
        assert file.denoiser == artifacts.checked(study.average_file(run / "denoiser.safetensors", decay))
        assert (file.scores["fid"].reference, file.provenance) == (whole.scores["fid"].reference, whole.provenance)
        inputs = artifacts.meta(study.average_file(run / "scores.json", decay))["inputs"]
        assert str(study.average_file(run / "samples.npz", decay)) in inputs


def test_an_average_is_scored_by_its_own_samples(study, runs, copied):
    decay, another = study.sampling.averages[0], runs.runs["baseline"][1]
    other = study.average_file(copied / "samples.npz", decay)
    shutil.copy(another / "samples.npz", other)
    artifacts.write_record(other, artifacts.meta(other) | {"sha256": artifacts.sha256(other)})
    first = scored(study, runs, copied, copied / "scores.json")
    averaged = read(study.average_file(copied / "scores.json", decay))
    assert averaged.scores["fid"] == read(another / "scores.json").scores["fid"] != first.scores["fid"]
    assert averaged.samples == artifacts.checked(another / "samples.npz") != first.samples


@pytest.mark.parametrize("swapped", ["samples.npz", "denoiser.safetensors"])
def test_files_of_another_seed_are_refused_by_name(study, runs, copied, swapped):
    for suffix in ("", artifacts.META):
        shutil.copy(runs.runs["baseline"][1] / f"{swapped}{suffix}", copied / f"{swapped}{suffix}")
    with pytest.raises(UserError, match=rf"{swapped}: is of baseline/seed1, not of baseline/seed0; delete it"):
        scored(study, runs, copied, copied / "scores.json")
    if swapped == "denoiser.safetensors":
        with pytest.raises(UserError, match="is of baseline/seed1"):
            measured(study, runs, copied, copied / "outliers.json")


@pytest.mark.parametrize("spoiled", ["samples.npz", "denoiser.safetensors"])
def test_of_a_run_that_diverged_only_the_scores_without_samples_are_left(study, runs, copied, spoiled):
    before = read(copied / "scores.json")
    diverge(copied / spoiled)
    after = scored(study, runs, copied, copied / "scores.json")
    assert list(after.scores) == list(before.scores)
    for name, score in after.scores.items():
        if name in OF_RUN:
            assert score == before.scores[name]
        else:
            assert (score.value, score.low, score.status, score.reason) == (None, None, "diverged", REASON)
            assert (score.n, score.reference, score.extractor) == (60, before.scores[name].reference, before.scores[name].extractor)
    assert read(study.average_file(copied / "scores.json", study.sampling.averages[0])).scores["fid"].status == "ok"


def test_a_metric_that_fails_takes_no_other_with_it(study, runs, copied, monkeypatch):
    def refuse(*_):
        raise UserError("KID has had\nenough")

    before = read(copied / "scores.json")
    monkeypatch.setitem(FUNCTIONS, "kid", refuse)
    monkeypatch.setitem(FUNCTIONS, "is", lambda _: without(float("nan"), "test"))
    after = scored(study, runs, copied, copied / "scores.json").scores
    assert (after["kid"].status, after["kid"].value, after["kid"].reason) == ("failed", None, "KID has had enough")
    assert (after["is"].status, after["is"].reason) == ("failed", "the value is nan, not a finite number")
    for name in set(after) - {"kid", "is"}:
        assert after[name] == before.scores[name]


def test_features_that_are_not_finite_fail_the_judges_scores_alone(study, runs, copied, monkeypatch):
    extract = Extractor.__call__

    def spoiled(self, images):
        outputs = extract(self, images)
        return outputs if len(images) != study.sampling.count else outputs | {"features": outputs["features"] / 0}

    monkeypatch.setattr(Extractor, "__call__", spoiled)
    monkeypatch.setitem(FUNCTIONS, "rfid", lambda _: without(1.0, "test"))  # has as many images
    after = scored(study, runs, copied, copied / "scores.json").scores
    assert {name for name, score in after.items() if score.status == "failed"} == set(after) - {*OF_RUN, "clip_score"}
    assert after["fid"].reason == "the judge's features of the samples are not finite"


@given(
    st.sampled_from([UserError, ValueError, np.linalg.LinAlgError, torch.linalg.LinAlgError, ZeroDivisionError, OverflowError]), st.text()
)
def test_a_reason_is_one_line(kind, text):
    def fails():
        raise kind(text)

    score = attempt(fails, About(3, NONE, NONE))
    assert score.status == "failed"
    assert len(score.reason.splitlines()) == 1


def test_too_few_samples_for_fid_infinity_skip_it_and_say_so_once(study, runs, copied, capsys):
    infinity = scored(study, runs, copied, copied / "scores.json").scores["fid_infinity"]
    assert infinity.status == "skipped"
    assert infinity.reason == "60 samples for 32 features are too few for a straight line in 1/N: set sampling.count to 128 or more"
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "warning: study 'tiny', method 'baseline': N = 60 samples for 32 features: FID is biased; set sampling.count to 320 or more"
    ]
    assert scarce(320, 32, [1.0]) == ""
    assert "FID is biased, about 1.5 too high here (FID less FID∞)" in scarce(200, 32, [1.0, 2.0])


def test_what_all_methods_share_stops_the_job(study, runs, copied):
    with pytest.raises(UserError, match="name its open_clip folder with --clip"):
        scored(study, runs, copied, copied / "scores.json", clip=None)
    with pytest.raises(UserError, match="no such file; run the stage that makes it"):
        scored(study, runs, copied, copied / "scores.json", references=copied / "nothing.safetensors")


def test_references_side_by_side_keep_their_own_hash(study, runs, tmp_path):
    """The reference decides FID as much as the method does, so every row says which it is."""
    asset = {"path": "virtual.npz", "source": "made by the test"}
    evaluation = study.evaluation.model_copy(update={"references": [Reference(name="virtual", file=asset)]})
    both = study.model_copy(update={"evaluation": evaluation})
    np.savez(tmp_path / "virtual.npz", arr_0=load_data(runs.data, "train").images[:80])
    name = "evaluation.references.virtual.file"
    record_asset(both, name=name, assets=tmp_path, out=tmp_path / f"{name}.json")
    references, run = tmp_path / "references.safetensors", runs.runs["baseline"][0]
    make_references(both, data=runs.data, judge=runs.judge, records=[tmp_path / f"{name}.json"], out=references)
    file, alone = scored(both, runs, run, tmp_path / "scores.json", references=references), read(run / "scores.json")
    rows = {row.score: row for row in rows_of(file)}
    assert set(rows) == set(scores_of(both, "scores"))
    for score in (name for name, info in SCORES.items() if info.places is REFERENCES):
        assert file.scores[f"{score}@held_out"] == alone.scores[score]
        assert rows[score].reference == artifacts.sha256(tmp_path / "virtual.npz")
    assert file.scores["fid"].value != alone.scores["fid"].value
    assert file.scores["rfid"] == alone.scores["rfid"]
    with pytest.raises(UserError, match="has the references virtual, held_out; the study names held_out"):
        scored(study, runs, run, tmp_path / "scores.json", references=references)


# ---------------------------------------------------------------------------------------------------------------- outliers


def test_of_a_denoiser_that_diverged_the_encoders_outliers_are_left(study, runs, copied):
    before = read(copied / "outliers.json").scores
    diverge(copied / "denoiser.safetensors")
    after = measured(study, runs, copied, copied / "outliers.json").scores
    for name, score in after.items():
        if name.startswith(OF_LATENTS):
            assert score == before[name]
        else:
            assert (score.value, score.status, score.reason) == (None, "diverged", REASON)
    table = pd.read_parquet(copied / "outliers.parquet")
    assert list(table.columns) == list(pd.read_parquet(runs.runs["baseline"][0] / "outliers.parquet").columns)
    assert set(table["part"]) == {"encoder"}


def test_norms_that_are_not_finite_fail_the_denoisers_scores(study, runs, copied):
    path = copied / "denoiser.safetensors"
    tensors, _ = load_tensors(path)
    save_tensors(path, {name: torch.full_like(value, torch.nan) for name, value in tensors.items()})
    artifacts.write_record(path, artifacts.meta(path) | {"sha256": artifacts.sha256(path)})
    file = measured(study, runs, copied, copied / "outliers.json")
    for name, score in file.scores.items():
        assert score.status == ("ok" if name.startswith(OF_LATENTS) else "failed")
    assert file.scores["denoiser_noise_fall"].reason == "norms of the denoiser's tokens are not finite in layer 0 at noise level 0.1"
    assert set(file.details) == {"encoder_outlier_share", "encoder_max_over_median"}


def test_a_decoder_whose_images_are_not_finite_has_no_scores(study, runs, copied, monkeypatch):
    """Images of NaN would be black ones, with a PSNR."""
    real = subjects.load_decoder

    def spoiled(study, path):
        decode = real(study, path)
        return lambda latents: torch.cat([decode(latents)[:-1], torch.full_like(latents[-1:, :1, :1, :1], torch.nan).expand(1, 3, 16, 16)])

    before = read(copied / "scores.json")
    monkeypatch.setattr(subjects, "load_decoder", spoiled)
    after = scored(study, runs, copied, copied / "scores.json").scores
    batches = -(-study.data.reference // study.sampling.batch)
    reason = f"reconstruction: {batches} of {study.data.reference} images out of the decoder are not finite"
    for name in ("rfid", "psnr"):
        assert (after[name].status, after[name].value, after[name].reason, after[name].n) == (
            "diverged",
            None,
            reason,
            study.data.reference,
        )
    assert all(after[name] == before.scores[name] for name in set(after) - {"rfid", "psnr"})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_not_finite_are_no_image(value):
    pixels = torch.zeros(3, 3, 2, 2)
    assert (to_uint8(pixels) == 128).all()
    pixels[1, 2, 0, 1] = value
    with pytest.raises(NotFiniteError, match="1 of 3 images are not finite"):
        to_uint8(pixels)
