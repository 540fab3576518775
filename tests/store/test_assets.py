import os
import re
import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from harness.store import artifacts, asset_files, assets
from harness.store.assets import record_asset
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge

JUDGE = "evaluation.judge.weights"
ENCODER = "encoder.plain.weights"
TRAIN = "data.train"


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
    with pytest.raises(UserError, match="has changed since it was recorded; put back what was there, or delete"):
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
    record_asset(study, name=ENCODER, assets=tmp_path, out=tmp_path / "r.json")
    (folder / "README.md").write_text("more", encoding="utf-8")
    assert assets.look(ENCODER, study.assets[ENCODER], tmp_path).sha256 == status.sha256
    assert assets.locate(tmp_path / "r.json") == folder
    (folder / "config.json").write_text("[]", encoding="utf-8")  # what the weights are read with
    with pytest.raises(UserError, match=re.escape(f"{folder}/config.json has changed since it was recorded")):
        assets.locate(tmp_path / "r.json")


def test_a_folder_of_images_stands_for_its_names_and_contents(tmp_path):
    study = study_with()
    folder = tmp_path / "imagenet" / "train" / "n01440764"
    folder.mkdir(parents=True)
    (folder / "a.JPEG").write_bytes(b"123")
    first = assets.look("data.train", study.assets["data.train"], tmp_path)
    assert (first.state, first.bytes) == ("present", 3)
    (folder / "b.JPEG").write_bytes(b"1")
    second = assets.look("data.train", study.assets["data.train"], tmp_path)
    (folder / "b.JPEG").write_bytes(b"2")
    third = assets.look("data.train", study.assets["data.train"], tmp_path)
    assert len({first.sha256, second.sha256, third.sha256}) == 3
    (folder / ".b.JPEG").write_bytes(b"hidden")
    (tmp_path / "imagenet" / "train" / ".cache").mkdir()
    (tmp_path / "imagenet" / "train" / ".cache" / "c.JPEG").write_bytes(b"hidden")
    (folder / "round").symlink_to("..")  # a link into a folder that holds it
    assert assets.look("data.train", study.assets["data.train"], tmp_path).sha256 == third.sha256
    os.rename(os.fsencode(folder / "b.JPEG"), os.fsencode(folder) + b"/\xe9.JPEG")  # a name that is not UTF-8
    assert assets.look("data.train", study.assets["data.train"], tmp_path).sha256 not in (second.sha256, third.sha256)


# --------------------------------------------------------------------------------------------- what changes after recording


@pytest.fixture
def weights(tmp_path, judge):
    """The judge's weights, recorded."""
    study = study_with(sha256=None)
    record_asset(study, name=JUDGE, assets=tmp_path / "assets", out=tmp_path / "r.json")
    state = partial(assets.state_of, tmp_path / "r.json", JUDGE, study.assets[JUDGE])
    return SimpleNamespace(file=judge, record=tmp_path / "r.json", study=study, state=lambda root="assets": state(tmp_path / root))


@pytest.fixture
def images(tmp_path):
    """Two training images of one size, recorded."""
    study = study_with()
    folder = tmp_path / "imagenet" / "train"
    for name in ("cat/1.png", "dog/2.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(name.encode())
    record_asset(study, name=TRAIN, assets=tmp_path, out=tmp_path / "t.json")
    state = partial(assets.state_of, tmp_path / "t.json", TRAIN, study.assets[TRAIN])
    return SimpleNamespace(folder=folder, record=tmp_path / "t.json", study=study, state=lambda root=".": state(tmp_path / root))


def repaint(path, content, keep_time=False):
    """Other content of the same size, a second later or at the same time."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 10**9)))


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_file_of_the_same_size_is_not_the_one_that_was_recorded(weights, keep_time):
    assert assets.locate(weights.record) == weights.file
    repaint(weights.file, b"WEIGHTS", keep_time)
    with pytest.raises(UserError, match=re.escape(f"{weights.file} has changed since it was recorded")) as caught:
        assets.locate(weights.record)
    assert "\n" not in str(caught.value)


def test_a_repainted_image_is_refused_when_it_is_opened_and_before(images):
    kept = assets.Kept(images.record)
    assert kept.file("cat/1.png") == images.folder / "cat" / "1.png"
    repaint(images.folder / "cat" / "1.png", b"CAT/1.png")
    changed = re.escape(f"{images.folder}/cat/1.png has changed since it was recorded")
    with pytest.raises(UserError, match=changed):
        kept.file("cat/1.png")
    with pytest.raises(UserError, match=changed):
        assets.locate(images.record)
    assert kept.file("dog/2.png").name == "2.png"
    with pytest.raises(UserError, match=r"cat/3\.png is new since"):
        kept.file("cat/3.png")


def test_an_image_that_keeps_size_and_time_is_seen_where_all_is_hashed(images):
    repaint(images.folder / "cat" / "1.png", b"CAT/1.png", keep_time=True)
    assert assets.locate(images.record) == images.folder
    with pytest.raises(UserError, match=r"cat/1\.png has changed since"):
        assets.locate(images.record, anew=True)


def test_images_that_come_or_go_are_named(images):
    (images.folder / "dog" / "3.png").write_bytes(b"more")
    with pytest.raises(UserError, match=re.escape(f"{images.folder}/dog/3.png is new since it was recorded")):
        assets.locate(images.record)
    (images.folder / "cat" / "1.png").unlink()
    with pytest.raises(UserError, match=re.escape(f"{images.folder}/cat/1.png is gone since it was recorded")):
        assets.locate(images.record)


def test_touched_files_are_the_same(images, weights):
    for path in (weights.file, images.folder / "cat" / "1.png"):
        os.utime(path, ns=(0, 10**9))
    assert assets.locate(weights.record) == weights.file
    assert assets.locate(images.record) == images.folder
    assert assets.Kept(images.record).file("cat/1.png").exists()


def test_a_list_of_files_that_is_not_as_it_was_written_is_one_line(images):
    listing = images.record.with_name("t.json.files")
    listing.write_text(listing.read_text(encoding="utf-8").replace("cat", "cow"), encoding="utf-8")
    with pytest.raises(UserError, match=r"t.json.files: not as it was written; delete .*t.json and run") as caught:
        assets.Kept(images.record).file("cat/1.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recorded", ["weights", "images"])
def test_a_touch_or_a_copy_costs_one_hash_and_changes_no_param(tmp_path, request, monkeypatch, recorded):
    """The param of the rule that records an asset; another line there makes everything that stands on it run again."""
    asset = request.getfixturevalue(recorded)
    before, record = asset.state(), asset.record.read_bytes()
    path = asset.file if recorded == "weights" else asset.folder / "cat" / "1.png"
    os.utime(path, ns=(0, 10**9))
    assert asset.state() == before
    with monkeypatch.context() as patch:
        patch.setattr(asset_files, "sha256", None)  # it has been hashed
        assert asset.state() == before
        assert assets.Kept(asset.record).path.exists()
    shutil.copytree(tmp_path / "assets" if recorded == "weights" else tmp_path / "imagenet", tmp_path / "new" / "imagenet")
    root = "new/imagenet" if recorded == "weights" else "new"
    assert asset.state(root) == before
    assert tmp_path / "new" in assets.locate(asset.record).parents  # where it is now
    assert asset.record.read_bytes() == record
    shutil.rmtree(tmp_path / "new")
    assert asset.state(root) == before  # gone: what was made of it stands


@pytest.mark.parametrize("recorded", ["weights", "images"])
def test_another_content_is_another_param(request, recorded):
    asset = request.getfixturevalue(recorded)
    before = asset.state()
    path = asset.file if recorded == "weights" else asset.folder / "cat" / "1.png"
    content = path.read_bytes()
    repaint(path, content.upper() if content.islower() else content.lower())
    after = asset.state()
    assert after != before
    assert after == asset.state()  # nothing was recorded
    repaint(path, content)
    assert asset.state() == before
    assert asset.state("nowhere") == before


def test_the_wrong_file_is_refused_before_anything_runs(tmp_path, judge):
    study = study_with(sha256=artifacts.sha256(judge))
    record = tmp_path / "r.json"
    assert assets.state_of(record, JUDGE, study.assets[JUDGE], tmp_path / "nowhere") == ""
    record_asset(study, name=JUDGE, assets=tmp_path / "assets", out=record)
    repaint(judge, b"WEIGHTS")
    with pytest.raises(UserError, match=r"has sha256 [0-9a-f]{16}..., the study wants") as caught:
        assets.state_of(record, JUDGE, study.assets[JUDGE], tmp_path / "assets")
    assert "\n" not in str(caught.value)


def test_a_link_keeps_its_own_name(tmp_path, judge):
    """In the hub's cache files are links to blobs without a suffix."""
    blob = tmp_path / "blob"
    judge.rename(blob)
    judge.symlink_to(blob)
    study = study_with(sha256=None)
    record_asset(study, name=JUDGE, assets=tmp_path / "assets", out=tmp_path / "r.json")
    assert assets.locate(tmp_path / "r.json") == judge
    blob.write_bytes(b"WEIGHTS")
    with pytest.raises(UserError, match="has changed since"):
        assets.locate(tmp_path / "r.json")


def test_a_folder_that_cannot_be_looked_into_is_one_line(images, monkeypatch):
    def closed(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(asset_files.os, "scandir", closed)
    with pytest.raises(UserError, match=re.escape(f"{images.folder}: cannot be read: Permission denied")):
        record_asset(images.study, name=TRAIN, assets=images.folder.parents[1], out=images.record)


def test_a_file_that_changes_while_it_is_hashed_is_refused(judge):
    state = asset_files._state(judge.stat())
    judge.write_bytes(b"more weights")
    with pytest.raises(UserError, match="changes while it is read; wait until it is whole"):
        asset_files._sha256(str(judge), state)


def test_the_command_that_gets_an_asset_is_quoted(tmp_path):
    asset = study_with().assets[ENCODER]
    assert f"--local-dir '{tmp_path}/my assets/{asset.path}'" in assets.missing_line(ENCODER, asset, tmp_path / "my assets")


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
