"""Golden files that are an npz: what is read of them, and that every score in them agrees."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.parity.base import Described, Format
from harness.parity.files import read
from harness.parity.registry import UNNAMED
from harness.parity.report import parity, parity_report
from harness.study.typed import UserError

DATA = Path(__file__).parents[1] / "data"
GOLDEN = sorted(DATA.glob("*.npz"))


def load(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def write(path, meta, arrays):
    np.savez(path, meta=np.array(meta if isinstance(meta, str) else json.dumps(meta)), **arrays)
    return path


def with_changed(meta, name, by):
    """`meta` with another number at this path; numbers of a list change all."""
    of = json.loads(json.dumps(meta))
    place, name = of["values"], name.removeprefix("values.")
    while name not in place:
        key = next(key for key in place if name.startswith(f"{key}."))
        place, name = place[key], name[len(key) + 1 :]
    place[name] = [by(value) for value in place[name]] if isinstance(place[name], list) else by(place[name])
    return of


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_agrees_with_the_programs(path):
    quantities = parity(path)
    assert quantities
    assert [quantity.name for quantity in quantities if not quantity.ok] == []
    assert any(not quantity.left_out for quantity in quantities)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_spoiled_value_is_found(path, tmp_path):
    meta, arrays = load(path)
    tensors = read(path).tensors
    names = [quantity.name for quantity in parity(path) if not quantity.left_out and tensors[quantity.name].numel()]
    for some in (names[::2], names[1::2]):
        values, spoiled = meta, dict(arrays)
        for name in some:
            if name in arrays:
                spoiled[name] = arrays[name] * (1 + 1e-4) if np.any(arrays[name]) else arrays[name] + 1
            else:
                values = with_changed(values, name, lambda value: value * (1 + 1e-4) if abs(value) > 1e-9 else 1.0)
        found = {quantity.name for quantity in parity(write(tmp_path / "spoiled.npz", values, spoiled)) if not quantity.ok}
        assert found == set(some)


# --------------------------------------------------------------------------------------------------------------- what is read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.npz"


@pytest.fixture
def toy(monkeypatch):
    """A format of two numbers: of `x`, its sum, and none of its mean."""

    def outputs(file, _config):
        (x,) = file.take("x")
        none = torch.empty(0, dtype=torch.float64)
        return {"values.deep.er.sum": x.sum(), "values.mean": none, "values.zero": x.sum() - 6 + 1e-9, "values.list": x}

    left_out = {"values.left.*": "not compared: a toy"}
    monkeypatch.setitem(UNNAMED, "x", Format(Described, outputs, inputs=("x",), left_out=left_out, sizes={"values.z*": 1.0}))
    values = {"deep": {"er": {"sum": 6, "remark": "a text"}}, "mean": None, "zero": 0.0, "list": [1, 2, 3], "left": {"one": 1, "two": 2}}
    return {"values": values}, {"x": np.array([1.0, 2, 3])}


def test_numbers_of_the_description_are_outputs_by_their_paths(toy, path):
    assert [(quantity.name, quantity.ok, quantity.left_out) for quantity in parity(write(path, *toy))] == [
        ("values.deep.er.sum", True, ""),
        ("values.left.one", True, "not compared: a toy"),
        ("values.left.two", True, "not compared: a toy"),
        ("values.list", True, ""),
        ("values.mean", True, ""),
        ("values.zero", True, ""),
    ]
    text, good = parity_report([path])
    assert good
    assert text.startswith(f"{path}: all 4 quantities below 1e-05\n")


def test_what_is_no_number_must_be_none_here(toy, path):
    meta, arrays = toy
    refused(write(path, with_changed(meta, "mean", lambda _none: 2.0), arrays), r"'values\.mean' is \(\) in the file, \(0,\) here")
    refused(write(path, with_changed(meta, "zero", lambda _none: None), arrays), r"'values\.zero' is \(0,\) in the file, \(\) here")


def test_a_value_that_vanishes_is_compared_by_its_size(toy, path):
    meta, arrays = toy
    arrays["x"] = arrays["x"] + 1e-3
    failed = [quantity for quantity in parity(write(path, meta, arrays)) if not quantity.ok]
    assert [quantity.name for quantity in failed] == ["values.deep.er.sum", "values.list", "values.zero"]
    assert failed[2].error == pytest.approx(3e-3, rel=1e-3)


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        parity(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_golden_file_is_one_line(toy, path):
    meta, arrays = toy
    refused(path, "no such file")
    path.write_bytes(b"nothing of the kind")
    refused(path, r"not a readable \.npz file")
    np.save(path.with_suffix(".npy"), arrays["x"])
    path.write_bytes(path.with_suffix(".npy").read_bytes())
    refused(path, r"not a readable \.npz file")
    whole = write(path, meta, arrays).read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refused(path, r"not a readable \.npz file")
    np.savez(path, **arrays)
    refused(path, "has no array 'meta'")
    for text in ("[1]", "[" * 200_000, "1" * 5000, "no JSON"):
        refused(write(path, text, arrays), "has no array 'meta'")
    refused(write(path, f'{{"values": {{"sum": 1{"0" * 400}}}}}', arrays), "a number is beyond float64")
    refused(write(path, '{"values": {"sum": NaN}}', arrays), r"'values\.sum' has values that are not finite")
    refused(write(path, {"values": 3}, arrays), "not computed here: values")
    refused(write(path, {}, arrays), "holds no outputs")
    refused(write(path, meta, {"y": arrays["x"]}), "its config names no model")


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([1, None], dtype=object), r"not a readable \.npz file \(Object arrays cannot be loaded"),
        (np.array(["a", "b"]), "'y' is <U1, which no golden file holds"),
        (np.zeros(2, dtype=[("a", "f4")]), "which no golden file holds"),
        (np.array([1, 2], dtype=">f4"), "'y' is >f4, which no golden file holds"),
        (np.array([1j]), "'y' is complex128, which no golden file holds"),
        (np.array([1.0, np.inf]), "'y' has values that are not finite"),
        (np.array([1.0, 2.0]), "not computed here: y"),
    ],
)
def test_arrays_that_no_golden_file_holds(toy, path, array, says):
    meta, arrays = toy
    refused(write(path, meta, arrays | {"y": array}), says)


def test_a_meta_that_is_pickled_is_not_read(toy, path):
    _, arrays = toy
    np.savez(path, meta=np.array({"values": {}}, dtype=object), **arrays)
    refused(path, r"not a readable \.npz file \(Object arrays cannot be loaded")


def test_a_file_that_lacks_an_input_of_its_format_says_so(path):
    meta, arrays = load(DATA / "mind.npz")
    del arrays["Y"]
    refused(write(path, meta, arrays), "has no 'Y', which its outputs are computed from")
    del meta["values"]["main"]["rng_seed"]
    refused(write(path, meta, arrays), r"its config: values\.main\.rng_seed")
