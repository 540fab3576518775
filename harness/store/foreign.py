"""Weights from elsewhere: safetensors, or files of `torch.save` read without executing anything in them, told by their first bytes."""

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from harness.store.containers import choose
from harness.study.typed import UserError, first_line

# what a model takes; integers only where it has some itself (tensors.check_weights)
READ = {torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.complex128, torch.bool} | {
    getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
}

# of classes, a file may have this one, which holds values: SiT's, REPA's and JiT's training scripts save their options as `args`
OPTIONS = [argparse.Namespace]

COUNTED = ("position_ids", "num_batches_tracked")  # buffers of whole numbers in towers and VAEs


def read_weights(path: Path | str, container: str | None = None) -> dict[str, Tensor]:
    """The weights of a foreign file, tensors of any shape by name, unwrapped; `container`: of several, the one that is meant.

    UserError if it cannot be read as weights alone, if several containers could be meant, or if a tensor is damaged or quantised.
    """
    return read_container(path, container)[0]


def read_container(path: Path | str, container: str | None = None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """As `read_weights`, and what to print and to record: the container that was taken, and the others with their numbers of tensors."""
    path = Path(path)
    tensors, name, others = choose(_content(path), path, container)
    for key, value in tensors.items():
        _check(key, value, path)
    return {key: value.detach() for key, value in tensors.items()}, {"container": name, "other_containers": others}


def read_entries(path: Path, names: Collection[str]) -> dict[str, Tensor | None]:
    """Of the mapping that a file holds, the entries of these names that it has: tensors, or None; others are not looked at.

    UserError if it cannot be read as weights alone, holds no mapping, or an entry is damaged or no tensor.
    """
    content, entries = _content(path), dict[str, Tensor | None]()
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a mapping of names to tensors")
    for name in names:
        if name in content:
            value = content[name]
            if value is not None and not isinstance(value, Tensor):
                raise UserError(f"{path}: '{name}' is a {type(value).__name__}, not a tensor")
            if value is not None:
                _check(name, value, path)
            entries[name] = value
    return entries


def check_folder(folder: Path) -> None:
    """UserError for a tensor that a library would cast without a word, or that is damaged, in a folder's safetensors."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, value in _safetensors(path).items():
            _check(name, value, path)
            if not (value.is_floating_point() or name.endswith(COUNTED)):
                raise UserError(f"{path}: '{name}' is {_type(value)}, not floating-point; quantised? Take unquantised weights")


def _content(path: Path) -> object:
    """What the file holds; a folder, or a file of a hub's cache without a suffix, is told by what it is."""
    if not path.is_file():
        raise UserError(f"{path}: {'a folder; name the file of weights in it' if path.is_dir() else 'no such file'}")
    with open(path, "rb") as file:
        first = file.read(9)
    if first[8:] == b"{" or (path.suffix == ".safetensors" and not first.startswith((b"PK", b"\x80"))):
        return _safetensors(path)
    if first and not first.startswith((b"PK", b"\x80")):
        raise UserError(f"{path}: neither safetensors nor a checkpoint of torch.save: it begins with {first!r}; get it again")
    return _checkpoint(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except Exception as error:  # of a damaged header the library raises errors of several kinds
        raise UserError(f"{path}: not a readable safetensors file, truncated? ({first_line(error)}); get it again") from None


def _checkpoint(path: Path) -> object:
    try:
        return load_values(path, OPTIONS)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(
            f"{path}: holds more than weights{what}, so it is not opened; save its state_dict alone, or as safetensors"
        ) from None
    except Exception as error:  # of a damaged file torch raises nearly anything
        raise UserError(f"{path}: not a readable checkpoint, truncated? ({first_line(error)}); get it again") from None


def load_values(path: Path, classes: list[Any]) -> object:
    """What torch.save wrote, of tensors, plain values and these `classes` alone; torch's own errors, and zipfile's of a wrong CRC-32."""
    _check_sums(path)
    # opened here, since torch goes by a name's suffix; warnings are of old formats, and of tensors that callers refuse
    with open(path, "rb") as file, warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(classes):
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_sums(path: Path) -> None:
    """Raises where a CRC-32 of a zip file is not its content's, which torch does not look at; 0 is written for none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.CRC:
                with archive.open(entry) as file:
                    while file.read(1 << 24):
                        pass


def _check(name: str, value: Tensor, path: Path) -> None:
    kind = "quantised" if value.is_quantized else "sparse" if value.layout != torch.strided else "without values" if value.is_meta else None
    if kind or value.dtype not in READ:
        raise UserError(f"{path}: '{name}' is {kind or _type(value)}; save it as float32, float16 or bfloat16")
    if wrong := value.numel() - int(torch.isfinite(value).sum()):
        raise UserError(f"{path}: '{name}' is not finite ({wrong} of {value.numel()} values); diverged or damaged, so it is not used")


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
