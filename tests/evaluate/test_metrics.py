import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import data
from harness.config import UserError
from harness.evaluate.accuracy import accuracy
from harness.evaluate.clip_score import clip_score
from harness.evaluate.cost import cost
from harness.evaluate.features import Extractor
from harness.evaluate.fid import fid
from harness.evaluate.inception_score import inception_score
from harness.evaluate.kid import kid
from harness.evaluate.precision_recall import precision_recall
from harness.models import clip as clips
from harness.runtime import stream


def gaussian(count, shift=0.0, width=8, purpose="a"):
    return torch.randn(count, width, generator=stream(0, purpose)) + shift


def test_fid_of_a_set_with_itself_is_zero():
    assert fid(gaussian(200), gaussian(200))["fid"] == pytest.approx(0, abs=1e-6)


@given(st.floats(0.5, 5))
def test_fid_of_a_shifted_set_is_the_squared_shift(shift):
    found = fid(gaussian(300), gaussian(300) + shift)
    assert found["fid"] == pytest.approx(8 * shift**2, rel=1e-3)
    assert found["fid_clean"] == pytest.approx(found["fid"], rel=1e-5)


def test_too_few_samples_are_refused(study):
    with pytest.raises(UserError, match="FID needs more samples than features: got 8 for 8"):
        fid(gaussian(8), gaussian(100))
    with pytest.raises(UserError, match="more reference images than features"):
        fid(gaussian(100), gaussian(8))
    with pytest.raises(UserError, match=r"KID needs evaluation\.kid_subset = 50 images on both sides, there are 49"):
        kid(gaussian(49), gaussian(100), study.evaluation)
    with pytest.raises(UserError, match=r"more than evaluation\.neighbours = 3 images, there are 3"):
        precision_recall(gaussian(3), gaussian(100), 3)


def test_kid_separates_what_differs(study):
    same, other = kid(gaussian(100), gaussian(100, purpose="b"), study.evaluation), kid(gaussian(100), gaussian(100, 1.0), study.evaluation)
    assert abs(same["kid"]) < 0.05 < other["kid"]
    assert kid(gaussian(100), gaussian(100, 1.0), study.evaluation) == other


def test_precision_and_recall():
    near, far = gaussian(100), gaussian(100, 100.0)
    assert precision_recall(near, near, 3) == {"precision": 1.0, "recall": 1.0}
    assert precision_recall(near, far, 3) == {"precision": 0.0, "recall": 0.0}
    half = precision_recall(torch.cat([near, far]), near, 3)  # half of the samples are unreal, all of the real is covered
    assert half["precision"] == 0.5
    assert half["recall"] == 1.0


def test_inception_score_ends():
    assert inception_score(torch.zeros(100, 10))["is"] == pytest.approx(1)
    sure = 100 * torch.nn.functional.one_hot(torch.arange(1000) % 10, 10)
    assert inception_score(sure.float())["is"] == pytest.approx(10, rel=0.1)


def test_accuracy():
    assert accuracy(torch.eye(4), np.array([0, 1, 2, 0]))["accuracy"] == 0.75


def test_clip_score_prefers_the_right_caption(study, built):
    model, tokenizer = clips.load(built.clip)
    split = data.load(built.data, "reference")
    wrong = [data.caption((label + 1) % 10) for label in split.labels]
    right = clip_score(split.images, split.captions, model, tokenizer)["clip_score"]
    assert 0 <= clip_score(split.images, wrong, model, tokenizer)["clip_score"] <= 100
    assert 0 <= right <= 100
    with pytest.raises(UserError, match="was not trained on the word 'elephant'"):
        tokenizer(["a handwritten elephant"])


def test_features_do_not_depend_on_the_batch(study, built, monkeypatch):
    from harness.evaluate import features

    images = data.load(built.data, "reference").images
    extract = Extractor(study, built.judge)
    whole = extract(images)
    monkeypatch.setattr(features, "BATCH", 7)
    parts = extract(images)
    for name in ("features", "logits"):
        assert torch.allclose(whole[name], parts[name], atol=1e-5)


def test_judge_features_are_standardised(study, built):
    features = Extractor(study, built.judge)(data.load(built.data, "train").images)["features"]
    assert features.mean(0).abs().max() < 1e-3
    assert features.std(0).sub(1).abs().max() < 1e-3


def test_registers_cost_parameters_and_flops(study):
    plain, registers = cost(study, "baseline"), cost(study, "diffusion_registers")
    assert registers["parameters"] - plain["parameters"] == study.denoiser.registers.count * study.denoiser.width
    assert 1 < registers["gflops"] / plain["gflops"] < 1.3
