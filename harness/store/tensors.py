"""Tensors in files: safetensors with their record checked, checkpoints, and weights that must fit a model."""

import errno
import hashlib
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.store.artifacts import checked
from harness.store.files import atomic, remove_left_by_killed
from harness.study.typed import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")


def save_tensors(path: Path, tensors: dict[str, "Tensor"], **metadata: object) -> None:
    """`tensors` by name, of any shape and type, as safetensors with JSON metadata.

    That is under one name: the library writes several names in an order that differs from run to run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; the library writes a file for its owner alone
    try:
        save_file(tensors, path, {"harness": json.dumps(metadata, sort_keys=True)})
    except SafetensorError as error:  # the library hides the number of an I/O error
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None
    path.chmod(mode)


def load_tensors(path: Path | str, check: bool = True) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """(tensors by name, on the CPU; metadata) of a safetensors file; UserError if it is not the file that was recorded."""
    from safetensors import SafetensorError, safe_open

    if check:
        checked(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("harness", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, metadata if isinstance(metadata, dict) else {}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({_line(error)}); delete it and run the same command again") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


CHECKPOINT, BEFORE, SPOILED = (f"checkpoint{part}.safetensors" for part in ("", ".before", ".spoiled"))


def save_checkpoint(folder: Path | str, tensors: dict[str, "Tensor"], **facts: object) -> None:
    """Write `tensors` and `facts` (step=..., JSON values) as the checkpoint of `folder`, with their digest; the one before it stays."""
    current = Path(folder) / CHECKPOINT
    remove_left_by_killed(current)
    if current.exists():
        os.replace(current, current.with_name(BEFORE))  # before writing, so that two are on the disk, not three
    with atomic(current) as temporary:
        save_tensors(temporary, tensors, facts=facts, digest=_digest(tensors, facts))


def load_checkpoint(folder: Path | str, latest: int | None = None) -> tuple[dict[str, "Tensor"], dict[str, Any]] | None:
    """(tensors, facts) of the newest checkpoint of `folder` that is as it was written, of a step up to `latest`; None if there is none.

    A spoiled one is set aside, with a line on stderr: training goes on from the one before it, or starts again.
    """
    for path in (Path(folder) / CHECKPOINT, Path(folder) / BEFORE):
        try:
            tensors, metadata = load_tensors(path, check=False)
            if metadata.get("digest") == _digest(tensors, metadata.get("facts")):
                if latest is None or metadata["facts"]["step"] <= latest:
                    return tensors, metadata["facts"]
                continue
        except FileNotFoundError:
            continue
        except UserError:
            pass
        print(f"{path}: spoiled, so it is set aside as {SPOILED}; an earlier state is taken instead", file=sys.stderr, flush=True)
        with suppress(FileNotFoundError):  # another process of the same run was first
            os.replace(path, path.with_name(SPOILED))
    return None


def _digest(tensors: dict[str, "Tensor"], facts: object) -> str:
    """SHA-256 of tensors with their names, types and shapes, and of facts."""
    import torch

    content = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return content.hexdigest()


def check_weights(model: "nn.Module", tensors: dict[str, "Tensor"], path: Path | str) -> None:
    """UserError that names the first mismatch between a model's state and `tensors` by name, if there is one.

    In names, in shapes, or where the model has floating numbers and the file has others, which would be cast without a word.
    """
    own = model.state_dict()
    for name in [*own, *tensors]:
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            have = tuple(tensors[name].shape) if name in tensors else "nothing"
            want = tuple(own[name].shape) if name in own else "nothing"
            raise UserError(f"{path}: weights of another architecture: '{name}' is {have} in the file, {want} in the model")
        if own[name].is_floating_point() and not tensors[name].is_floating_point():
            there = str(tensors[name].dtype).removeprefix("torch.")
            raise UserError(f"{path}: '{name}' is {there} in the file, floating-point in the model; quantised? Take unquantised weights")


def load_weights(model: M, tensors: dict[str, "Tensor"], path: Path | str) -> M:
    """`model` with `tensors` as its weights, strictly; UserError that names the first mismatch."""
    check_weights(model, tensors, path)
    model.load_state_dict(tensors)
    return model
