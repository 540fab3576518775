import argparse
import os
import re
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from harness.store import assets, foreign
from harness.store.tensors import load_weights
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Options(argparse.Namespace):
    """Not the class itself."""


class Executed:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"ema": WEIGHTS, "model": {"other": torch.zeros(1)}, "epoch": 3},
        {"model": {"module." + name: value for name, value in WEIGHTS.items()}},
        {"state_dict": {"_orig_mod.net." + name: value for name, value in WEIGHTS.items()}},
        {"model": {"x": torch.zeros(1)}, "model_ema1": {"net." + name: value for name, value in WEIGHTS.items()}},
    ],
)
def test_weights_come_out_of_their_containers_and_prefixes(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    weights = foreign.read_weights(tmp_path / "x.pt")
    assert set(weights) == set(WEIGHTS)
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def checkpoint(folder, content, name="x.pt", **options):
    torch.save(content, folder / name, **options)
    return folder / name


def test_safetensors_are_read(tmp_path):
    save_file({"decoder." + name: value for name, value in WEIGHTS.items()}, tmp_path / "x.safetensors")
    assert set(foreign.read_weights(tmp_path / "x.safetensors")) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "not a readable checkpoint"),
        (b"<!DOCTYPE html>", "begins with"),
        (b"version https://git-lfs", "begins with"),
        ({"lr": 3.0}, "no mapping of names to tensors"),
        (torch.zeros(1), "no mapping of names to tensors"),
        ({"code": print}, r"holds more than weights \(.*print\), so it is not opened"),
        ({"ema": WEIGHTS, "args": SimpleNamespace(lr=3.0)}, r"holds more than weights \(types.SimpleNamespace\), so it is not opened"),
        ({"ema": WEIGHTS, "args": argparse.Namespace(out=PurePosixPath("runs"))}, r"holds more than weights \(pathlib.*PurePosixPath\)"),
        ({"ema": WEIGHTS, "args": argparse.Namespace(hook=Executed())}, r"holds more than weights \(.*mkdir\), so it is not opened"),
        ({"ema": WEIGHTS, "args": Options(lr=3.0)}, r"holds more than weights \(.*Options\), so it is not opened"),
    ],
)
def test_a_file_without_weights_alone_is_refused_in_one_line(tmp_path, monkeypatch, content, says):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=says) as refused:
        foreign.read_weights(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before  # nothing was executed


@pytest.mark.parametrize("old", [False, True])
def test_options_of_a_training_script_beside_the_weights_are_read_past(tmp_path, old):
    options = argparse.Namespace(lr=3.0, ema={"decay": torch.ones(3)}, model=WEIGHTS, nested=argparse.Namespace(a=[1, None]))
    content = {"model": {"a.weight": torch.zeros(1)}, "ema": WEIGHTS, "args": options}
    weights, taken = foreign.read_container(checkpoint(tmp_path, content, _use_new_zipfile_serialization=not old))
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS | weights)
    assert taken == {"container": "ema", "other_containers": {"model": 1}}
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # for this one reading alone


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_truncated_file_is_refused(tmp_path, name):
    whole, path = tmp_path / f"whole-{name}", tmp_path / name
    many = {"a": torch.zeros(1000)}
    save_file(many, whole) if name.endswith("safetensors") else torch.save(many, whole)
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UserError, match="not a readable"):
        foreign.read_weights(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"harness": "not JSON"}])
@pytest.mark.parametrize("name", ["blob", "x.safetensors", "x.pt"])
def test_safetensors_are_told_by_their_first_bytes(tmp_path, name, metadata):
    save_file(WEIGHTS, tmp_path / name, metadata)
    assert torch.equal(foreign.read_weights(tmp_path / name)["a.weight"], WEIGHTS["a.weight"])


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_is_told_by_its_first_bytes(tmp_path, old):
    path = checkpoint(tmp_path, {"ema": WEIGHTS}, "x.safetensors", _use_new_zipfile_serialization=not old)
    assert torch.equal(foreign.read_weights(path)["a.weight"], WEIGHTS["a.weight"])


def test_a_link_into_a_hubs_cache_is_read_and_recorded_as_found(tmp_path):
    (tmp_path / "blobs").mkdir()
    save_file(WEIGHTS, tmp_path / "blobs" / "0f3a")
    judge = tmp_path / "assets" / "judge.safetensors"
    judge.parent.mkdir()
    judge.symlink_to(tmp_path / "blobs" / "0f3a")
    weights = {"path": judge.name, "source": "x", "sha256": None}
    study = parse_study("linked", merge(read_study("imagenet256_siglip2_b"), {"evaluation": {"judge": {"weights": weights}}}))
    assets.record_asset(study, name="evaluation.judge.weights", assets=judge.parent, out=tmp_path / "judge.json")
    assert assets.locate(tmp_path / "judge.json") == judge
    assert torch.equal(foreign.read_weights(judge)["a.weight"], WEIGHTS["a.weight"])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.tensor([1.0, torch.nan]), "'b' is not finite (1 of 2 values)"),
        (torch.tensor([torch.inf], dtype=torch.bfloat16), "'b' is not finite (1 of 1 values)"),
        (torch.ones(2).to(torch.float8_e4m3fn), "'b' is float8_e4m3fn"),
        (torch.ones(2, 2).to_sparse(), "'b' is sparse"),
        (torch.ones(2, device="meta"), "'b' is without values"),
    ],
)
def test_weights_that_no_model_can_have_are_refused_by_name(tmp_path, value, says):
    with pytest.raises(UserError, match=re.escape(says)):
        foreign.read_weights(checkpoint(tmp_path, {"ema": {"a": torch.ones(2), "b": value}}))


def test_whole_numbers_are_refused_where_the_model_has_floating_ones(tmp_path):
    model = torch.nn.BatchNorm1d(2)
    right = model.state_dict() | {"weight": torch.tensor([2.0, 3.0], dtype=torch.bfloat16)}
    load_weights(model, foreign.read_weights(checkpoint(tmp_path, right)), "x")  # its counter is a whole number in both
    assert model.weight.tolist() == [2.0, 3.0]
    with pytest.raises(UserError, match="'weight' is int8 in the file, floating-point in the model"):
        load_weights(model, foreign.read_weights(checkpoint(tmp_path, right | {"weight": torch.ones(2, dtype=torch.int8)})), "x")


@pytest.mark.parametrize(("dtype", "says"), [(torch.int8, "is int8, not"), (torch.float8_e5m2, "is float8_e5m2"), (torch.int64, None)])
def test_the_safetensors_of_a_folder_are_looked_at(tmp_path, dtype, says):
    counted = {"position_ids": torch.arange(3)} if says is None else {"weight": torch.ones(3).to(dtype)}
    save_file(WEIGHTS | counted, tmp_path / "model.safetensors")
    if says is None:
        foreign.check_folder(tmp_path)
    else:
        with pytest.raises(UserError, match=f"model.safetensors: 'weight' {says}"):
            foreign.check_folder(tmp_path)


def test_a_flipped_bit_in_a_checkpoint_is_found_where_the_file_has_check_sums(tmp_path):
    path = checkpoint(tmp_path, WEIGHTS)
    spoiled = bytearray(path.read_bytes())
    spoiled[spoiled.find(WEIGHTS["a.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(spoiled)
    with pytest.raises(UserError, match=r"not a readable checkpoint.*CRC"):
        foreign.read_weights(path)


def test_a_checkpoint_without_check_sums_is_read(tmp_path):
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        path = checkpoint(tmp_path, WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    assert torch.equal(foreign.read_weights(path)["a.weight"], WEIGHTS["a.weight"])


def test_what_was_taken_is_told_with_what_else_is_there(tmp_path):
    path = checkpoint(tmp_path, {"model": {"x": torch.zeros(1)}, "model_ema": WEIGHTS})
    assert foreign.read_container(path)[1] == {"container": "model_ema", "other_containers": {"model": 1}}
    assert foreign.read_container(checkpoint(tmp_path, WEIGHTS))[1] == {"container": ".", "other_containers": {}}
