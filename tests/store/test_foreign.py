import pytest
import torch
from safetensors.torch import save_file

from harness.store import foreign
from harness.study.typed import UserError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


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


def test_safetensors_are_read(tmp_path):
    save_file({"decoder." + name: value for name, value in WEIGHTS.items()}, tmp_path / "x.safetensors")
    assert set(foreign.read_weights(tmp_path / "x.safetensors")) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "not a readable checkpoint"),
        (b"<!DOCTYPE html>", "holds more than weights"),
        ({"lr": 3.0}, "no mapping of names to tensors"),
        (torch.zeros(1), "no mapping of names to tensors"),
        ({"code": print}, "holds more than weights"),
    ],
)
def test_a_file_without_weights_alone_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=says) as refused:
        foreign.read_weights(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_truncated_file_is_refused(tmp_path, name):
    whole, path = tmp_path / f"whole-{name}", tmp_path / name
    many = {"a": torch.zeros(1000)}
    save_file(many, whole) if name.endswith("safetensors") else torch.save(many, whole)
    path.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UserError, match="not a readable"):
        foreign.read_weights(path)
