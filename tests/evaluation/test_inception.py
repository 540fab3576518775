"""torch-fidelity's Inception from a local file, with random weights and small inputs: the real file is not needed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from harness.commands.peers.images import random_inception
from harness.evaluation import features
from harness.evaluation.adm_batches import batch_statistics
from harness.evaluation.features import Extractor
from harness.evaluation.fid import fid
from harness.evaluation.inception_score import inception_score
from harness.evaluation.judge.stage import make_judge
from harness.evaluation.precision_recall import precision_recall
from harness.machine.device import set_up
from harness.machine.streams import stream
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.tensors import load_tensors
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge


@pytest.fixture(autouse=True)
def _small_inputs(monkeypatch):
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)


@pytest.fixture(scope="module")
def weights():
    set_up(1)
    return random_inception()


def study_with(layer=64, file="inception.pth"):
    section = {"kind": "inception", "features": layer, "weights": {"path": file, "source": "torch-fidelity's releases"}}
    changes = {"data": {"reference": 70}, "evaluation": {"judge": section, "kid_subset": 20, "reconstruction": layer == 64}}
    references = [] if layer == 64 else [{"name": "virtual", "file": {"path": "v.npz", "source": "ADM"}}]
    return parse_study(
        "inception",
        merge(
            merge(read_study("digits"), changes),
            {"evaluation": {"references": references}, "sampling": {"count": 4000, "guidance_search": None}},
        ),
    )


def imported(folder, study):
    """The stage `judge` over the asset in `folder`."""
    name = "evaluation.judge.weights"
    record_asset(study, name=name, assets=folder, out=folder / "records" / f"{name}.json")
    out = folder / "judge.safetensors"
    return make_judge(study, data=folder / "data", records=[folder / "records" / f"{name}.json"], state=folder / "state", out=out), out


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    torch.save(weights, folder / "inception.pth")
    return folder, imported(folder, study_with())[1]


def images_of(count, size=32):
    return torch.randint(0, 256, (count, size, size, 3), generator=stream(0, "images"), dtype=torch.uint8).numpy()


@pytest.mark.parametrize("layer", [64, 192, 768, 2048])
def test_features_are_those_of_torch_fidelity(made, layer):
    folder, path = made
    theirs = FeatureExtractorInceptionV3("theirs", [str(layer), "logits_unbiased"], feature_extractor_weights_path=_complete(folder))
    outputs = Extractor(study_with(layer), path)(images_of(3))
    wanted = theirs(torch.from_numpy(images_of(3)).permute(0, 3, 1, 2).contiguous())
    for ours, other in zip((outputs["features"], outputs["logits"]), wanted, strict=True):
        assert (ours - other).norm() <= 1e-6 * other.norm()
    assert outputs["features"].shape == (3, layer)
    assert outputs["logits"].shape == (3, 1008)
    assert outputs["features"].std() > 1e-3


def _complete(folder):
    """The file as torch-fidelity itself wants it."""
    tensors = torch.load(folder / "inception.pth", weights_only=True)
    names = [key.removesuffix("running_var") for key in tensors if key.endswith("running_var")]
    path = folder / "complete.pth"
    torch.save(tensors | {f"{name}num_batches_tracked": torch.tensor(0) for name in names}, path)
    return path


def test_the_inception_score_takes_logits_without_the_bias(made):
    """Its bias is left out in TensorFlow's graph; with it the score is another."""
    folder, path = made
    images = images_of(24)
    biased = FeatureExtractorInceptionV3("biased", ["logits"], feature_extractor_weights_path=_complete(folder))
    logits = Extractor(study_with(), path)(images)["logits"]
    bias = torch.load(folder / "inception.pth", weights_only=True)["fc.bias"]
    assert torch.allclose(logits + bias, biased(torch.from_numpy(images).permute(0, 3, 1, 2))[0], atol=1e-5)
    assert inception_score(logits, 20).value == isc_features_to_metric(logits)[KEY_METRIC_ISC_MEAN]


@settings(max_examples=5)
@given(st.integers(1, 6), st.integers(1, 6))
def test_features_do_not_depend_on_the_batch(made, count, size):
    """Reconstruction FIDs of RAE were reported to change with it."""
    extract, images = Extractor(study_with(), made[1]), images_of(count)
    whole = extract(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "BATCH", size)
        parts = extract([images[i] for i in range(count)])  # any sequence will do
    for name, values in whole.items():
        assert (values - parts[name]).norm() <= 1e-6 * values.norm()


def test_the_imported_judge_is_complete_and_its_source_is_recorded(made):
    path = made[1]
    tensors, _ = load_tensors(path)
    assert sum(key.endswith("num_batches_tracked") for key in tensors) == 94
    assert [name.split("/")[-1] for name in artifacts.meta(path)["inputs"]] == ["evaluation.judge.weights.json"]


def test_a_file_that_is_not_inception_is_refused_in_one_line(weights, tmp_path):
    def refused(content, match):
        torch.save(content, tmp_path / "inception.pth")
        with pytest.raises(UserError, match=match) as caught:
            imported(tmp_path, study_with())
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "judge.safetensors").exists()

    refused({key: value for key, value in weights.items() if key != "fc.bias"}, r"'fc.bias' is nothing in the file, \(1008,\) in the model")
    refused(weights | {"fc.bias": torch.zeros(1000)}, r"'fc.bias' is \(1000,\) in the file, \(1008,\) in the model")
    refused(weights | {"more": torch.zeros(1)}, r"'more' is \(1,\) in the file, nothing in the model")
    refused({"model": Exception}, r"holds more than weights \(.*Exception\), so it is not opened")
    refused([1, 2], "no mapping of names to tensors")


def test_a_truncated_file_is_refused_by_name(weights, tmp_path):
    torch.save(weights, tmp_path / "whole.pth")
    (tmp_path / "inception.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"inception\.pth: not a readable checkpoint, truncated"):
        imported(tmp_path, study_with())
    with pytest.raises(UserError, match="is missing: put it at"):
        imported(tmp_path, study_with(file="nowhere.pth"))


def test_references_and_scores_run_through_inception(made, tmp_path):
    """The whole of what a study with Inception compares: a reference batch, then samples against it."""
    extract, study = Extractor(study_with(), made[1]), study_with()
    shifted = np.clip(images_of(70, 16).astype(int) + 30, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "ref.npz", arr_0=shifted)
    reference = batch_statistics(study, "virtual", tmp_path / "ref.npz", "", extract)
    same, other = (extract(images)["features"] for images in (shifted, images_of(70, 16)))
    assert fid(same, reference)["fid"] == pytest.approx(0, abs=1e-6)
    assert {measured.value for measured in precision_recall(same, reference.features, 3, 20).values()} == {1.0}
    assert fid(other, reference)["fid"] > 100 * abs(fid(same, reference)["fid"])
