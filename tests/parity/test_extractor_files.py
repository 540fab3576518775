"""`dsr parity` on what FDr6, FD-DINOv2 and CMMD feed their networks, and on FDr6's features: files that other projects' code made."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.parity.report import parity, parity_report
from harness.study.typed import UserError

DATA = Path(__file__).parents[1] / "data" / "extractors"
FILES = sorted(path for path in DATA.glob("*.npz") if path.name != "images.npz")
VITS = ("dinov2", "mae", "siglip", "clip")


def read(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def write(path, config, arrays):
    """With the images beside it."""
    np.savez(path, meta=json.dumps(config), **arrays)
    shutil.copy(DATA / "images.npz", path.with_name("images.npz"))
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_agrees_with_the_original(path):
    quantities = {quantity.name: quantity for quantity in parity(path)}
    outputs = {name for name in read(path)[1] if not name.startswith("state.")}
    assert outputs <= {*quantities} | {"X", "Y", "X_unit", "Y_unit"}
    assert max(quantity.error for quantity in quantities.values() if not quantity.left_out) < 1e-5
    left_out = {name.split(".")[0] if "inception" in name else name.split(".")[1] for name, one in quantities.items() if one.left_out}
    assert left_out <= {"fdr6_preprocess": {"inception_fdloss"}, "cmmd": {"embed_only", "embedding_stub"}}.get(path.stem, set())


def test_every_network_has_its_feature_compared_for_every_image():
    for name in ("convnext", *VITS):
        names = {quantity.name for quantity in parity(DATA / f"fdr6_{name}_tiny.npz")}
        images = ("img_40x52", "img_256x256", "img_200x150")
        assert {f"{image}.{of}" for image in images for of in ("feature", "feature_fdeval")} <= names
        assert (name in VITS) == ("img_40x52.tokens_first3_last" in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_spoiled_output_is_found(path, tmp_path):
    config, arrays = read(path)
    compared = [quantity.name for quantity in parity(path) if not quantity.left_out]
    names = [name for name in compared if name in arrays]
    for some in (names[::2], names[1::2]):
        moved = {name: arrays[name] + (1 if arrays[name].dtype.kind in "iu" else 1e-3 * (1 + abs(arrays[name]).max())) for name in some}
        moved = {name: value.astype(arrays[name].dtype) for name, value in moved.items()}
        spoiled = write(tmp_path / path.name, config, arrays | moved)
        assert {quantity.name for quantity in parity(spoiled) if not quantity.ok} == {*some}


@pytest.mark.parametrize("name", ["state.patch_embed.proj.weight", "state.pos_embed", "state.blocks.1.attn.qkv.bias", "state.norm.weight"])
def test_a_spoiled_weight_is_found(name, tmp_path):
    config, arrays = read(DATA / "fdr6_dinov2_tiny.npz")
    spoiled = write(tmp_path / "spoiled.npz", config, arrays | {name: arrays[name] * np.float32(1.01)})
    assert not any(quantity.ok for quantity in parity(spoiled) if quantity.name.endswith(".feature"))


def test_what_cannot_be_compared_is_one_line(tmp_path):
    def refused(match, changes, left_out=()):
        config, arrays = read(DATA / "fdr6_mae_tiny.npz")
        arrays = {key: value for key, value in arrays.items() if key not in left_out}
        path = write(tmp_path / "changed.npz", config | changes, arrays)
        with pytest.raises(UserError, match=match) as caught:
            parity(path)
        assert "\n" not in str(caught.value)

    shape = read(DATA / "fdr6_mae_tiny.npz")[0]["create_kwargs"]
    refused("unknown network of FDr6 'resnet18'", {"timm": "resnet18"})
    refused("create_kwargs.*checkpoint_path", {"create_kwargs": shape | {"checkpoint_path": "x.pth"}})
    refused(r"'blocks\.2\.norm1\.weight' is nothing in the file", {"create_kwargs": shape | {"depth": 3}})
    refused(r"'norm\.weight' is nothing in the file", {}, left_out=("state.norm.weight",))
    shutil.copy(DATA / "fdr6_mae_tiny.npz", tmp_path / "alone.npz")
    (tmp_path / "images.npz").unlink()
    text, agrees = parity_report([tmp_path / "alone.npz"])
    assert not agrees
    assert re.fullmatch(r"error: .*alone\.npz: .*images\.npz: no such file", text)
