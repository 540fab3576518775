"""Files of images: each kind is read to its value, or one line names it."""

import os
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from image_kinds import GREY, RGB, Kind, refused, valid
from image_writers import png
from PIL import ImageFile
from toy import toy_study

from harness.data import listing, reader
from harness.data.stage import load_data, make_data
from harness.store.assets import record_asset
from harness.study.typed import UserError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # as on the command line


def off(image, kind):
    """By how much the mean over pixels differs from what the file is of."""
    values = np.asarray(image)
    return np.abs(values.astype(int) - kind.expected).mean() if values.shape == kind.expected.shape else np.inf


def refusal(work, *arguments):
    """The one line that `work` ends in; None where it ends well."""
    try:
        work(*arguments)
        return None
    except UserError as error:
        (line,) = str(error).splitlines()
        return line


def test_every_kind_is_read_to_its_value():
    wrong = {kind.name: off(reader.decode(kind.content, kind.name), kind) for kind in valid()}
    assert len(wrong) >= 140
    assert {name: value for name, value in wrong.items() if value > next(k.off for k in valid() if k.name == name)} == {}


def test_a_ramp_of_16_bits_has_the_mean_of_its_high_bytes():
    for kind in valid():
        if kind.name in ("ramp.png", "grey16.pgm", "tiff_lzw-16.tif", "float-MM.tif"):
            assert np.asarray(reader.decode(kind.content, kind.name)).mean() == GREY.mean() == 124


def test_what_cannot_be_told_is_one_line_that_says_why(tmp_path):
    for name, content, words in refused():
        path = tmp_path / name
        path.write_bytes(content)
        line = refusal(reader.read_image, path)
        assert line is not None, name
        assert line.startswith(f"{path}: not a readable image (")
        assert words in line
    assert "remove it" in refusal(reader.decode, b"no image", "x.png")
    assert "No such file" in refusal(reader.read_image, tmp_path / "gone.png")


def test_half_an_image_is_never_read(monkeypatch):
    """Nor where other code tells Pillow to read it."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in valid():
        if kind.name in ("rgb8.png", "420.JPEG", "lossless.webp", "444.avif", "palette.gif", "bits24.bmp", "tiff_lzw.tif", "rgb.pnm"):
            assert refusal(reader.decode, kind.content[: len(kind.content) * 2 // 3], kind.name), kind.name


def test_a_name_that_is_no_text_is_still_one_line():
    assert reader.printable(os.fsdecode(b"a\xff\n.png")) == r"a\udcff\n.png"
    assert reader.printable("photos/gr\u00fcn.png") == "photos/gr\u00fcn.png"


# ------------------------------------------------------------------------------------------------------- folders of images


def built(root, files, *, train_images, classes=3):
    """The data set of a folder with `files`: path below train/ -> content; held out: an image a class. UserError where it is refused."""
    for name in ("train", "held_out"):
        for i in range(classes):
            (root / "photos" / name / f"class {i}").mkdir(parents=True, exist_ok=True)
            if name == "held_out":
                (root / "photos" / name / f"class {i}" / "x.png").write_bytes(png(RGB[::-1], 8, 2))  # none of the training
    for name, content in files.items():
        path = root / "photos" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    study = toy_study("imagenet256_jit_h")
    changes = {"image_size": 32, "classes": classes, "train_images": train_images, "reference": classes}
    changes |= {split: getattr(study.data, split).model_copy(update={"path": f"photos/{split}"}) for split in ("train", "held_out")}
    study = study.model_copy(update={"data": study.data.model_copy(update=changes)})
    records = [root / "records" / f"data.{split}.json" for split in ("train", "held_out")]
    for path in records:
        record_asset(study, name=path.stem, assets=root, out=path)
    make_data(study, records=records, out=root / "data")
    return SimpleNamespace(train=load_data(root / "data", "train"), held_out=load_data(root / "data", "reference"))


def test_a_file_counts_by_its_suffix_and_hidden_ones_are_nobodys(tmp_path, capsys):
    good = png(RGB, 8, 2)
    suffixes = ["png", "PNG", "apng", "jpg", "JPEG", "jpe", "jfif", "bmp", "gif", "tif", "TIFF", "webp", "avif", "pgm", "ppm"]
    names = [f"class {i % 3}/{i}.{suffix}" for i, suffix in enumerate(suffixes)] + ["class 1/deeper/still/z.png"]
    hidden = [
        "class 0/._0.png",
        "class 0/.#0.png",
        "class 1/.ipynb_checkpoints/0.png",
        ".ipynb_checkpoints/0.png",
        "__MACOSX/class 0/0.png",
    ]
    foreign = ["class 0/notes.txt", "class 2/more.txt", "class 1/Thumbs.db", "class 1/README"]
    data = built(tmp_path, dict.fromkeys([*names, *hidden, *foreign], good), train_images=len(names))
    assert sorted(data.train.files) == sorted(names)
    assert data.train.labels.tolist() == sorted(data.train.labels)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "not read as images: 1 .db (such as class 1/Thumbs.db), 2 .txt (such as class 0/notes.txt), 1 no suffix (such as class 1/README)"
    )


def test_what_lies_behind_a_link_counts_and_a_circle_is_named(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.png").write_bytes(b"")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    assert listing.list_images(tmp_path / "near").images == ["link/x.png"]
    (tmp_path / "far" / "back").symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match="link/back: a link to a folder that it is in"):
        listing.list_images(tmp_path / "near")


def test_a_folder_named_like_an_image_is_none(tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a.png" / "b.png").write_bytes(b"")
    assert listing.list_images(tmp_path) == (["a.png/b.png"], [])


def test_names_that_are_no_text_go_through_the_stage(tmp_path):
    odd, bad = os.fsdecode(b"class 0/\xff\xfe.png"), "class 1/two\nlines.png"
    data = built(tmp_path, {odd: png(RGB, 8, 2), bad: b"", "class 2/x.png": png(RGB, 8, 2)}, train_images=3)
    assert data.train.files[0] == odd
    assert np.array_equal(data.train[0], RGB)
    assert re.search(r"two\\nlines.png: not a readable image \(empty file\)", refusal(data.train.pixels, [1]))


# --------------------------------------------------------------------------------------------------------------- mutations

PASSES = ("as it is", "cut off", "bit flipped", "cut off", "bit flipped")


def mutations(count):
    """`count` of (what was done, kind, its bytes now): every kind as it is, then cut off or with one bit flipped, and again."""
    rng = np.random.default_rng(0)
    kinds = [*valid(), *(Kind(name, content, None) for name, content, _ in refused())]
    kinds = [kinds[i] for i in rng.permutation(len(kinds))]
    for i in range(count):
        kind, how = kinds[i % len(kinds)], PASSES[i // len(kinds) if count > len(kinds) else i % 3]
        content = bytearray(kind.content)
        if how == "cut off":
            del content[rng.integers(len(content) + 1) :]
        elif how == "bit flipped" and content:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        yield how, kind, bytes(content)


@pytest.mark.parametrize("count", [50, pytest.param(820, marks=pytest.mark.slow)])
def test_a_mutated_file_is_right_or_refused(tmp_path, count):
    """Through the stage: its value, or one line. One bit of a format without checksums may be another image; no file is read in part."""
    files = {f"class {i % 3}/{i} {kind.name}": (how, kind, content) for i, (how, kind, content) in enumerate(mutations(count))}
    train = built(tmp_path, {name: content for name, (_, _, content) in files.items()}, train_images=count).train
    outcomes, wrong = Counter(), []
    for i, name in enumerate(train.files):
        how, kind, content = files[name]
        line = refusal(train.pixels, [i])
        if line is not None:
            outcome = "refused"
            sound = how != "as it is" or kind.expected is None
        elif kind.expected is not None and off(train[i], kind) <= kind.off:
            outcome, sound = "right", True
        else:
            outcome = "another image"
            sound = how == "bit flipped" and content[1:4] != b"PNG"
        outcomes[how, name.rpartition(".")[2].lower(), outcome] += 1
        wrong += [] if sound else [(name, how, outcome)]
    for (how, suffix, outcome), number in sorted(outcomes.items()):
        print(f"{how:12} {suffix:5} {outcome:14} {number}")
    assert wrong == []
    assert sum(number for key, number in outcomes.items() if key[2] == "right") >= (140 if count > 500 else 10)
