"""Labels and captions of people's own folders: right, or refused in a line."""

import errno
import json
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy import SIDE, toy_values

from harness.data.by_class import listed
from harness.data.captions import captions, image_texts
from harness.data.class_words import captions_of, imagenet_words, readable
from harness.data.classes import check_stated, in_order, natural, read_stated
from harness.data.registry import source_of
from harness.data.stage import load_data, make_data
from harness.evaluation.clip.stage import make_clip
from harness.evaluation.functions import fid
from harness.evaluation.outcome import Measured
from harness.report.notes import captioned, judged, sampled
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.study import typed as config
from harness.study.counts import uncounted
from harness.study.sections.evaluation import TrainedClip
from harness.study.study import parse_study
from harness.study.typed import UserError

PER_CLASS = 3


def image(path, light):
    """A held-out one differs in its last pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", (SIDE, SIDE), light)
    if "held_out" in path.parts:
        picture.putpixel((SIDE - 1, SIDE - 1), 255)
    picture.save(path)


def folders(root, names, per_class=PER_CLASS):
    """A class folder for each name; an image is as light as its class's place in `names`."""
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            image(root / name / f"{i}.png", 10 * place)


class Own:
    """A study of images below `root`, as its user would lay them down."""

    def __init__(self, root):
        self.root, self.train, self.held_out = root, root / "assets/train", root / "assets/held_out"

    def make(self, **data):
        classes = len([path for path in self.train.iterdir() if path.is_dir()])
        counts = {split: len([*folder.rglob("*.png")]) for split, folder in (("train", self.train), ("held_out", self.held_out))}
        section = {
            "source": "image_folder",
            "image_size": SIDE,
            "classes": classes,
            "train": {"path": "train", "source": "mine"},
            "held_out": {"path": "held_out", "source": "mine"},
            "train_images": counts["train"],
            "reference": counts["held_out"],
        }
        values = config.merge(toy_values("imagenet256_jit_h"), {"evaluation": {"kid_subset": 2, "reconstruction": False}})
        study = parse_study("own", values | {"data": section | data})
        names = [name for name in study.assets if name.startswith("data.")]
        records = [self.root / "records" / f"{name}.json" for name in names]
        for record in records:
            record_asset(study, name=record.stem, assets=self.root / "assets", out=record)
        make_data(study, records=records, out=self.root / "data")
        return SimpleNamespace(study=study, folder=self.root / "data", meta=artifacts.meta(self.root / "data"))


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


def lights(made, split):
    """The class that each image shows, by its label."""
    part = load_data(made.folder, split)
    return {(int(label), int(part[i][0, 0, 0]) // 10) for i, label in enumerate(part.labels)}


def test_numbers_are_in_natural_order_in_every_split_alike(own):
    names = ["2", "9", "10", "011"]
    for root in (own.train, own.held_out):
        folders(root, names)
    made = own.make()
    assert made.meta["classes"] == names
    assert lights(made, "train") == lights(made, "reference") == {(i, i) for i in range(4)}
    assert captions(made.study.data, [1, 3], made.folder) == ["a photo of a 9", "a photo of a 011"]


@pytest.mark.parametrize("how", ["linked", "class linked", "copied", "one folder", "inside"])
def test_images_that_are_trained_on_are_not_held_out(own, how):
    """Where they lie, or what they are; told when Snakemake counts, too, but for copies, which nobody reads then."""
    folders(own.train, ["bird", "cat"])
    places, count = {}, 6
    match how:
        case "linked":
            own.held_out.symlink_to(own.train)
        case "class linked":
            folders(own.held_out, ["bird"])
            (own.held_out / "cat").symlink_to(own.train / "cat")
            count = 3
        case "copied":
            shutil.copytree(own.train, own.held_out)
        case "one folder":
            places = {"held_out": {"path": "train", "source": "mine"}}
        case "inside":
            folders(own.train / "held_out", ["bird", "cat"])
            places = {"held_out": {"path": "train/held_out", "source": "mine"}, "held_out_classes": "some"}
    own.held_out.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=rf"(held_out|train): {count} held-out images are trained on, too \([a-z_/]+/0.png\)") as caught:
        own.make(**{"reference": count, **places})
    assert "\n" not in str(caught.value)
    assert not (own.root / "data").exists()
    if how != "copied":
        assets = {split: {"path": split, "source": "mine"} for split in ("train", "held_out")}
        section = uncounted({"data": {"source": "image_folder", "image_size": SIDE, **assets, **places}})
        with pytest.raises(UserError, match=f"{count} held-out images are trained on, too"):
            source_of(section).count(own.root / "assets")


def test_held_out_images_that_are_copies_are_told_recorded_and_noted(own, capsys):
    for root in (own.train, own.held_out):
        folders(root, ["bird", "cat"])
    shutil.copy(own.train / "cat/1.png", own.held_out / "bird/1.png")
    made = own.make()
    assert made.meta["trained_on"] == 1
    assert "warning: " in (told := capsys.readouterr().err)
    assert "held_out: 1 of 6 held-out images are trained on, too, byte for byte (bird/1.png)" in told
    seen = SimpleNamespace(
        frechet=SimpleNamespace(with_interval=lambda value: Measured(value, None, None, "bootstrap")),
        distances={"fid": 1.0},
        trained_on=source_of(made.study.data).trained_on(made.folder),
    )
    row = pd.Series({"how": fid(seen).how, "extractor": "a" * 64, "reference": "b" * 64})
    study = made.study.model_copy(update={"evaluation": made.study.evaluation.model_copy(update={"references": []})})
    assert "reference: 6 held-out images, of which 1 are trained on, too (sha256" in judged(study, row)
    seen.trained_on = 0
    assert fid(seen).how == "bootstrap"
    for path in own.held_out.rglob("*.png"):
        shutil.copy(own.train / "cat/1.png", path)
    shutil.rmtree(own.root / "data")
    with pytest.raises(UserError, match="6 of 6 held-out images are trained on, too, byte for byte; give"):
        own.make()
    assert not (own.root / "data").exists()


@given(st.lists(st.integers(0, 10**6), unique=True), st.sampled_from(["{}", "class_{}", "{:09d}", "x{}y"]))
def test_natural_order_is_that_of_the_numbers(numbers, form):
    assert in_order([form.format(n) for n in numbers], "here") == [form.format(n) for n in sorted(numbers)]


@given(st.lists(st.text(min_size=1, max_size=8)))
def test_natural_order_compares_any_two_names(names):
    assert sorted(sorted(names), key=natural) == sorted(sorted(names, reverse=True), key=lambda name: (natural(name), name)) or len(
        {natural(name) for name in names}
    ) < len(set(names))


@pytest.mark.parametrize("names", [["7", "07"], ["class_7", "class_07", "a"]])
def test_two_folders_that_are_the_same_number_are_refused(own, names):
    for root in (own.train, own.held_out):
        folders(root, names)
    with pytest.raises(UserError, match=r"classes '\w+' and '\w+' are the same number"):
        own.make()


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (["bird", "cat", "dog"], ["bird", "dog", "wolf"], "train: class 'cat' is not among the 3 of"),
        (["bird", "cat"], ["bird", "cat", "wolf"], "held_out: class 'wolf' is not among the 2 of"),
        (["bird", "cat"], ["Bird", "cat"], "held_out: class 'Bird' is not among the 2 of .* (there it is 'bird')"),
        (["1", "2"], ["01", "2"], "held_out: class '01' is not among the 2 of .* (there it is '1')"),
        (["caf\u00e9"], ["cafe\u0301"], r"held_out: class .* (there it is 'caf\\xe9', here 'cafe\\u0301')"),
        (["bird", "cat", "dog"], ["bird", "dog"], "train: class 'cat' is not among the 2 of .* data.held_out_classes: some"),
    ],
)
def test_the_first_class_of_one_split_alone_is_named(own, train, held_out, message):
    folders(own.train, train)
    folders(own.held_out, held_out)
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
        own.make()
    assert "\n" not in str(caught.value)
    assert not (own.root / "data").exists()


def test_held_out_classes_may_be_some_where_the_study_says_so(own):
    folders(own.train, ["bird", "cat", "dog"])
    folders(own.held_out, ["dog"])
    made = own.make(held_out_classes="some")
    assert load_data(made.folder, "reference").labels.tolist() == [2] * PER_CLASS
    assert captions(made.study.data, [2], made.folder) == ["a photo of a dog"]
    folders(own.held_out, ["wolf"])
    with pytest.raises(UserError, match="class 'wolf' is not among the 3"):
        own.make(held_out_classes="some")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_empty_class_folders_are_named(own, split):
    for root in (own.train, own.held_out):
        folders(root, ["bird", "cat", "dog"])
    for path in getattr(own, split).glob("[cd]*/*.png"):
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(UserError, match=f"{split}: no image in the class folders 'cat', 'dog'; put images there"):
        own.make()


def test_an_image_beside_the_class_folders_is_named(own):
    for root in (own.train, own.held_out):
        folders(root, ["bird", "cat"])
    image(own.train / "cover.png", 0)
    with pytest.raises(UserError, match=r"cover\.png: an image in no class folder"):
        own.make()


def test_a_class_folder_may_be_a_link_and_hidden_ones_are_no_class(own, tmp_path):
    folders(tmp_path / "elsewhere", ["bird"])
    folders(own.train, ["cat", ".ipynb_checkpoints"])
    (own.train / "bird").symlink_to(tmp_path / "elsewhere/bird")
    folders(own.held_out, ["bird", "cat"])
    made = own.make(classes=2, train_images=2 * PER_CLASS, reference=2 * PER_CLASS)
    assert made.meta["classes"] == ["bird", "cat"]
    assert load_data(made.folder, "train").labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_model_from_elsewhere_has_the_classes_that_it_states(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\ufeffbird\r\ncat\n\n", encoding="utf-8")
    check_stated(read_stated(file), ["bird", "cat"], "weak")
    for classes, message in (
        (["cat", "bird"], "weak: label 0 is class 'bird' there and 'cat' in the study's data set"),
        (["bird"], "weak: label 1 is class 'cat' there and none in"),
        (["bird", "cat", "dog"], "weak: label 2 is class none there and 'dog' in"),
        (None, "weak: its order of classes is stated, and the study's data set names none"),
    ):
        with pytest.raises(UserError, match=message):
            check_stated(read_stated(file), classes, "weak")
    file.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"not a readable list of classes"):
        read_stated(file)


def test_an_order_of_classes_that_is_not_stated_is_noted():
    weak = {"architecture": "lightningdit", "width": 32, "depth": 1, "heads": 2, "mlp_ratio": 2.0, "weights": {"path": "w", "source": "x"}}
    for classes, scale, noted in ((None, 2.0, True), ({"path": "c", "source": "x"}, 2.0, False), (None, 1.0, False)):
        guidance = {"scale": scale, "weak": weak | {"classes": classes}}
        study = parse_study("guided", config.merge(toy_values("imagenet256_jit_h"), {"sampling": {"guidance": guidance}}))
        assert ("only their number is checked" in sampled(study, ["baseline"])) == noted


def test_a_folder_that_cannot_be_listed_is_named(own, monkeypatch):
    folders(own.train, ["bird", "bird/deep"])
    opened = os.scandir

    def scandir(path):
        if str(path).endswith("bird/deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"train/bird/deep: a folder that cannot be read \(Permission denied\)"):
        listed(own.train)


# ---------------------------------------------------------------------------------------------------------------- captions


def test_captions_are_the_folders_names(own):
    for root in (own.train, own.held_out):
        folders(root, ["golden_retriever", "great_white_shark", "tabby__cat"])
    made = own.make()
    wanted = ["a photo of a golden retriever", "a photo of a great white shark", "a photo of a tabby cat"]
    assert captions(made.study.data, [0, 1, 2, 0], made.folder) == [*wanted, wanted[0]]
    assert made.meta["captions"] == "from the names of the classes"


def test_wordnet_ids_have_imagenets_words_by_id(own):
    for root in (own.train, own.held_out):
        folders(root, ["n02099601", "n15075141", "n01440764"])
    made = own.make()
    assert captions(made.study.data, range(3), made.folder) == [
        f"a photo of a {it}" for it in ("tench", "Golden Retriever", "toilet paper")
    ]
    assert made.meta["captions"].startswith("ImageNet's words")


def test_imagenets_words_are_of_their_ids():
    words = imagenet_words()
    assert len(words) == 1000
    assert [words[wnid] for wnid in ("n01443537", "n01484850", "n02504458", "n03995372")] == [
        "goldfish",
        "great white shark",
        "African bush elephant",
        "power drill",
    ]
    assert captions_of(sorted(words)).texts[999] == ["a photo of a toilet paper"]


def test_more_classes_than_imagenet_has():
    names = [f"kind_{i}" for i in range(1500)]
    assert captions_of(in_order(names, "here")).texts[1200] == ["a photo of a kind 1200"]


@pytest.mark.parametrize("names", [["n00000000", "n01440764"], ["dog", "n01440764"]])
def test_ids_that_are_no_class_of_imagenet_have_no_caption(own, names):
    """The data set is made: only a CLIP score needs captions."""
    for root in (own.train, own.held_out):
        folders(root, names)
    made = own.make()
    with pytest.raises(UserError, match=r"class '\w+' is beside WordNet ids.* data\.captions"):
        captions(made.study.data, [0], made.folder)


def test_readable_names():
    assert [readable(name) for name in ("t-shirt", "_", "a__b_")] == ["t-shirt", "_", "a b"]


CLASS_CSV = 'class,text\ncat,"a cat, asleep"\nbird,a bird\n'
CLASS_JSONL = '{"class": "bird", "text": "a bird"}\n\n{"text": "a cat, asleep", "class": "cat"}\n'


@pytest.mark.parametrize(("name", "content"), [("c.csv", CLASS_CSV), ("c.jsonl", CLASS_JSONL), ("c.csv", "\ufeff" + CLASS_CSV)])
def test_a_file_of_captions_by_class(own, name, content):
    for root in (own.train, own.held_out):
        folders(root, ["bird", "cat"])
    (own.root / "assets" / name).write_text(content, encoding="utf-8")
    made = own.make(captions={"path": name, "source": "mine"})
    assert captions(made.study.data, [1, 0, 1], made.folder) == ["a cat, asleep", "a bird", "a cat, asleep"]
    assert made.meta["captions"] == "the file's, one a class"


def test_a_file_of_captions_by_image(own):
    """Samples of a class are compared with the texts of its held-out images in turn; an image has its own."""
    folders(own.train, ["bird", "cat"], 2)
    for name in ("bird", "cat"):
        for i in (5, 6):
            image(own.held_out / name / f"{i}.png", 0)
    texts = {f"{name}/{i}.png": f"a {name}, number {i}" for name in ("bird", "cat") for i in (0, 1, 5, 6)}
    lines = [json.dumps({"file_name": file, "text": text}) for file, text in texts.items()]
    (own.root / "assets/c.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made = own.make(captions={"path": "c.jsonl", "source": "mine"})
    assert captions(made.study.data, [1, 1, 0, 1], made.folder) == [
        "a cat, number 5",
        "a cat, number 6",
        "a bird, number 5",
        "a cat, number 5",
    ]
    assert image_texts(made.study.data, load_data(made.folder, "train"), made.folder)[:2] == ["a bird, number 0", "a bird, number 1"]
    image(own.held_out / "bird/0.png", 0)
    with pytest.raises(UserError, match=r"'bird/0\.png' is a training and a held-out image"):
        own.make(captions={"path": "c.jsonl", "source": "mine"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class,text\ncat,a cat\n", "no text for 1 of 2 classes, first 'bird'"),
        ("class,text\ncat,a cat\nbirds,a bird\nbird,b\n", "there is no class 'birds', did you mean 'bird'?"),
        ("class,text\ncat,a cat\ncat,another\nbird,b\n", "class 'cat' stands twice"),
        ("class,text\ncat,\nbird,b\n", "row 1 lacks its class or its text"),
        ("name,text\ncat,a\n", "expected the columns class,text or file_name,text; it has name, text"),
        ("class,text\ncat,a,b\n", "more values than"),
        ("class,text\ncat\n", "row 1 lacks its class or its text"),
        ("", "expected the columns"),
        ("file_name,text\nbird/0.png,a\n", "no text for 11 of 12 images, first 'bird/1.png'"),
        ("file_name,text\nbird/9.png,a\n", "there is no image 'bird/9.png', did you mean"),
        ('class,text\ncat,"a\nbird,b\n', "not readable as csv"),
        (b"class,text\ncat,\xff\n", "not readable as csv"),
    ],
)
def test_a_file_of_captions_that_does_not_fit_is_one_line(own, content, message):
    folders(own.train, ["bird", "cat"])
    for name in ("bird", "cat"):
        for i in "abc":
            image(own.held_out / name / f"{i}.png", 0)
    (own.root / "assets/c.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        own.make(captions={"path": "c.csv", "source": "mine"})
    assert "\n" not in str(caught.value)


def test_the_note_under_the_table_says_where_captions_come_from():
    rows = pd.DataFrame(
        {"score": ["fid", "clip_score", "clip_score"], "how": ["bootstrap", "bootstrap; captions: a file's", "none: no value"]}
    )
    assert captioned(rows) == "Captions of the CLIP score: a file's."
    assert captioned(rows[:1]) == ""


# ---------------------------------------------------------------------------------------------------------------- metadata


def lay_flat(own, rows_of, name="metadata.csv"):
    """Both splits without class folders; `rows_of` (split) -> {file: row without file_name}."""
    for split in ("train", "held_out"):
        root, rows = getattr(own, split), rows_of(split)
        for file, row in rows.items():
            image(root / file, 10 * int(row.get("light", 0)))
        content = [{"file_name": file} | {key: value for key, value in row.items() if key != "light"} for file, row in rows.items()]
        if name.endswith(".parquet"):
            import pandas as pd

            pd.DataFrame(content).to_parquet(root / name)
        elif name.endswith(".csv"):
            lines = [",".join(content[0]), *(",".join(map(str, row.values())) for row in content)]
            (root / name).write_text("\n".join(lines), encoding="utf-8")
        else:
            (root / name).write_text("\n".join(map(json.dumps, content)), encoding="utf-8")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
@pytest.mark.parametrize("labels", [["cat", "bird"], [10, 9]])
def test_metadata_beside_images_say_label_and_text(own, name, labels):
    def rows(split):
        return {f"{i}.png": {"light": i % 2, "label": labels[i % 2], "text": f"{split} {i}"} for i in range(4)}

    lay_flat(own, rows, name)
    made = own.make(classes=2)
    assert made.meta["classes"] == sorted(map(str, labels), key=natural) == [str(labels[1]), str(labels[0])]
    assert lights(made, "train") == lights(made, "reference") == {(0, 1), (1, 0)}
    assert captions(made.study.data, [0, 0, 1], made.folder) == ["held_out 1", "held_out 3", "held_out 0"]
    assert image_texts(made.study.data, load_data(made.folder, "train"), made.folder) == ["train 1", "train 3", "train 0", "train 2"]


def test_metadata_with_texts_alone_leave_the_labels_to_the_folders(own):
    def rows(split):
        return {f"{name}/{i}.png": {"light": place, "text": f"{split} {name} {i}"} for place, name in enumerate("ab") for i in range(2)}

    lay_flat(own, rows)
    made = own.make()
    assert made.meta["classes"] == ["a", "b"]
    assert captions(made.study.data, [1, 1, 1], made.folder) == ["held_out b 0", "held_out b 1", "held_out b 0"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: image(root / "new.png", 0), r"new\.png: no metadata file names it"),
        (lambda root: (root / "0.png").unlink(), r"names '0\.png', which is no image there"),
        (lambda root: (root / "metadata.csv").write_text("file_name,caption\n0.png,a", encoding="utf-8"), "expected the column file_name"),
        (lambda root: (root / "metadata.csv").write_text("file_name,label\n0.png,\n1.png,a", encoding="utf-8"), "its label in the meta"),
        (lambda root: (root / "metadata.csv").unlink(), "an image in no class folder"),
    ],
)
def test_metadata_that_do_not_fit_are_one_line(own, spoil, message):
    lay_flat(own, lambda _: {f"{i}.png": {"label": i} for i in range(2)})
    spoil(own.train)
    with pytest.raises(UserError, match=message) as caught:
        own.make(classes=2)
    assert "\n" not in str(caught.value)


def test_images_in_metadata_are_read_where_they_lie(own):
    lay_flat(own, lambda _: {f"deep/{i}.png": {"light": i, "label": f"c{i}"} for i in range(2)})
    made = own.make(classes=2)
    split = load_data(made.folder, "train")
    assert np.array_equal(split[1], np.full((SIDE, SIDE, 3), 10))


# -------------------------------------------------------------------------------------------------------- a CLIP model of them


def test_a_trained_clip_model_reads_each_images_own_text(own):
    """A word that only held-out images have is refused before the training."""
    said = {"train": "a grey {}, number {}", "held_out": "a grey {}, number {}"}

    def rows(split):
        return {f"{name}/{i}.png": {"text": said[split].format(name, i)} for name in ("bird", "cat") for i in range(2)}

    def trained():
        made = own.make()
        section = {"kind": "trained", "width": 16, "depth": 1, "heads": 2, "training": {"steps": 2, "batch": 4, "lr": 1e-3}}
        evaluation = made.study.evaluation.model_copy(update={"clip": TrainedClip.model_validate(section)})
        study = made.study.model_copy(update={"evaluation": evaluation})
        make_clip(study, data=made.folder, state=own.root / "state", out=own.root / "clip")
        return json.loads((own.root / "clip/words.json").read_text(encoding="utf-8"))["words"]

    lay_flat(own, rows, "metadata.jsonl")
    assert trained() == sorted(["a", "grey", "bird,", "cat,", "number", "0", "1"])
    said["held_out"] = "a pale {}, number {}"
    lay_flat(own, rows, "metadata.jsonl")
    with pytest.raises(UserError, match=r"caption 'a pale \w+, number 0': the CLIP model was not trained on the word 'pale'"):
        trained()
