"""A person's own folder of images is the README's study of ten lines: counted, labelled and captioned by the harness."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from pipeline import Pipeline

from harness.cli.main import main
from harness.data.captions import captions
from harness.data.stage import load_data
from harness.evaluation.outliers import measure_outliers
from harness.report.figures import render_figures
from harness.report.notes import outliers
from harness.study import counts, study
from harness.study import typed as config
from harness.study.typed import ROOT, UserError
from harness.workflow.config import checked_config
from harness.workflow.counting import count_family, count_left_out

CLASSES = ["golden_retriever", "great_white_shark", "7"]  # as bright as their places
TRAIN, HELD_OUT = 4, 70  # a class; digits' KID wants 200


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder to run in, with the images and the study that the README says."""
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(example.splitlines()) <= 10
    (tmp_path / "studies").mkdir()
    shutil.copy(study.STUDIES / "digits.yaml", tmp_path / "studies")
    (tmp_path / "studies/mine.yaml").write_text(example, encoding="utf-8")
    for split, count in (("train", TRAIN), ("held_out", HELD_OUT)):
        for place, name in enumerate(CLASSES):
            folder = tmp_path / "assets/photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = Image.new("RGB", (40, 36), (100 * place,) * 3)
                picture.putpixel((20, 20), (i, len(split), 0))  # no image is another
                picture.save(folder / f"{i}.png")
    monkeypatch.setattr(study, "STUDIES", tmp_path / "studies")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dsr(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["dsr", *map(str, words)])
    main()


def test_labels_and_captions_of_the_readmes_study(mine, monkeypatch):
    data = checked_config({"study": "mine"}).study.data
    assert (data.classes, data.train_images, data.reference) == (3, 3 * TRAIN, 3 * HELD_OUT)
    records = [f"results/mine/assets/data.{split}.json" for split in ("train", "held_out")]
    for split, record in zip(("train", "held_out"), records, strict=True):
        dsr(monkeypatch, "asset", "--study", "mine", "--name", f"data.{split}", "--assets", "assets", "--out", record)
    dsr(monkeypatch, "data", "--study", "mine", "--records", *records, "--out", "results/mine/data")
    for split, count in (("train", TRAIN), ("reference", HELD_OUT)):
        part = load_data(mine / "results/mine/data", split)
        assert part.labels.tolist() == [label for label in range(3) for _ in range(count)]
        assert [int(part[i * count][0, 0, 0]) for i in range(3)] == [200, 0, 100]  # "7" comes before the words
    assert captions(data, range(3), mine / "results/mine/data") == [
        "a photo of a 7",
        "a photo of a golden retriever",
        "a photo of a great white shark",
    ]


FEW = 20  # held out, a class: fewer than digits' outlier_statistics.images and evaluation.kid_subset


def test_few_held_out_images_are_all_looked_at_and_the_note_and_the_figure_say_so(mine, monkeypatch):
    for path in mine.glob("assets/photos/held_out/*/*.png"):
        if int(path.stem) >= FEW:
            path.unlink()
    count_family("mine", mine / "assets")
    with pytest.raises(
        UserError, match=r"data.reference 60 is too few: evaluation.kid_subset needs at least 200; .* lower it by 140 or more"
    ):
        study.load_study("mine")
    short = {"training": {"steps": 2}}
    changes = dict.fromkeys(("encoder", "decoder", "denoiser"), short) | {"evaluation": {"judge": short, "clip": None, "kid_subset": 60}}
    own = study.parse_study("mine", config.merge(study.read_study("mine"), changes))
    assert own.outlier_rows == list(range(60))
    assert " There are 60 held-out images, and all are looked at." in outliers(own, worst=True)
    for path in mine.glob("assets/photos/train/*/*.png"):
        Image.new("RGB", (40, 36), (100 * CLASSES.index(path.parent.name),) * 3).save(path)
    with pytest.raises(UserError, match=r"planted layer \d: patches of the training images are too much alike"):
        Pipeline(own, mine / "results/alike", mine / "assets").prepare(["plain"])
    random = np.random.default_rng(0)
    for path in mine.glob("assets/photos/*/*/*.png"):
        Image.fromarray(random.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(path)
    built = Pipeline(own, mine / "results/mine", mine / "assets").prepare(["plain", "ttr_1"])
    built.train("baseline", 0)
    run, latents = built.root / "runs/baseline/seed0", built.encoders["plain"].latents
    outlier_files = {"denoisers": [run / "denoiser.safetensors"], "latents": latents, "out": [run / "outliers.json"]}
    measure_outliers(own, method="baseline", seeds=[0], **outlier_files)
    scores = json.loads((run / "outliers.json").read_text(encoding="utf-8"))["scores"]
    assert {scores[name]["n"] for name in ("encoder_outlier_share", "denoiser_outlier_share")} == {60}
    monkeypatch.setattr(study, "STUDIES", ROOT / "harness/studies")  # which specifications of figures name
    where = {"methods": ["baseline", "ttr"], "seeds": [0], "results": built.root, "out": mine / "figures"}
    assert render_figures(own, **where, figures=["encoder_norms"]) == {"figures": ["encoder_norms"]}


def test_outliers_are_counted_over_images_of_every_class(mine):
    """Held-out images lie by class: the first ones would be of one."""
    count_family("mine", mine / "assets")
    own = study.load_study("mine")
    own = own.model_copy(update={"outlier_statistics": own.outlier_statistics.model_copy(update={"images": 6})})
    assert own.outlier_rows == [0, 35, 70, 105, 140, 175]
    assert study.load_study("digits").outlier_rows == list(range(256))


def test_images_are_counted_again_when_snakemake_starts(mine):
    count_family("mine", mine / "assets")
    first = study.load_study("mine")
    assert study.parse_study("mine", study.read_study("mine")) == first
    (mine / "assets/photos/train/7/0.png").unlink()
    count_left_out("mine", mine / "assets")  # a stage of the same run: what is recorded stands
    assert study.load_study("mine").data == first.data
    count_family("mine", mine / "assets")
    assert study.load_study("mine").data.train_images == first.data.train_images - 1
    assert len(json.loads(counts.RECORDS.read_text(encoding="utf-8"))) == 1


def test_what_a_study_says_is_not_counted(mine):
    path = mine / "studies/mine.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("  image_size", "  classes: 5\n  reference: 201\n  image_size"), encoding="utf-8"
    )
    count_family("mine", mine / "assets")
    data = study.load_study("mine").data
    assert (data.classes, data.train_images, data.reference) == (5, 3 * TRAIN, 201)


def test_what_cannot_be_counted_is_one_line(mine):
    with pytest.raises(UserError, match=r"study 'mine': data.classes is left out, and the images in photos/train and photos/held_out"):
        study.load_study("mine")
    shutil.rmtree(mine / "assets/photos/held_out/7")
    with pytest.raises(UserError, match=r"study 'mine' leaves its images to be counted: .*class '7' is not among"):
        count_family("mine", mine / "assets")
    with pytest.raises(UserError, match=r"there is no 'elsewhere/photos/train' \(my own photos\) and no 'elsewhere/photos/held_out'"):
        count_family("mine", mine.relative_to(mine) / "elsewhere")
    for broken in ("", "[]", '{"x": {"classes": "many"}}'):
        counts.RECORDS.parent.mkdir(exist_ok=True)
        counts.RECORDS.write_text(broken, encoding="utf-8")
        with pytest.raises(UserError, match="not counted yet: snakemake -n --config study=mine counts them"):
            study.load_study("mine")
    path = mine / "studies/mine.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("image_size", "image_sise"), encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown field 'data.image_sise', did you mean 'image_size'\?"):
        study.load_study("mine")
