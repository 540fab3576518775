"""Weights from elsewhere: `.safetensors`, or `.pt` and `.pth` files read without executing anything in them."""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from harness.store.tensors import load_tensors
from harness.study.typed import UserError

CONTAINERS = ("ema", "model_ema1", "state_dict", "model", "module")  # where checkpoints keep their weights; averages first
PREFIXES = ("module.", "_orig_mod.", "net.", "decoder.")  # of every name, from wrappers: DDP, compile, JiT's and RAE's classes


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The weights of a foreign file, tensors of any shape by name, unwrapped; UserError if it cannot be read as weights alone."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return unwrapped(load_tensors(path, check=False)[0], path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path}: holds more than weights, so it is not opened; save its state_dict alone, or as safetensors") from None
    except Exception as error:  # of a damaged file torch raises nearly anything
        reason = (str(error).splitlines() or ["empty"])[0]
        raise UserError(f"{path}: not a readable checkpoint, truncated? ({reason})") from None
    return unwrapped(content, path)


def unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    """Weights, tensors of any shape by name, out of their containers, without a prefix that all names share."""
    while isinstance(content, dict) and (inner := next((content[k] for k in CONTAINERS if isinstance(content.get(k), dict)), None)):
        content = inner
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: no mapping of names to tensors, also not under {', '.join(CONTAINERS)}; is it a checkpoint?")
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in content)), None):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
    return content
