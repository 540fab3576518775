"""The source `dataset`: Hugging Face's parquet and Arrow folders and WebDataset's tars, through the library."""

import gzip
import io
import itertools
import json
import shutil
import tarfile

import pytest
from PIL import Image
from test_classes import Own, lights
from toy import SIDE

from harness.data.captions import captions, image_texts
from harness.data.stage import load_data
from harness.study.counts import uncounted
from harness.study.typed import UserError

NAMES = ["dog", "cat", "10", "9"]  # a ClassLabel's own order


SERIAL = itertools.count()


def png(light, mode="RGB"):
    """No two are alike, by a pixel of the lower half."""
    content, serial = io.BytesIO(), next(SERIAL) % (SIDE * SIDE // 2)
    image = Image.new(mode, (SIDE + 4, SIDE), light if mode == "L" else (light,) * 3)
    image.putpixel((2 + serial % SIDE, SIDE - 1 - serial // SIDE), 255 if mode == "L" else (255, 255, 255))
    image.save(content, "PNG")
    return content.getvalue()


def table(labels, names=None):
    """A dataset whose images are as light as ten times their label."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    kind = ClassLabel(names=names) if names else Value("string" if isinstance(labels[0], str) else "int64")
    places = [label if isinstance(label, int) else sorted(set(labels)).index(label) for label in labels]
    features = Features({"image": ImageFeature(), "label": kind, "says": Value("string")})
    rows = {
        "image": [{"bytes": png(10 * place, "L" if i % 2 else "RGB"), "path": None} for i, place in enumerate(places)],
        "label": labels,
        "says": [f"{label}, number {i}" for i, label in enumerate(labels)],
    }
    return Dataset.from_dict(rows, features=features)


def save_tar(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, label in enumerate(labels):
            facts = {"label": f"name {label}"}
            for end, content in {"png": png(10 * label), "cls": str(label).encode(), "json": json.dumps(facts).encode()}.items():
                member = tarfile.TarInfo(f"{i:05d}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    monkeypatch.setenv("HF_HOME", "/nonexistent")  # nothing is kept there


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


def make(own, classes, train_images, reference, **changes):
    return own.make(source="dataset", classes=classes, train_images=train_images, reference=reference, **changes)


@pytest.mark.parametrize("form", ["parquet", "disk", "file"])
def test_class_labels_are_matched_by_name(own, form):
    """The held-out split numbers its classes otherwise."""
    train, held_out = table([0, 1, 2, 3, 0], NAMES), table([3, 2, 1, 0], NAMES[::-1])
    if form == "disk":
        train.save_to_disk(own.train)
        held_out.save_to_disk(own.held_out)
    paths = {}
    for name, rows in (("train", train), ("held_out", held_out)):
        if form != "disk":
            (own.root / "assets" / name / "data").mkdir(parents=True)
            rows.to_parquet(own.root / "assets" / name / "data/train-00000-of-00001.parquet")
            paths[name] = {"path": f"{name}/data/train-00000-of-00001.parquet", "source": "mine"}
    made = make(own, 4, 5, 4, **(paths if form == "file" else {}))
    assert made.meta["classes"] == NAMES
    assert lights(made, "train") == {(i, i) for i in range(4)}
    assert lights(made, "reference") == {(i, 3 - i) for i in range(4)}
    assert captions(made.study.data, [1], made.folder) == ["a photo of a cat"]
    assert load_data(made.folder, "train")[1].shape == (SIDE, SIDE, 3)


def test_plain_labels_are_in_natural_order_and_texts_are_captions(own):
    for root, labels in ((own.train, ["c10", "c9", "c9"]), (own.held_out, ["c9", "c10"])):
        root.mkdir(parents=True)
        table(labels).to_parquet(root / "x.parquet")
    made = make(own, 2, 3, 2, columns={"text": "says"})
    assert made.meta["classes"] == ["c9", "c10"]
    assert captions(made.study.data, [0, 1], made.folder) == ["c9, number 0", "c10, number 1"]
    split = load_data(made.folder, "train")
    assert image_texts(made.study.data, split, made.folder) == ["c9, number 1", "c9, number 2", "c10, number 0"]
    assert [int(split[i][0, 0, 0]) for i in range(3)] == [10, 10, 0]


def test_splits_of_one_folder_are_named(own):
    from datasets import DatasetDict

    DatasetDict({"train": table([0, 1, 0]), "test": table([1, 0]), "more": table([1])}).save_to_disk(own.train)
    both = {"held_out": {"path": "train", "source": "mine"}, "train_split": "train", "held_out_split": "test"}
    assert load_data(make(own, 2, 3, 2, **both).folder, "reference").labels.tolist() == [0, 1]
    with pytest.raises(UserError, match=r"has the splits .*; say which in data.held_out_split"):
        make(own, 2, 3, 2, **both | {"held_out_split": None})


@pytest.mark.parametrize(("label", "name"), [("cls", "{}"), ("json.label", "name {}")])
def test_webdataset_tars(own, label, name):
    save_tar(own.train / "shard-000.tar", [2, 10])
    save_tar(own.train / "shard-001.tar", [2, 9])
    save_tar(own.held_out / "all.tar", [9, 10, 2])
    made = make(own, 3, 4, 3, columns={"image": "png", "label": label})
    assert made.meta["classes"] == [name.format(i) for i in (2, 9, 10)]
    assert lights(made, "train") == lights(made, "reference") == {(0, 2), (1, 9), (2, 10)}


@pytest.mark.parametrize("end", ["sample", "entry", "header"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_without_its_end_is_no_smaller_data_set(own, end, packed):
    shard = own.train / "shard-001.tar"
    for path in (own.train / "shard-000.tar", shard, own.held_out / "all.tar"):
        save_tar(path, [2, 10])
    make(own, 2, 4, 2, columns={"image": "png", "label": "cls"})
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[{"sample": 3, "entry": 5, "header": 3}[end]].offset
    content = shard.read_bytes()[: last + 200 * (end == "header")]
    if packed:
        shard.unlink()
        shard = shard.with_name("shard-001.tar.gz")
        content = gzip.compress(content)
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"is cut off|not a readable shard") as refused:
        make(own, 2, 3, 2, columns={"image": "png", "label": "cls"})
    assert str(refused.value).startswith(f"{shard}: ")


@pytest.mark.parametrize("form", ["stream", "file"])
def test_an_arrow_file_without_its_end_is_no_smaller_data_set(own, form):
    import pyarrow as pa

    for root in (own.train, own.held_out):
        root.mkdir(parents=True)
        rows = table([0, 1, 0, 1] if root == own.train else [1, 0, 1, 0]).with_format("arrow")[:]
        with (pa.ipc.new_stream if form == "stream" else pa.ipc.new_file)(str(root / "x.arrow"), rows.schema) as writer:
            writer.write_table(rows, max_chunksize=2)
    make(own, 2, 4, 4)
    path = own.train / "x.arrow"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"x\.arrow: is cut off"):
        make(own, 2, 4, 4)


def test_what_is_left_out_is_counted(own):
    from harness.data.registry import source_of

    save_tar(own.train / "a.tar", [2, 10, 2])
    save_tar(own.held_out / "a.tar", [10, 2])
    assets = {split: {"path": split, "source": "mine"} for split in ("train", "held_out")}
    section = uncounted({"data": {"source": "dataset", "image_size": SIDE, "columns": {"image": "png", "label": "cls"}, **assets}})
    assert source_of(section).count(own.root / "assets") == {"classes": 2, "train_images": 3, "reference": 2}


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (None, {"columns": {"label": "labels"}}, "there is no column 'labels', did you mean 'label'"),
        (None, {"columns": {"image": "says"}}, r"row 0, says: no image \(str\); data.columns.image names"),
        (None, {"columns": {"text": "label"}}, "row 0: label is 0; expected a text"),
        (None, {"classes": 3}, "2 classes, data.classes says 3"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), {}, "not readable as a dataset"),
        (lambda path: path.unlink(), {}, "not readable as a dataset"),
        (lambda path: table([0, 1, -1], NAMES[:2]).to_parquet(path), {}, "row 2: label is None|row 2: label is -1"),
        (lambda path: table([0, 1, 5]).to_parquet(path), {}, "class '5' is not among the 2"),
    ],
)
def test_what_does_not_fit_is_one_line(own, spoil, changes, message):
    for root, labels in ((own.train, [0, 1, 1]), (own.held_out, [0, 1, 0])):
        root.mkdir(parents=True)
        table(labels).to_parquet(root / "x.parquet")
    if spoil:
        spoil(own.held_out / "x.parquet")
    with pytest.raises(UserError, match=message) as caught:
        own.make(**{"source": "dataset", "classes": 2, "train_images": 3, "reference": 3} | changes)
    assert "\n" not in str(caught.value)
    assert not (own.root / "data").exists()


@pytest.mark.parametrize("splits", [{}, {"held_out_split": "train"}])
def test_rows_that_are_trained_on_are_not_held_out(own, splits):
    own.train.mkdir(parents=True)
    table([0, 1, 1]).to_parquet(own.train / "x.parquet")
    own.held_out.mkdir()
    with pytest.raises(UserError, match=r"train: 3 held-out images are trained on, too \(row 0\)"):
        make(own, 2, 3, 3, held_out={"path": "train", "source": "mine"}, **splits)


def test_rows_that_are_copies_are_counted(own):
    from datasets import concatenate_datasets

    train, held_out = table([0, 1, 1]), table([0, 1])
    for root, rows in ((own.train, train), (own.held_out, concatenate_datasets([held_out, train.select([2])]))):
        root.mkdir(parents=True)
        rows.to_parquet(root / "x.parquet")
    assert make(own, 2, 3, 3).meta["trained_on"] == 1
    train.select([1, 0]).to_parquet(own.held_out / "x.parquet")
    shutil.rmtree(own.root / "data")
    with pytest.raises(UserError, match="2 of 2 held-out images are trained on, too, byte for byte"):
        make(own, 2, 3, 2)


def test_an_image_that_does_not_decode_is_named(own):
    from datasets import Dataset

    for root, content in ((own.train, png(1)), (own.held_out, png(1)[:60])):
        root.mkdir(parents=True)
        Dataset.from_dict({"image": [png(0), content], "label": [0, 1]}).to_parquet(root / "x.parquet")
    with pytest.raises(UserError, match=r"held_out, row 1, image: not a readable image"):
        make(own, 2, 2, 2)
