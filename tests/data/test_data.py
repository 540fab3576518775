import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from toy import SIDE, make_assets, toy_study

from harness.data.captions import captions
from harness.data.digits import WORDS
from harness.data.images import centre_crop, to_pixels, to_uint8
from harness.data.stage import load_data, make_data
from harness.encoder import latents
from harness.encoder.encode import make_encoder, make_latents
from harness.encoder.registry import load_encoder
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.study.typed import ROOT, UserError


def with_data(study, **changes):
    return study.model_copy(update={"data": study.data.model_copy(update=changes)})


def test_two_builds_have_the_same_checksum(study, built, tmp_path):
    assert make_data(study, out=tmp_path / "again")["sha256"] == artifacts.checked(built.data)


def test_reads_what_hugging_face_reads(study, built):
    from datasets import load_from_disk

    ours, theirs = load_data(built.data, "reference"), load_from_disk(str(built.data / "reference"))
    assert np.array_equal(ours.images, np.stack([np.asarray(image) for image in theirs["image"]]))
    assert ours.labels.tolist() == list(theirs["label"])
    assert captions(study.data, ours.labels) == list(theirs["caption"])
    assert theirs["caption"][0] == f"a handwritten {WORDS[ours.labels[0]]}"


def test_splits_are_disjoint_and_have_every_class(study, built):
    train, reference = load_data(built.data, "train"), load_data(built.data, "reference")
    assert len(train) + len(reference) == 1797
    assert len(reference) == study.data.reference
    assert set(reference.labels) == set(train.labels) == set(range(10))


def test_a_changed_source_is_noticed(study, tmp_path):
    with pytest.raises(UserError, match="sha256"):
        make_data(with_data(study, sha256="0" * 64), out=tmp_path / "d")
    with pytest.raises(UserError, match="leaves nothing to train on"):
        make_data(with_data(study, reference=1797), out=tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


@given(arrays(np.uint8, (2, 4, 4, 3)))
def test_pixels_and_back(images):
    assert np.array_equal(to_uint8(to_pixels(images)), images)


@given(st.floats(-3, 3))
def test_uint8_rounds_and_clips(value):
    pixel = to_uint8(torch.full((1, 3, 1, 1), value))[0, 0, 0, 0]
    assert abs(pixel - np.clip((value + 1) * 127.5, 0, 255)) <= 0.5 + 1e-4


@given(st.floats(-3, 3))
def test_truncated_levels_are_those_of_the_released_sampler(value):
    """Its pixels are in [0, 1]: clamp, times 255, and the fraction is cut off."""
    pixels = torch.full((1, 3, 1, 1), value)
    released = ((pixels + 1) / 2).clamp(0, 1).mul(255)
    assert 0 <= (released - to_uint8(pixels, "truncated")[0, 0, 0, 0]).max() < 1 + 1e-4


@pytest.mark.parametrize(("level", "rounded", "truncated"), [(99.25, 99, 99), (99.75, 100, 99), (-4.0, 0, 0), (260.0, 255, 255)])
def test_a_level_between_two(level, rounded, truncated):
    pixels = torch.full((1, 3, 1, 1), level / 127.5 - 1)
    assert to_uint8(pixels)[0, 0, 0, 0] == rounded
    assert to_uint8(pixels, "truncated")[0, 0, 0, 0] == truncated


# ------------------------------------------------------------------------------------------------------- folders of images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy study over a folder of JPEGs, with the records of its assets."""
    root = tmp_path_factory.mktemp("folder")
    study = toy_study("imagenet256_jit_h")
    make_assets(study, root / "assets")
    records = [root / "records" / f"{name}.json" for name in ("data.train", "data.held_out")]
    for path in records:
        record_asset(study, name=path.stem, assets=root / "assets", out=path)
    make_data(study, records=records, out=root / "data")
    return SimpleNamespace(root=root, study=study, records=records)


def test_a_folder_of_images_is_indexed_by_class_and_decoded_on_demand(folder):
    split = load_data(folder.root / "data", "train")
    assert split.files == sorted(split.files)
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split[3].shape == (SIDE, SIDE, 3)
    assert np.array_equal(to_uint8(split.pixels([3, 0])), np.stack([split[3], split[0]]))
    assert len(load_data(folder.root / "data", "reference")) == folder.study.data.reference


def test_captions_are_class_names(folder):
    wanted = ["a photo of a Golden Retriever", "a photo of a tabby cat"]
    assert captions(folder.study.data, [0, 1], folder.root / "data") == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": 7}, "6 images, data.train_images says 7; is it complete"),
        ({"classes": 4}, "3 classes, data.classes says 4"),
        ({"reference": 67}, "66 images, data.reference wants 67"),
    ],
)
def test_a_folder_that_is_not_what_the_study_says_is_one_line(folder, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        make_data(with_data(folder.study, **changes), records=folder.records, out=tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("spoil", [lambda content: b"no image", lambda content: content[: len(content) // 2], lambda content: b""])
def test_an_image_that_does_not_decode_is_named(folder, tmp_path, spoil):
    recorded = recorded_copy(folder, tmp_path)
    split = load_data(recorded.data, "train")
    path = split.root / split.files[2]
    path.write_bytes(spoil(path.read_bytes()))
    recorded.record()
    with pytest.raises(UserError, match=re.escape(f"{path}: not a readable image")) as caught:
        load_data(recorded.data, "train").pixels([0, 2])
    assert "\n" not in str(caught.value)


def recorded_copy(folder, root):
    """The folders, copied below `root`, with the data set over them."""
    shutil.copytree(folder.root / "assets", root / "assets")
    records = [root / "records" / path.name for path in folder.records]

    def record(assets="assets"):
        for path in records:
            record_asset(folder.study, name=path.stem, assets=root / assets, out=path)

    record()
    make_data(folder.study, records=records, out=root / "data")
    return SimpleNamespace(data=root / "data", records=records, record=record)


def test_an_image_that_was_repainted_is_refused_and_another_data_set_once_recorded(folder, tmp_path):
    recorded = recorded_copy(folder, tmp_path)
    split, before = load_data(recorded.data, "train"), artifacts.checked(recorded.data)
    path = split.root / split.files[2]
    content = path.read_bytes()
    at = content.index(b"\xff\xda") + 20  # in the pixels
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(UserError, match=re.escape(f"asset 'data.train': {path} has changed since it was recorded")):
        split.pixels([0, 2])
    assert split.pixels([0, 1]).shape == (2, 3, SIDE, SIDE)
    recorded.record()
    assert make_data(folder.study, records=recorded.records, out=recorded.data)["sha256"] != before
    assert load_data(recorded.data, "train").pixels([2]).shape == (1, 3, SIDE, SIDE)


def test_folders_that_have_moved_are_the_same_data_set(folder, tmp_path):
    recorded = recorded_copy(folder, tmp_path)
    before = load_data(recorded.data, "train").pixels([0])
    shutil.copytree(tmp_path / "assets", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "assets")
    recorded.record("elsewhere")
    assert torch.equal(load_data(recorded.data, "train").pixels([0]), before)  # nothing but the record was made anew


@given(width=st.integers(20, 200), height=st.integers(20, 200), size=st.sampled_from([8, 16, 20]))
def test_centre_crop_is_square_and_keeps_a_flat_image(width, height, size):
    image = Image.new("RGB", (width, height), (10, 200, 77))
    cropped = centre_crop(image, size)
    assert cropped.shape == (size, size, 3)
    assert (cropped == [10, 200, 77]).all()


def test_centre_crop_takes_the_middle():
    pixels = np.zeros((32, 64, 3), dtype=np.uint8)
    pixels[:, 16:48] = 255
    assert (centre_crop(Image.fromarray(pixels), 32) == 255).all()


def test_steps_over_images_depend_on_seed_and_step_alone_and_mirror_half(folder, tmp_path):
    """Whatever was decoded ahead: a run that goes on at step 7 sees what it would have seen."""
    make_encoder(folder.study, backbone="plain", data=folder.root / "data", records=folder.records, state=tmp_path, out=tmp_path / "b")
    make_latents(
        folder.study, encoder="plain", data=folder.root / "data", backbone=tmp_path / "b", registers=None, out=tmp_path / "latents"
    )
    split = load_data(folder.root / "data", "train")

    def batches(seed):
        return latents.Batches(
            tmp_path / "latents", seed=seed, batch=3, split=split, encoder=load_encoder(folder.study, tmp_path / "b", None)
        )

    first, later = batches(0), batches(0)
    steps = [first(step) for step in range(9)]
    for step in (7, 2, 8):
        again = later(step)
        assert torch.equal(again.latents, steps[step].latents)
        assert torch.equal(again.labels, steps[step].labels)
    assert not torch.equal(batches(1)(0).latents, steps[0].latents)
    plain = {to_uint8(split.pixels([i])).tobytes() for i in range(len(split))}
    mirrored = [to_uint8(batch.latents[i : i + 1]).tobytes() not in plain for batch in steps for i in range(3)]
    assert 0.2 < np.mean(mirrored) < 0.8


def test_captions_set_up_what_they_need_themselves():
    """In a process that has imported nothing else of the harness: open_clip imports torchvision, whose operators a CPU-only torch lacks."""
    code = "from harness.data.class_words import captions_of; print(captions_of(['n01440764', 'n01443537']).texts[1][0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "a photo of a goldfish"), done.stderr
