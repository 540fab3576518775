import json

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pil
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from harness.data.captions import captions
from harness.data.stage import load_data
from harness.evaluation import fid as fid_module
from harness.evaluation.accuracy import accuracy
from harness.evaluation.clip.published import import_published, load_published
from harness.evaluation.clip.stage import load_clip
from harness.evaluation.clip_score import clip_scores
from harness.evaluation.cost import cost_scores
from harness.evaluation.features import Extractor
from harness.evaluation.fid import fid, symmetric_distance
from harness.evaluation.inception_score import inception_score
from harness.evaluation.judge.classifier import Pooling
from harness.evaluation.kid import kid
from harness.evaluation.precision_recall import precision_recall
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.machine.streams import stream
from harness.study.sections.evaluation import OpenClip
from harness.study.typed import UserError


def gaussian(count, shift=0.0, width=8, purpose="a"):
    return torch.randn(count, width, generator=stream(0, purpose)) + shift


def reference(features):
    return ReferenceStatistics.of_features("reference", features)


def test_fid_of_a_set_with_itself_is_zero():
    assert fid(gaussian(200), reference(gaussian(200)))["fid"] == pytest.approx(0, abs=1e-6)


@given(st.floats(0.5, 5))
def test_fid_of_a_shifted_set_is_the_squared_shift(shift):
    distances = fid(gaussian(300), reference(gaussian(300) + shift))
    assert distances["fid"] == pytest.approx(8 * shift**2, rel=1e-3)
    assert distances["fid_clean"] == pytest.approx(distances["fid"], rel=1e-5)


@given(st.integers(2, 24), st.integers(0, 1000))
def test_the_three_frechet_distances_agree(width, seed):
    features = [
        torch.randn(200, width, generator=stream(seed, p)).relu() @ torch.randn(width, width, generator=stream(seed, p, 1)) for p in "ab"
    ]
    distances, (first, second) = fid(features[0], reference(features[1])), [reference(f) for f in features]
    symmetric = symmetric_distance(first.mu, first.sigma, second.mu, second.sigma)
    assert distances["fid_clean"] == pytest.approx(distances["fid"], rel=1e-6)
    assert symmetric == pytest.approx(distances["fid"], rel=1e-5)


def test_beyond_512_features_the_symmetric_form_is_reported_and_checked(monkeypatch):
    width = 520
    samples, real = (torch.randn(800, width, generator=stream(0, p)) @ torch.randn(width, width, generator=stream(1, p)) for p in "ab")
    theirs = fid_statistics_to_metric(fid_features_to_statistics(samples), fid_features_to_statistics(real), verbose=False)
    ours, other = fid(samples, reference(real)), reference(real)
    assert list(ours) == ["fid"]
    assert ours["fid"] == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-6)  # which adds up the means in single precision
    twice = [{"mu": np.zeros(width), "sigma": fid_features_to_statistics(of)["sigma"]} for of in (samples, real)]
    theirs = fid_statistics_to_metric(*twice, verbose=False)[KEY_METRIC_FID]
    assert symmetric_distance(*twice[0].values(), *twice[1].values()) == pytest.approx(theirs, rel=1e-11)
    exact = fid_module.dsygst
    monkeypatch.setattr(fid_module, "dsygst", lambda *of, **how: (1.1 * exact(*of, **how)[0], 0))  # the other side takes no such product
    with pytest.raises(UserError, match=r"the symmetric form gives .* and the same from the other side .*; the features are degenerate"):
        fid(samples, other)


def covariance(values, purpose):
    """With these eigenvalues."""
    turn = torch.linalg.qr(torch.randn(len(values), len(values), generator=stream(0, purpose), dtype=torch.float64))[0]
    return ((turn * values) @ turn.T).numpy()


@pytest.mark.parametrize("least", [-2, -6, -10, -13])
def test_the_error_of_the_symmetric_form_is_at_least_what_both_sides_differ_by(least):
    mean, spread = np.zeros(60), torch.logspace(1, least, 60, dtype=torch.float64)
    first, second = (covariance(spread * scale, p) for scale, p in ((1.0, "a"), (1.2, "b")))
    lower = torch.linalg.cholesky(torch.from_numpy(first))
    value, error = fid_module.with_error(mean, first, mean, second, lower)
    assert abs(value - symmetric_distance(mean, first, mean, second)) <= error
    assert 0 < abs(value - symmetric_distance(mean, second, mean, first)) <= error < 1e-4
    wrong = lower.clone()
    wrong[5, 2] *= 1 + 1e-6
    assert fid_module.with_error(mean, first, mean, second, wrong)[1] == float("inf")


def test_the_other_side_is_computed_only_where_rounding_could_matter(monkeypatch):
    monkeypatch.setattr(fid_module, "CLEAN_FID_WIDEST", 4)
    ours, other = gaussian(200), reference(gaussian(200, 0.5, purpose="b"))
    both, sides = fid(ours, other), []
    monkeypatch.setattr(fid_module, "symmetric_distance", lambda *of: sides.append(of) or both["fid"])
    assert (fid(ours, other), len(sides)) == (both, 0)
    monkeypatch.setattr(fid_module, "with_error", lambda *of: (both["fid"], 0.1))
    assert (fid(ours, other), len(sides)) == (both, 1)


def test_beyond_512_features_a_singular_covariance_is_torch_fidelitys_and_must_agree(monkeypatch):
    monkeypatch.setattr(fid_module, "CLEAN_FID_WIDEST", 4)
    ours, other = gaussian(200), reference(gaussian(200, 0.5, purpose="b"))
    ours[:, 3] = 0.25
    theirs = fid_statistics_to_metric(fid_features_to_statistics(ours), {"mu": other.mu, "sigma": other.sigma}, verbose=False)
    assert fid(ours, other) == {"fid": theirs[KEY_METRIC_FID]}
    monkeypatch.setattr(fid_module, "symmetric_distance", lambda *_: 0.0)
    with pytest.raises(UserError, match="its symmetric form 0 on the same features; the features are degenerate"):
        fid(ours, other)


def test_statistics_in_double_precision_are_compared_in_double_precision():
    single = reference(gaussian(200, purpose="b"))
    double = ReferenceStatistics("d", single.mu.astype(np.float64), single.sigma, single.features, "", "given", "")
    assert fid(gaussian(200), double)["fid"] == pytest.approx(fid(gaussian(200), single)["fid"], rel=1e-5)


def test_too_few_samples_are_refused(study):
    with pytest.raises(UserError, match="FID needs more samples than features: got 8 for 8"):
        fid(gaussian(8), reference(gaussian(100)))
    with pytest.raises(UserError, match="more reference images than features"):
        reference(gaussian(8))
    with pytest.raises(UserError, match="the Inception Score needs at least 10 samples, there are 9"):
        inception_score(gaussian(9), 20)
    with pytest.raises(UserError, match=r"KID needs evaluation\.kid_subset = 50 images on both sides, there are 49"):
        kid(gaussian(49), gaussian(100), study.evaluation)
    with pytest.raises(UserError, match=r"more than evaluation\.neighbours = 3 images, there are 3"):
        precision_recall(gaussian(3), gaussian(100), 3, 20)


def test_kid_separates_what_differs(study):
    same, other = (kid(gaussian(100), gaussian(100, *of), study.evaluation) for of in ((0.0, 8, "b"), (1.0,)))
    assert abs(same.value) < 0.05 < other.value
    assert same.low < 0 < same.high < other.low
    assert kid(gaussian(100), gaussian(100, 1.0), study.evaluation) == other


def precision_and_recall(*arguments):
    return {name: measured.value for name, measured in precision_recall(*arguments, 3, 20).items()}


def test_precision_and_recall():
    near, far = gaussian(100), gaussian(100, 100.0)
    assert precision_and_recall(near, near) == {"precision": 1.0, "recall": 1.0}
    assert precision_and_recall(near, far) == {"precision": 0.0, "recall": 0.0}
    half = precision_and_recall(torch.cat([near, far]), near)  # half of the samples are unreal, all of the real is covered
    assert half == {"precision": 0.5, "recall": 1.0}


def test_precision_and_recall_in_blocks_are_those_at_once(monkeypatch):
    from torch_fidelity import metric_prc

    ours, other = gaussian(90), gaussian(70, 0.7, purpose="b")
    at_once = precision_and_recall(ours, other)
    part = metric_prc.calculate_precision_recall_part
    monkeypatch.setattr(metric_prc, "calculate_precision_recall_part", lambda a, b, k, _size: part(a, b, k, 11))
    assert precision_and_recall(ours, other) == pytest.approx(at_once, abs=0.02)


def test_generated_samples_come_first_in_precision_and_recall():
    cluster, spread = gaussian(60) * 0.01, gaussian(60, purpose="b")  # samples of one mode: all real, little covered
    scores = precision_and_recall(cluster, spread)
    assert scores["precision"] > 0.9
    assert scores["recall"] < 0.2


def test_few_samples_bias_the_split_inception_score_low():
    """Rows whose marginal is uniform, and each certain: 10 of all, fewer in a split that lacks some."""
    logits = 100 * torch.eye(10)[torch.arange(60) % 10]
    assert inception_score(logits, 20, splits=1).value == pytest.approx(10)
    assert inception_score(logits, 20).value < 6.1  # of six different rows in each split


def test_inception_score_ends():
    assert inception_score(torch.zeros(100, 10), 20).value == pytest.approx(1)
    sure = 100 * torch.nn.functional.one_hot(torch.arange(1000) % 10, 10)
    assert inception_score(sure.float(), 20).value == pytest.approx(10, rel=0.1)


def test_accuracy():
    measured = accuracy(torch.eye(4), np.array([0, 1, 2, 0]))
    assert measured.value == 0.75
    assert measured.low < 0.5 < measured.high < 1


def test_clip_score_prefers_the_right_caption(study, built):
    model, tokenizer, preprocess = load_clip(study, built.clip)
    split = load_data(built.data, "reference")
    right, wrong = captions(study.data, split.labels), captions(study.data, (split.labels + 1) % 10)
    good, bad = (clip_scores(split.images, captions, model, tokenizer, preprocess) for captions in (right, wrong))
    assert len(good) == len(bad) == len(split)
    assert 0 <= bad.min() <= good.max() <= 100
    assert good.mean() > bad.mean()
    with pytest.raises(UserError, match="was not trained on the word 'elephant'"):
        tokenizer(["a handwritten elephant"])


TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """(model, a file of its weights); open_clip knows the model as `tiny`, and as `tiny-quickgelu`."""
    known = {"tiny": TINY_CLIP, "tiny-quickgelu": TINY_CLIP | {"quick_gelu": True}}
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", known)
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CLIP).eval()
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "tiny.pt")
    return model, tmp_path / "tiny.pt"


def published_clip(name):
    return OpenClip(kind="open_clip", model=name, weights={"path": "x", "source": "y"})


def test_a_published_clip_scores_as_open_clip_does(published, tmp_path):
    model, source = published
    assert import_published(published_clip("tiny"), source, tmp_path / "out")["parameters"] > 0
    again, tokenizer, preprocess = load_published(tmp_path / "out")
    images = torch.randint(0, 256, (5, 48, 48, 3), generator=stream(0, "images"), dtype=torch.uint8).numpy()
    captions = ["a photo of a tench", "a photo of a goldfish"] * 2 + ["a photo of a tench"]
    scores = clip_scores(images, captions, again, tokenizer, preprocess)
    small = open_clip.transform.image_transform(32, is_train=False)  # resize, crop, and CLIP's mean and standard deviation
    with torch.no_grad():
        image = model.encode_image(torch.stack([small(Pil.fromarray(i)) for i in images]), normalize=True)
        text = model.encode_text(open_clip.tokenize(captions, context_length=20), normalize=True)
    assert scores.tolist() == pytest.approx((100 * (image * text).sum(1)).clamp(min=0).tolist(), rel=1e-5)


def test_a_published_clip_comes_as_safetensors_half_precision_or_folder(published, tmp_path):
    from safetensors.torch import save_file

    model, _ = published
    halved = {key: value.half() for key, value in model.state_dict().items()} | {
        "logit_scale": model.logit_scale.detach().half().reshape(1)
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(halved, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": preprocess}), encoding="utf-8")
    import_published(published_clip("tiny"), folder / "open_clip_model.safetensors", tmp_path / "a")
    import_published(published_clip("local-dir"), folder, tmp_path / "b")
    one, two = load_published(tmp_path / "a"), load_published(tmp_path / "b")
    for key, value in one[0].state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, two[0].state_dict()[key])
    black = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    assert one[2](black)[0, :, 0, 0].tolist() == pytest.approx(
        [-m / s for m, s in zip(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, strict=True)]
    )
    assert two[2](black)[0, :, 0, 0].tolist() == pytest.approx([-0.1, -0.2, -0.3])


def test_openai_weights_without_quickgelu_are_refused(published, tmp_path):
    model, _ = published
    torch.save(model.state_dict() | {"input_resolution": torch.tensor(32), "context_length": torch.tensor(20)}, tmp_path / "openai.pt")
    with pytest.raises(UserError, match="OpenAI's weights need QuickGELU"):
        import_published(published_clip("tiny"), tmp_path / "openai.pt", tmp_path / "out")
    assert import_published(published_clip("tiny-quickgelu"), tmp_path / "openai.pt", tmp_path / "out")["quick_gelu"]


def test_what_is_no_clip_is_refused_in_one_line(published, tmp_path):
    model, source = published

    def refused(name, path, match):
        with pytest.raises(UserError, match=match) as caught:
            import_published(published_clip(name), path, tmp_path / "out")
        assert "\n" not in str(caught.value)

    refused("tinny", source, "unknown open_clip model 'tinny', did you mean 'tiny'")
    refused("tiny", tmp_path, "a folder; set evaluation.clip.model to local-dir")
    refused("local-dir", source, "not a folder; name the architecture")
    refused("local-dir", tmp_path, "no readable open_clip_config.json")
    torch.save({key: value for key, value in model.state_dict().items() if key != "text_projection"}, tmp_path / "less.pt")
    refused("tiny", tmp_path / "less.pt", r"'text_projection' is nothing in the file, \(16, 16\) in the model")
    torch.save({"weights": Exception}, tmp_path / "objects.pt")
    refused("tiny", tmp_path / "objects.pt", r"objects\.pt: holds more than weights")
    for name in ("cut.pt", "cut.safetensors"):
        (tmp_path / name).write_bytes(source.read_bytes()[:1000])
        refused("tiny", tmp_path / name, "not a readable")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    refused("tiny", tmp_path / "script.pt", "a TorchScript archive, which is code")


@pytest.mark.parametrize("size", [1, 7, 64])
def test_features_do_not_depend_on_the_batch(study, built, monkeypatch, size):
    from harness.evaluation import features

    images = load_data(built.data, "train").images[:300]
    extract = Extractor(study, built.judge)
    whole = extract(images)  # in batches of 256
    monkeypatch.setattr(features, "BATCH", size)
    for name, parts in extract(images).items():
        assert (whole[name] - parts).norm() <= 1e-6 * whole[name].norm()


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 7, 9)])
def test_pooling_without_gradients_gives_the_same(shape):
    images = torch.randn(shape, generator=stream(0, "pooling"))
    images[0, 0, 2, 3] = float("nan")
    with torch.no_grad():
        assert torch.equal(Pooling()(images).nan_to_num(), torch.nn.functional.max_pool2d(images, 2).nan_to_num())
        assert Pooling()(images).isnan().sum() == 1
    images = torch.zeros(1, 1, 2, 2, requires_grad=True)
    Pooling()(images).sum().backward()
    assert images.grad.flatten().tolist() == [1, 0, 0, 0]  # the first of equals, as before


def test_judge_features_are_standardised(study, built):
    features = Extractor(study, built.judge)(load_data(built.data, "train").images)["features"]
    assert features.mean(0).abs().max() < 1e-3
    assert features.std(0).sub(1).abs().max() < 1e-3


def test_registers_cost_parameters_and_flops(study):
    plain, registers = cost_scores(study, "baseline"), cost_scores(study, "diffusion_registers")
    assert registers["parameters"] - plain["parameters"] == study.denoiser.registers.count * study.denoiser.width
    assert 1 < registers["gflops"] / plain["gflops"] < 1.3
