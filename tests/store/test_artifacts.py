import io
import os
from contextlib import redirect_stderr

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.store import artifacts
from harness.store.code import code_hash
from harness.store.tensors import load_checkpoint, load_tensors, load_weights, save_checkpoint, save_tensors
from harness.study.typed import UserError


def make(path, text="a result"):
    with artifacts.artifact(path, stage="test", module="harness.data.stage", seed=1) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def test_record_says_how_it_came_about(tmp_path):
    first = make(tmp_path / "first")
    with artifacts.artifact(tmp_path / "second", stage="test", module="harness.data.stage", inputs=[first]) as temporary:
        temporary.write_text("another", encoding="utf-8")
    record = artifacts.meta(tmp_path / "second")
    assert record["inputs"] == {str(first): artifacts.sha256(first)}
    assert set(record["provenance"]) == {"commit", "dirty", "python", "versions", "device", "threads", "tf32"}
    assert record["code"] == code_hash("harness.data.stage")


def test_a_failed_stage_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), artifacts.artifact(tmp_path / "x", stage="test", module="harness.data.stage") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old(tmp_path):
    path = make(tmp_path / "x")
    with pytest.raises(RuntimeError), artifacts.artifact(path, stage="test", module="harness.data.stage") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert artifacts.checked(path)
    assert path.read_text(encoding="utf-8") == "a result"


@given(position=st.integers(0, 7), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused_by_name_and_hash(tmp_path_factory, position, bit):
    path = make(tmp_path_factory.mktemp("flip") / "x")
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x: corrupted or truncated: sha256 is [0-9a-f]{16}.*was recorded"):
        artifacts.checked(path)


def test_a_truncated_folder_is_refused(tmp_path):
    with artifacts.artifact(tmp_path / "folder", stage="test", module="harness.data.stage") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("aaaa", encoding="utf-8")
        (temporary / "b").write_text("bbbb", encoding="utf-8")
    artifacts.checked(tmp_path / "folder")
    (tmp_path / "folder" / "b").unlink()
    with pytest.raises(UserError, match="corrupted or truncated"):
        artifacts.checked(tmp_path / "folder")


def test_missing_files_and_records(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        artifacts.checked(tmp_path / "none")
    (tmp_path / "bare").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"its record bare\.meta\.json is missing"):
        artifacts.checked(tmp_path / "bare")


def test_weights_of_another_architecture_are_named():
    with pytest.raises(UserError, match=r"'weight' is \(3, 2\) in the file, \(2, 2\) in the model"):
        load_weights(torch.nn.Linear(2, 2), torch.nn.Linear(2, 3).state_dict(), "x")
    with pytest.raises(UserError, match="'bias' is nothing in the file"):
        load_weights(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False).state_dict(), "x")


def test_not_safetensors(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_tensors(tmp_path / "x.safetensors", check=False)


def test_the_same_tensors_and_facts_are_the_same_bytes(tmp_path):
    """The library writes several metadata in an order that differs from call to call."""
    written = set()
    for number in range(12):
        save_tensors(tmp_path / f"{number}", {"b": torch.ones(2), "a": torch.zeros(3)}, one=1, two=[2], three="3", four=None)
        written.add((tmp_path / f"{number}").read_bytes())
    assert len(written) == 1
    assert load_tensors(tmp_path / "0", check=False)[1] == {"one": 1, "two": [2], "three": "3", "four": None}


def test_others_may_read_an_artifact(tmp_path):
    """safetensors creates its files for the owner alone; results on a shared disk are read by a group."""
    os.umask(0o022)
    with artifacts.artifact(tmp_path / "x.safetensors", stage="test", module="harness.store.artifacts") as path:
        save_tensors(path, {"a": torch.zeros(1)})
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_changed_record_is_refused(tmp_path):
    """It holds numbers that end in the table (the share of tokens that a mask filtered)."""
    sidecar = make(tmp_path / "x").with_name("x.meta.json")
    sidecar.write_text(sidecar.read_text(encoding="utf-8").replace('"seed": 1', '"seed": 2'), encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.meta\.json: not as it was written; delete it and .*/x, then"):
        artifacts.meta(tmp_path / "x")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"record"', "[" * 100_000, "9" * 5000, '{"sha256": NaN}', "\udcff"])
def test_what_is_no_record_is_refused(tmp_path, text):
    make(tmp_path / "x").with_name("x.meta.json").write_text(text, errors="surrogateescape", encoding="utf-8")
    with pytest.raises(UserError, match="not as it was written"):
        artifacts.checked(tmp_path / "x")


def test_records_give_back_what_json_can_hold(tmp_path):
    facts = {"counts": {10: 1, 9: 2}, "size": (1, 2), "share": 0.1, "nothing": float("inf")}
    with artifacts.artifact(tmp_path / "x", stage="test", module="harness.data.stage", **facts) as temporary:
        temporary.write_text("a result", encoding="utf-8")
    record = artifacts.meta(tmp_path / "x")
    assert [record[key] for key in facts] == [{"10": 1, "9": 2}, [1, 2], 0.1, float("inf")]


# ------------------------------------------------------------------------------------------------------------- checkpoints


TENSORS = {
    "weights": torch.arange(12.0).reshape(3, 4),
    "step": torch.tensor(3.0),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "none": torch.zeros(0),
    "mask": torch.tensor([True, False]),
}


def save(folder, step):
    save_checkpoint(folder, TENSORS | {"step": torch.tensor(float(step))}, step=step, note="é")


def loaded(folder):
    """The step of the checkpoint, after a look at all of it."""
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        return None
    tensors, facts = checkpoint
    wanted = TENSORS | {"step": torch.tensor(float(facts["step"]))}
    assert facts == {"step": facts["step"], "note": "é"}
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[key], wanted[key]) and tensors[key].dtype == wanted[key].dtype for key in wanted)
    return facts["step"]


def test_the_newest_checkpoint_is_loaded_and_the_one_before_is_kept(tmp_path):
    assert loaded(tmp_path / "not_there") is None
    for step in (1, 2, 3):
        save(tmp_path, step)
        assert loaded(tmp_path) == step
    (tmp_path / "checkpoint.safetensors").unlink()  # a kill between the two renames of the next save
    assert loaded(tmp_path) == 2
    save(tmp_path, 4)
    assert loaded(tmp_path) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.before.safetensors", "checkpoint.safetensors"]


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """(folder with the checkpoints of steps 1 and 2, the newest one, its bytes)."""
    folder = tmp_path_factory.mktemp("state")
    save(folder, 1)
    save(folder, 2)
    newest = folder / "checkpoint.safetensors"
    return folder, newest, newest.read_bytes()


def loaded_of(two_checkpoints, content):
    """The step that is loaded where the newest checkpoint holds `content`: 1 where that is spoiled, which is said, and set aside.

    Spoiled is what would be read as something else than was written: `loaded` compares all that is read. Content that differs and yet is
    read as it was written, such as another case of a hex digit in an escape of its JSON, is not.
    """
    folder, newest, _ = two_checkpoints
    aside = folder / "checkpoint.spoiled.safetensors"
    aside.unlink(missing_ok=True)
    newest.write_bytes(content)
    with redirect_stderr(io.StringIO()) as said:
        step = loaded(folder)
    lines = said.getvalue().splitlines()
    assert len(lines) == aside.exists() == (step == 1)
    assert all(line.startswith(f"{newest}: spoiled") for line in lines)
    return step


def flipped(content, at, bit):
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


@settings(max_examples=4 * settings.default.max_examples)
@given(place=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["flip", "cut", "zeros"]), bit=st.integers(0, 7))
def test_a_spoiled_checkpoint_is_set_aside_and_the_one_before_taken(two_checkpoints, place, how, bit):
    content = two_checkpoints[-1]
    at = int(place * len(content))
    if how == "flip":
        assert loaded_of(two_checkpoints, flipped(content, at, bit)) in (1, 2)
    else:
        spoiled = content[:at] + bytes(len(content) - at) * (how == "zeros")
        assert loaded_of(two_checkpoints, spoiled) == (2 if spoiled == content else 1)


@pytest.mark.slow
def test_of_all_bits_of_a_checkpoint_one_may_flip(two_checkpoints):
    content = two_checkpoints[-1]
    bits = [(at, bit) for at in range(len(content)) for bit in range(8)]
    read = [place for place in bits if loaded_of(two_checkpoints, flipped(content, *place)) == 2]
    assert read == [(content.index(b"u00e9") + 3, 5)]  # é with a capital E


def test_two_spoiled_checkpoints_mean_from_the_start(tmp_path, capfd):
    save(tmp_path, 1)
    save(tmp_path, 2)
    for path in list(tmp_path.iterdir()):
        path.write_bytes(path.read_bytes()[:-1])
    assert loaded(tmp_path) is None
    assert capfd.readouterr().err.count("set aside") == 2
    save(tmp_path, 3)
    assert loaded(tmp_path) == 3


def test_a_checkpoint_of_a_killed_process_leaves_no_temporary(tmp_path):
    (tmp_path / ".checkpoint.safetensors.1.tmp").write_text("half", encoding="utf-8")
    save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
