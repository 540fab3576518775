"""`dsr models`, and the list of published files that it and `dsr fetch` read."""

import hashlib
import json
import sys

import pytest
import yaml

from harness.cli import main as cli
from harness.commands.fetch.needs import record_file
from harness.commands.models import models
from harness.store import published as lists
from harness.store.assets import record_asset
from harness.store.published import publication_of, published
from harness.study.sections.asset import Asset
from harness.study.study import load_study, parse_study, read_study, study_names
from harness.study.typed import UserError, merge

JUDGE = "weights/weights-inception-2015-12-05-6726825d.pth"
CLIP = "weights/clip_vit_large_patch14_224_openai.safetensors"


def dsr(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["dsr", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, *capsys.readouterr()


def assets_of_studies():
    return [asset for name in study_names() for asset in load_study(name).assets.values()]


# ------------------------------------------------------------------------------------------------------------------- the list


def test_every_asset_of_a_study_is_at_an_address_or_told_how_to_get():
    without = {asset.path for asset in assets_of_studies() if publication_of(asset) is None}
    assert without == set()


def test_the_list_and_the_studies_say_each_fact_once_and_agree():
    for asset in assets_of_studies():
        entry = published().get(asset.path)
        assert not (entry and asset.hub), asset.path  # repository and file stand in the study
        if entry:
            assert not (entry.bytes and asset.bytes), asset.path
            assert not (entry.sha256 and asset.sha256), asset.path
            said = asset.source.replace("DSR release", "a-little-hoof/DSR")
            if entry.hub:
                assert entry.hub in said
                assert entry.file in said
            elif entry.by_hand and entry.file:
                assert entry.file.partition("/")[2] in said
            elif entry.url and "https://" in said:
                assert entry.url in said


def test_every_entry_says_who_says_so_and_one_place():
    for path, entry in published().items():
        assert entry.stated_by, path
        assert (entry.address is None) == (entry.instruction is not None), path
        assert entry.address is None or entry.host, path


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"what": "x", "stated_by": "y"}, "say one of: hub with file, url, by_hand"),
        ({"what": "x", "stated_by": "y", "hub": "a/b"}, "say one of"),
        ({"what": "x", "stated_by": "y", "hub": "a/b", "file": "c", "url": "https://d/e"}, "say one of"),
        ({"what": "x", "url": "https://d/e"}, "stated_by"),
        ({"what": "x", "stated_by": "y", "url": "file:///etc/passwd"}, "url"),
    ],
)
def test_an_entry_that_is_none_is_one_line(monkeypatch, tmp_path, entry, match):
    (tmp_path / "list.yaml").write_text(yaml.safe_dump({"weights/x.pt": entry}), encoding="utf-8")
    monkeypatch.setattr(lists, "LIST", tmp_path / "list.yaml")
    published.cache_clear()
    with pytest.raises(UserError, match=match) as caught:
        published()
    assert str(caught.value).startswith(f"{tmp_path}/list.yaml: weights/x.pt: ")
    published.cache_clear()


@pytest.mark.parametrize("path", ["/weights/x.pt", "../x.pt"])
def test_a_path_outside_of_the_assets_is_refused(monkeypatch, tmp_path, path):
    (tmp_path / "list.yaml").write_text(yaml.safe_dump({path: {"what": "x", "stated_by": "y", "by_hand": "z"}}), encoding="utf-8")
    monkeypatch.setattr(lists, "LIST", tmp_path / "list.yaml")
    published.cache_clear()
    with pytest.raises(UserError, match="is no path below the assets folder"):
        published()
    published.cache_clear()


def test_what_a_study_states_counts_before_the_list():
    asset = Asset(path=JUDGE, source="mine", sha256="0" * 64, bytes=7)
    entry = publication_of(asset)
    assert (entry.sha256, entry.bytes, entry.url) == ("0" * 64, 7, published()[JUDGE].url)
    assert publication_of(Asset(path="mine.pt", source="mine")) is None


# ----------------------------------------------------------------------------------------------------------------- the command


def test_all_that_is_known_is_listed(tmp_path):
    entries = models(None, root=tmp_path, check=False, results=tmp_path)
    paths = [entry["path"] for entry in entries]
    assert {asset.path for asset in assets_of_studies()} | {*published()} == {*paths}
    assert len(paths) == len(set(paths))
    by_path = {entry["path"]: entry for entry in entries}
    inception = by_path[JUDGE]
    assert inception["host"] == "github.com"
    assert inception["bytes"] == 95628359
    assert inception["studies"]["imagenet256_siglip2_b"] == ["evaluation.judge.weights"]
    assert inception["put_at"] == str(tmp_path / JUDGE)
    assert (by_path[CLIP]["bytes"], by_path[CLIP]["sha256"]) == (None, None)
    encoder = by_path["encoders/dinov2-base"]
    assert (encoder["host"], encoder["repository"], encoder["file"]) == ("huggingface.co", "facebook/dinov2-base", "model.safetensors")
    assert by_path["denoisers/dsr_dit_xl_siglip2_b.pt"]["studies"] == {"published_dsr": ["denoiser.released.baseline"]}
    assert by_path["denoisers/lightningdit_xl_64ep.pt"]["studies"] == {}
    assert "image-net.org" in by_path["imagenet/train"]["by_hand"]
    assert {entry["state"] for entry in entries} == {"missing"}


def test_what_is_here_is_told_with_its_hash(monkeypatch, capsys, tmp_path):
    """Right, wrong, and without one that anybody states: before its first use, and after."""
    monkeypatch.chdir(tmp_path)
    content = b"weights"
    (tmp_path / "studies").mkdir()
    judge = {"evaluation": {"judge": {"weights": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}}}
    values = merge(read_study("imagenet256_siglip2_b"), judge)
    (tmp_path / "studies" / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.setattr("harness.study.study.STUDIES", tmp_path / "studies")

    def here(path):
        code, out, _ = dsr(monkeypatch, capsys, "models", "--study", "mine", "--json")
        assert code == 0
        return next((entry["here"], entry["recorded"]) for entry in json.loads(out) if entry["path"] == path)

    assert here(JUDGE) == ("not here", {})
    for path in (JUDGE, CLIP):
        (tmp_path / "assets" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "assets" / path).write_bytes(content)
    assert here(JUDGE) == ("here, and its sha256 is right", {})
    assert here(CLIP) == ("here; no sha256 is stated, its first use records it", {})
    name, study = "evaluation.clip.weights", parse_study("mine", values)
    record = record_file("mine", name, tmp_path / "results")
    record.parent.mkdir(parents=True)
    record_asset(study, name=name, assets=tmp_path / "assets", out=record)
    assert here(CLIP)[1] == {"mine": hashlib.sha256(content).hexdigest()}
    (tmp_path / "assets" / JUDGE).write_bytes(b"WEIGHTS")
    assert here(JUDGE)[0].startswith("here, but another file: its sha256 is ")
    _, out, _ = dsr(monkeypatch, capsys, "models", "--study", "mine")
    assert f"recorded as {hashlib.sha256(content).hexdigest()[:12]}... by study mine" in out
    assert "another file" in out


def test_it_is_printed_for_people_without_the_network(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked for an address"))
    code, out, err = dsr(monkeypatch, capsys, "models")
    assert (code, err) == (0, "")
    for told in (
        JUDGE,
        "size     95.6 MB; sha256 6726825d0af5f729",
        "size     unknown; sha256 unknown",
        f"put at   assets/{CLIP}: not here",
        "(so says torch-fidelity 0.4.0, feature_extractor_inceptionv3.py)",
        "by hand  open the folder of Google Drive",
    ):
        assert told in out
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_is_one_line(monkeypatch, capsys):
    code, _, err = dsr(monkeypatch, capsys, "models", "--study", "imagenet256_siglip2")
    assert code == 2
    assert err.count("\n") == 1
    assert "did you mean 'imagenet256_siglip2_b'" in err


def test_a_study_that_cannot_be_read_is_left_out_and_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("harness.study.study.STUDIES", tmp_path)
    (tmp_path / "mine.yaml").write_text("title: nothing else\n", encoding="utf-8")
    entries = models(None, root=tmp_path, check=False, results=tmp_path)
    assert {entry["path"] for entry in entries} == {*published()}
    assert capsys.readouterr().err.startswith("left out: study 'mine': ")
