import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import artifacts, config
from harness.config import UserError


def make(path, text="a result"):
    with artifacts.artifact(path, stage="test", module="harness.data", seed=1) as temporary:
        temporary.write_text(text)
    return path


def test_record_says_how_it_came_about(tmp_path):
    first = make(tmp_path / "first")
    with artifacts.artifact(tmp_path / "second", stage="test", module="harness.data", inputs=[first]) as temporary:
        temporary.write_text("another")
    record = artifacts.meta(tmp_path / "second")
    assert record["inputs"] == {str(first): artifacts.sha256(first)}
    assert set(record["provenance"]) == {"commit", "python", "versions", "device", "threads", "tf32"}
    assert record["code"] == artifacts.code_hash("harness.data")


def test_a_failed_stage_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), artifacts.artifact(tmp_path / "x", stage="test", module="harness.data") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old(tmp_path):
    path = make(tmp_path / "x")
    with pytest.raises(RuntimeError), artifacts.artifact(path, stage="test", module="harness.data") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.checked(path)
    assert path.read_text() == "a result"


@given(position=st.integers(0, 7), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused_by_name_and_hash(tmp_path_factory, position, bit):
    path = make(tmp_path_factory.mktemp("flip") / "x")
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x: corrupted or truncated: sha256 is [0-9a-f]{16}.*was recorded"):
        artifacts.checked(path)


def test_a_truncated_folder_is_refused(tmp_path):
    with artifacts.artifact(tmp_path / "folder", stage="test", module="harness.data") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("aaaa")
        (temporary / "b").write_text("bbbb")
    artifacts.checked(tmp_path / "folder")
    (tmp_path / "folder" / "b").unlink()
    with pytest.raises(UserError, match="corrupted or truncated"):
        artifacts.checked(tmp_path / "folder")


def test_missing_files_and_records(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        artifacts.checked(tmp_path / "none")
    (tmp_path / "bare").write_text("x")
    with pytest.raises(UserError, match=r"its record bare\.meta\.json is missing"):
        artifacts.checked(tmp_path / "bare")


def test_weights_of_another_architecture_are_named():
    with pytest.raises(UserError, match=r"'weight' is \(3, 2\) in the file, \(2, 2\) in the model"):
        artifacts.load_weights(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3).state_dict(), "x")
    with pytest.raises(UserError, match="'bias' is nothing in the file"):
        artifacts.load_weights(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False).state_dict(), "x")


def test_not_safetensors(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        artifacts.load_tensors(tmp_path / "x.safetensors", check=False)


STAGES = {
    "data": "harness.data",
    "latents": "harness.encode",
    "decoder": "harness.train.decoder",
    "denoiser": "harness.train.denoiser",
    "samples": "harness.sample",
    "scores": "harness.evaluate.scores",
    "outliers": "harness.evaluate.outliers",
    "table": "harness.report.table",
    "figures": "harness.report.figures",
}


@pytest.mark.parametrize(
    ("file", "rerun"),
    [
        ("evaluate/kid.py", {"scores"}),
        ("evaluate/clip_score.py", {"scores"}),
        ("report/table.py", {"table"}),
        ("models/flow.py", {"denoiser", "samples", "scores", "outliers"}),
        ("models/register_search.py", {"latents"}),
        ("models/planting.py", {"latents"}),
        ("cli.py", set()),
    ],
)
def test_a_changed_line_reruns_what_imports_it_and_no_more(tmp_path, monkeypatch, file, rerun):
    shutil.copytree(config.ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(artifacts, "ROOT", tmp_path)

    def hashes():
        artifacts.code_hash.cache_clear()
        return {stage: artifacts.code_hash(module) for stage, module in STAGES.items()}

    before = hashes()
    with open(tmp_path / "harness" / file, "a") as source:
        source.write("\n# changed\n")
    after = hashes()
    artifacts.code_hash.cache_clear()
    assert {stage for stage in STAGES if before[stage] != after[stage]} == rerun


def test_the_same_tensors_and_facts_are_the_same_bytes(tmp_path):
    """The library writes several metadata in an order that differs from call to call."""
    written = set()
    for number in range(12):
        artifacts.save_tensors(tmp_path / f"{number}", {"b": torch.ones(2), "a": torch.zeros(3)}, one=1, two=[2], three="3", four=None)
        written.add((tmp_path / f"{number}").read_bytes())
    assert len(written) == 1
    assert artifacts.load_tensors(tmp_path / "0", check=False)[1] == {"one": 1, "two": [2], "three": "3", "four": None}


def test_others_may_read_an_artifact(tmp_path):
    """safetensors creates its files for the owner alone; results on a shared disk are read by a group."""
    os.umask(0o022)
    with artifacts.artifact(tmp_path / "x.safetensors", stage="test", module="harness.artifacts") as path:
        artifacts.save_tensors(path, {"a": torch.zeros(1)})
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o644
