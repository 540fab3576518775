"""Samples from outside through every door: the values are the stage's own, and what cannot be measured rightly is refused in one line."""

import io
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from pipeline import Pipeline
from torch_fidelity.metric_fid import fid_features_to_statistics

from harness.data.stage import load_data
from harness.evaluation.features import Extractor
from harness.evaluation.functions import FUNCTIONS
from harness.evaluation.outcome import scores_by
from harness.evaluation.outside.image_set import Watched
from harness.evaluation.outside.references import _torch_fidelity
from harness.evaluation.outside.score import FLOOR, Asked, score_outside
from harness.evaluation.references import load_references
from harness.evaluation.subjects import Instruments
from harness.machine.device import set_up
from harness.machine.streams import stream
from harness.results.scores import AS_DECLARED
from harness.store import artifacts
from harness.store.files import save_npz
from harness.study.typed import UserError

SCORES = ["fid", "fid_infinity", "fid_clean", "is", "is_unsplit", "kid", "precision", "recall", "clip_score", "accuracy"]
HERE = "study:tiny"


@pytest.fixture(scope="module")
def made(study, tmp_path_factory):
    """Data, judge, CLIP model and references of the tiny study, and noisy held-out images as the samples of a run, which no test trains."""
    set_up(1)
    folder = tmp_path_factory.mktemp("home")
    pipeline = Pipeline(study, folder / "results" / "tiny").prepare([])
    real = load_data(pipeline.data, "reference")
    noise = torch.randint(-40, 40, real.images.shape, generator=stream(0, "noise")).numpy()
    images, labels = np.clip(real.images + noise, 0, 255).astype(np.uint8), np.roll(real.labels, 1)
    run = pipeline.root / "runs" / "baseline" / "seed0"
    for name in ("denoiser.safetensors", "samples.npz"):
        with artifacts.artifact(run / name, stage=name, module="harness.results.schema") as path:
            save_npz(path, {"images": images, "labels": labels})
    instruments = Instruments(study, pipeline.judge, load_references(pipeline.references), pipeline.clip, pipeline.data)
    stage = scores_by(FUNCTIONS, SCORES, instruments.samples(run / "samples.npz", run / "denoiser.safetensors"))
    features = Extractor(study, pipeline.judge)(real.images)["features"]
    train = load_data(pipeline.data, "train").images
    return SimpleNamespace(
        folder=folder, pipeline=pipeline, samples=run / "samples.npz", images=images, labels=labels, stage=stage, real=real.images,
        features=features, train=train,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _at_home(made, study, monkeypatch):
    monkeypatch.chdir(made.folder)
    for module in ("judges", "references"):
        monkeypatch.setattr(f"harness.evaluation.outside.{module}.load_study", lambda name: {"tiny": study}[name])
    monkeypatch.setattr("harness.study.places.home", lambda of, _part: of.name)


def asked(samples, **more):
    return Asked(samples=Path(samples), **{"judge": HERE, "reference": HERE} | more)


def facts(score):
    return score.value, score.low, score.high, score.n, score.reference, score.content, score.extractor, score.how


def values(measurement):
    return {row.score: facts(row) for row in measurement.rows if row.method != FLOOR}


def of_stage(made, names=None):
    """What the functions of stage `scores` give of a run with the same samples."""
    return {name: facts(made.stage[name]) for name in names or SCORES if made.stage[name].status == "ok"}


def write_pngs(folder, images, labels=None, digits=4):
    for i, image in enumerate(images):
        path = folder / ("" if labels is None else str(labels[i])) / f"{i:0{digits}d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


# ----------------------------------------------------------------------------------------------------------------- values


def test_a_studys_own_samples_score_as_its_stage_scores_them(made):
    """To the bit, with every score, interval, reference, content, network and word."""
    found = values(score_outside(asked(made.samples, clip=HERE)))
    assert [*found] == [name for name in SCORES if name != "fid_infinity"]  # 60 samples are too few for it
    assert found == of_stage(made)


@pytest.mark.parametrize("door", ["folder", "nested", "adm", "compressed", "parquet", "shards", "arrow"])
def test_every_door_gives_the_same_numbers(made, tmp_path, door):
    images, labels = made.images, made.labels
    told, path = {"labels": str(tmp_path / "labels.txt"), "clip": HERE}, tmp_path / door
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    if door == "folder":
        write_pngs(path, images)
        (path / "about.json").write_text("{}", encoding="utf-8")
    elif door == "nested":
        write_pngs(path / "a" / "b", images[:30])
        write_pngs(path / "c", images)
        for i in range(30):
            (path / "c" / f"{i:04d}.png").unlink()
    elif door in ("adm", "compressed"):
        path = tmp_path / "samples.npz"
        {"adm": np.savez, "compressed": np.savez_compressed}[door](path, images, labels)
        told = {"clip": HERE}
    else:
        contents = []
        for image in images:
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            contents.append({"bytes": content.getvalue(), "path": None})
        features = Features({"picture": ImageFeature(), "digit": Value("int64")})
        table = Dataset.from_dict({"picture": contents, "digit": labels.tolist()}, features=features)
        path = tmp_path / ("data.parquet" if door == "parquet" else "saved")
        if door == "shards":
            path.mkdir()
            for part in range(2):
                table.shard(2, part, contiguous=True).to_parquet(path / f"train-{part}.parquet")
        else:
            table.to_parquet(path) if door == "parquet" else table.save_to_disk(path)
        told = {"labels": "column:digit", "clip": HERE}
    measured = score_outside(asked(path, **told))
    assert values(measured) == of_stage(made)
    own = score_outside(asked(made.samples, clip=HERE))
    assert {row.samples for row in measured.rows} == {row.samples for row in own.rows}  # told by their pixels, whatever they are kept in
    assert {row.config for row in measured.rows} == {row.config for row in own.rows}


def test_labels_are_of_class_folders_where_that_is_asked_for(made, tmp_path):
    images, labels = made.images, made.labels
    write_pngs(tmp_path / "s", images, labels)
    assert "accuracy" not in values(score_outside(asked(tmp_path / "s")))
    found = values(score_outside(asked(tmp_path / "s", labels="folders")))
    assert found["accuracy"][0] == of_stage(made, ["accuracy"])["accuracy"][0]
    shutil.rmtree(tmp_path / "s" / "3")
    with pytest.raises(UserError, match="9 class folders, the judge knows 10 classes"):
        score_outside(asked(tmp_path / "s", labels="folders"))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_values_do_not_depend_on_how_many_images_are_read_at_once(made, tmp_path, monkeypatch, size):
    write_pngs(tmp_path / "s", made.images)
    whole = values(score_outside(asked(tmp_path / "s")))
    monkeypatch.setattr("harness.evaluation.outside.image_set.AHEAD", size)
    assert values(score_outside(asked(tmp_path / "s"))) == whole


def test_the_order_in_which_files_are_found_does_not_count(made, tmp_path):
    """The later ones first."""
    for i in reversed(range(60)):
        write_pngs(tmp_path / "s", [])
        (tmp_path / "s").mkdir(exist_ok=True)
        Image.fromarray(made.images[i]).save(tmp_path / "s" / f"{i:04d}.png")
    write_pngs(tmp_path / "t", made.images)
    assert values(score_outside(asked(tmp_path / "s"))) == values(score_outside(asked(tmp_path / "t")))


def test_progress_counts_from_the_first_image_that_is_read(monkeypatch, capsys):
    """The CLIP model's pass begins long after it is prepared."""
    now = [0.0]
    monkeypatch.setattr("harness.machine.progress.time.monotonic", lambda: now[0])
    watched = Watched(np.zeros((3, 4, 4, 3), np.uint8), "CLIP")
    now[0] = 1000.0
    assert watched[0].shape == (4, 4, 3)
    now[0] = 1010.0
    assert watched[1].shape == (4, 4, 3)
    assert capsys.readouterr().err == "CLIP: 2/3 images, 0.2/s, 0:05 left\n"


# ------------------------------------------------------------------------------------------------------------- references


def save_statistics(path, features, **more):
    moments = fid_features_to_statistics(features)
    if path.suffix == ".pt":
        torch.save(moments, path)
    else:
        np.savez(path, **moments, **more)
    return str(path)


@pytest.mark.parametrize("kind", ["safetensors", "folder", "images.npz", "batch.npz", "clean-fid.npz", "torch-fidelity.pt"])
def test_every_door_of_a_reference_gives_the_same_fid(made, tmp_path, kind):
    images, features = made.real, made.features
    path = tmp_path / kind
    if kind == "safetensors":
        path = made.pipeline.references
    elif kind == "folder":
        write_pngs(path, images)
    elif kind == "images.npz":
        np.savez(path, arr_0=images)
    elif kind == "batch.npz":
        save_statistics(path, features, arr_0=images[:55])
    else:
        save_statistics(path, features)
    measured = score_outside(asked(made.samples, reference=str(path)))
    found, stage = values(measured), of_stage(made, ["fid", "fid_clean", "kid", "precision", "recall"])
    assert found["fid"][:4] == stage["fid"][:4]
    assert found["fid_clean"][:4] == stage["fid_clean"][:4]
    alone = kind in ("clean-fid.npz", "torch-fidelity.pt")
    assert ({"kid", "precision", "recall"} & {*found} == set()) == alone
    assert found["fid"][-1].endswith(AS_DECLARED) == (alone or kind == "batch.npz")
    if alone:
        assert "statistics alone" in measured.left["kid"]
    elif kind != "batch.npz":
        assert {name: found[name][:4] for name in stage} == {name: stage[name][:4] for name in stage}
    if kind in ("folder", "images.npz"):
        assert found["fid"][5] == stage["fid"][5]  # the same pixels


def test_an_old_numpys_statistics_are_read(made, tmp_path):
    """Its module was called numpy.core."""
    path = save_statistics(tmp_path / "s.pt", made.features)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in archive.namelist():
            old.writestr(name, archive.read(name).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    for which, value in fid_features_to_statistics(made.features).items():
        assert np.array_equal(_torch_fidelity(tmp_path / "old.pt")[which], value)


def test_without_a_reference_there_is_the_inception_score(made):
    measured = score_outside(asked(made.samples, reference=None, scores=None))
    assert [*values(measured)] == ["is", "is_unsplit", "accuracy"]
    assert measured.left["fid"] == "compares with a reference: give --reference"


def test_the_floor_is_real_images_in_the_samples_place(made, tmp_path):
    train = made.train
    write_pngs(tmp_path / "train", train[:90])
    measured = score_outside(asked(made.samples, train=tmp_path / "train"))
    rows = [row for row in measured.rows if row.method == FLOOR]
    assert [row.score for row in rows] == ["fid", "fid_clean", "kid", "precision", "recall"]
    chosen = sorted(torch.randperm(90, generator=stream(0, "floor", 90))[:60].tolist())
    np.savez(tmp_path / "chosen.npz", arr_0=train[chosen])
    again = values(score_outside(asked(tmp_path / "chosen.npz")))
    assert {row.score: row.value for row in rows} == {name: again[name][0] for name in (row.score for row in rows)}
    assert {row.samples for row in measured.rows} > {row.samples for row in rows}
    with pytest.raises(UserError, match="the floor at N = 60 needs as many as there are samples"):
        score_outside(asked(made.samples, train=write_pngs(tmp_path / "few", train[:59])))
