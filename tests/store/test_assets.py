import pytest

from harness.store import artifacts, assets
from harness.store.assets import record_asset
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge

JUDGE = "evaluation.judge.weights"
ENCODER = "encoder.plain.weights"


def study_with(**changes):
    """The main study with the judge's weights of another sha256."""
    return parse_study("x", merge(read_study("imagenet256_siglip2_b"), {"evaluation": {"judge": {"weights": changes}}}))


@pytest.fixture
def judge(tmp_path):
    path = tmp_path / "assets" / "weights" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


def test_a_missing_asset_is_one_line_that_says_where_to_put_it_and_where_it_comes_from(tmp_path):
    with pytest.raises(UserError) as caught:
        record_asset(study_with(), name=JUDGE, assets=tmp_path, out=tmp_path / "r.json")
    assert str(caught.value) == (
        f"asset '{JUDGE}' is missing: put it at {tmp_path}/weights/weights-inception-2015-12-05-6726825d.pth "
        "(torch-fidelity's port of the TensorFlow Inception; github.com/toshas/torch-fidelity, releases)"
    )
    assert not (tmp_path / "r.json").exists()


def test_another_file_than_the_study_names_is_refused(tmp_path, judge):
    with pytest.raises(UserError, match=r"has sha256 [0-9a-f]{16}..., the study wants 6726825d") as caught:
        record_asset(study_with(), name=JUDGE, assets=tmp_path / "assets", out=tmp_path / "r.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("digits", [8, 64])
def test_the_right_file_is_verified_by_all_or_the_first_digits(tmp_path, judge, digits):
    printed = record_asset(
        study_with(sha256=artifacts.sha256(judge)[:digits]), name=JUDGE, assets=tmp_path / "assets", out=tmp_path / "r.json"
    )
    assert printed["state"] == "verified"
    assert printed["sha256"] == artifacts.sha256(judge)
    assert assets.locate(tmp_path / "r.json") == judge


def test_a_record_does_not_depend_on_where_the_asset_is(tmp_path, judge):
    study = study_with(sha256=None)
    record_asset(study, name=JUDGE, assets=tmp_path / "assets", out=tmp_path / "a.json")
    (tmp_path / "assets").rename(tmp_path / "moved")
    record_asset(study, name=JUDGE, assets=tmp_path / "moved", out=tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with pytest.raises(UserError, match="is no longer at"):
        assets.locate(tmp_path / "a.json")
    (tmp_path / "moved" / judge.relative_to(tmp_path / "assets")).write_bytes(b"other weights")
    with pytest.raises(UserError, match="has another size than when it was checked"):
        assets.locate(tmp_path / "b.json")


def test_a_folder_stands_for_the_file_that_the_study_names(tmp_path):
    folder = tmp_path / "encoders" / "siglip2-base-patch16-256"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    asset = read_study("imagenet256_siglip2_b")["encoder"]["plain"]["weights"]
    study = parse_study("x", merge(read_study("imagenet256_siglip2_b"), {"encoder": {"plain": {"weights": {"sha256": None}}}}))
    assert assets.look(ENCODER, study.assets[ENCODER], tmp_path).state == "missing"  # the folder is there, its weights are not
    (folder / asset["file"]).write_bytes(b"weights")
    status = assets.look(ENCODER, study.assets[ENCODER], tmp_path)
    assert status.sha256 == artifacts.sha256(folder / asset["file"])
    (folder / "README.md").write_text("more", encoding="utf-8")
    assert assets.look(ENCODER, study.assets[ENCODER], tmp_path).sha256 == status.sha256


def test_a_folder_of_images_stands_for_its_names_and_sizes(tmp_path):
    study = study_with()
    folder = tmp_path / "imagenet" / "train" / "n01440764"
    folder.mkdir(parents=True)
    (folder / "a.JPEG").write_bytes(b"123")
    first = assets.look("data.train", study.assets["data.train"], tmp_path)
    assert (first.state, first.bytes) == ("present", 3)
    (folder / "b.JPEG").write_bytes(b"1")
    assert assets.look("data.train", study.assets["data.train"], tmp_path).sha256 != first.sha256


def test_networks_of_decoder_losses_are_needed_only_where_a_decoder_is_trained():
    assert not [name for name in study_with().assets if name.startswith(("decoder.perceptual", "decoder.adversarial"))]
    dinov2 = parse_study("x", read_study("imagenet256_dinov2_b"))
    assert {"decoder.perceptual.vgg", "decoder.perceptual.heads", "decoder.adversarial.weights"} <= set(dinov2.assets)


def test_a_model_of_the_hub_is_taken_from_its_local_cache(tmp_path, monkeypatch):
    """Downloaded once by any tool, it need not be put into the assets folder; nothing is downloaded here."""
    study = parse_study("x", merge(read_study("imagenet256_siglip2_b"), {"encoder": {"plain": {"weights": {"sha256": None}}}}))
    asset, cache = study.assets[ENCODER], tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    with pytest.raises(UserError, match="hf download google/siglip2-base-patch16-256 --local-dir"):
        record_asset(study, name=ENCODER, assets=tmp_path / "assets", out=tmp_path / "r.json")
    model = cache / "models--google--siglip2-base-patch16-256"
    snapshot = model / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / asset.file).write_bytes(b"weights")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc", encoding="utf-8")
    record_asset(study, name=ENCODER, assets=tmp_path / "assets", out=tmp_path / "r.json")
    assert assets.locate(tmp_path / "r.json") == snapshot
    own = tmp_path / "assets" / asset.path
    own.mkdir(parents=True)
    assert assets.place(asset, tmp_path / "assets") == own  # what was put there goes first
