"""A golden file: weights (`state.*`), inputs and outputs of someone's code.

A safetensors file with a `config` (JSON) in its metadata; or an npz without pickles whose array `meta` is the config, and whose numbers
below `values` there are outputs, too: {"values": {"main": {"float64": 8.97}}} is `values.main.float64`.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from harness.evaluation.adm_batches import readable
from harness.machine.device import device
from harness.store.tensors import load_weights
from harness.study.typed import UserError

Tensors = dict[str, Tensor]
M = TypeVar("M", bound=nn.Module)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class GoldenFile:
    """`config`: what the file says of its model; `tensors` by name, of any shape, on the device."""

    path: Path
    config: dict[str, Any]
    tensors: Tensors

    def take(self, *names: str) -> list[Tensor]:
        """These inputs, of any shape. UserError names the first that is missing."""
        for name in names:
            if name not in self.tensors:
                raise UserError(f"{self.path}: has no '{name}', which its outputs are computed from")
        return [self.tensors[name] for name in names]

    def has(self, start: str) -> bool:
        """Whether any tensor's name begins so."""
        return any(name.startswith(start) for name in self.tensors)

    def weights(self, prefix: str = "") -> Tensors:
        """Tensors, of any shape, below `state.<prefix>`, by the rest of their names."""
        start = f"state.{prefix}"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def load(self, model: M, prefix: str = "") -> M:
        """`model` with the weights below `state.<prefix>`, strictly, in evaluation and on the device. UserError names the first misfit."""
        return load_weights(model, self.weights(prefix), self.path).eval().to(device())


def read(path: Path) -> GoldenFile:
    """Raises UserError for what is no such file, and for a tensor of another dtype or with a value that is not finite."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    config, tensors = _npz(path) if path.suffix == ".npz" else _safetensors(path)
    for name, value in tensors.items():
        if value.is_complex() or (value.is_floating_point() and value.dtype not in FLOATS):
            raise UserError(f"{path}: '{name}' is {str(value.dtype).removeprefix('torch.')}, which no golden file holds")
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: '{name}' has values that are not finite; nothing can be compared with them")
    return GoldenFile(path, config, {name: value.to(device()) for name, value in tensors.items()})


def _safetensors(path: Path) -> tuple[dict[str, Any], Tensors]:
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("config", "")
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    return _config(text, f"{path}: its metadata has no 'config' (JSON) with the shapes; weights alone cannot be compared"), tensors


def _npz(path: Path) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {}
    with readable(path), zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    missing = f"{path}: has no array 'meta' (JSON) that says what is in it; arrays alone cannot be compared"
    config = _config(str(arrays.pop("meta", "")), missing)
    for name, array in arrays.items():
        try:
            tensors[name] = torch.from_numpy(array)
        except (TypeError, ValueError):  # texts, records, numbers in the other byte order
            raise UserError(f"{path}: '{name}' is {array.dtype}, which no golden file holds") from None
    try:
        return config, tensors | dict(_numbers(config.get("values"), "values"))
    except OverflowError:
        raise UserError(f"{path}: its meta: values: a number is beyond float64") from None


def _config(text: str, missing: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of too many digits, or too many brackets
        config = None
    if not isinstance(config, dict):
        raise UserError(missing)
    return config


def _numbers(values: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Numbers, lists of numbers, and as an empty one what is null, by their paths. Texts are remarks."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _numbers(value, f"{name}.{key}")
    elif values is None and "." in name:
        yield name, torch.empty(0, dtype=torch.float64)
    elif isinstance(values, int | float) or (isinstance(values, list) and all(isinstance(value, int | float) for value in values)):
        numbers = [float(value) for value in values] if isinstance(values, list) else float(values)
        yield name, torch.tensor(numbers, dtype=torch.float64)
