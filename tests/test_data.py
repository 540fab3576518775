import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness import artifacts, data
from harness.config import UserError


def test_two_builds_have_the_same_checksum(study, built, tmp_path):
    assert data.make(study.data, tmp_path / "again")["sha256"] == artifacts.checked(built.data)


def test_reads_what_hugging_face_reads(study, built):
    from datasets import load_from_disk

    ours, theirs = data.load(built.data, "reference"), load_from_disk(str(built.data / "reference"))
    assert np.array_equal(ours.images, np.stack([np.asarray(image) for image in theirs["image"]]))
    assert ours.labels.tolist() == list(theirs["label"])
    assert data.captions(study.data, ours.labels) == list(theirs["caption"])
    assert theirs["caption"][0] == f"a handwritten {data.WORDS[ours.labels[0]]}"


def test_splits_are_disjoint_and_have_every_class(study, built):
    train, reference = data.load(built.data, "train"), data.load(built.data, "reference")
    assert len(train) + len(reference) == 1797
    assert len(reference) == study.data.reference
    assert set(reference.labels) == set(train.labels) == set(range(10))


def test_a_changed_source_is_noticed(study, tmp_path):
    with pytest.raises(UserError, match="sha256"):
        data.make(study.data.model_copy(update={"sha256": "0" * 64}), tmp_path / "d")
    with pytest.raises(UserError, match="leaves nothing to train on"):
        data.make(study.data.model_copy(update={"reference": 1797}), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


@given(arrays(np.uint8, (2, 4, 4, 3)))
def test_pixels_and_back(images):
    assert np.array_equal(data.to_uint8(data.to_pixels(images)), images)


@given(st.floats(-3, 3))
def test_uint8_rounds_and_clips(value):
    found = data.to_uint8(torch.full((1, 3, 1, 1), value))[0, 0, 0, 0]
    assert abs(found - np.clip((value + 1) * 127.5, 0, 255)) <= 0.5 + 1e-4
