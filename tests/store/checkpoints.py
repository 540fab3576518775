"""Checkpoints as other people write them, and spoiled ones: over 500, always the same, each with what a reader may make of it."""

import argparse
import hashlib
import io
import os
import pickle
import random
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save

RIGHT, REFUSED, NEVER_OTHER, AS_WRITTEN = "right", "refused", "right or refused", "as written or refused"


@dataclass(frozen=True)
class Case:
    kind: str
    allowed: str  # what may come of it: the average's values; one line; either; or, without check sums, at most one other bit
    content: bytes | Callable[[], bytes] | Path  # a path: something that is no file of weights
    name: str = "x.pt"
    container: str | None = None
    sha256: str | None = None  # that the study names, of the file as it was


def exact(weights: dict, seed: int) -> dict:
    """Other values in their place, which float16, bfloat16 and float64 hold exactly."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randint(-127, 128, value.shape, generator=generator) / 64 for key, value in weights.items()}


def under(prefix: str, weights: dict) -> dict:
    return {prefix + key: value for key, value in weights.items()}


def inside(part: str, weights: dict) -> dict:
    """`part` after the first of each name, as where submodules are wrapped."""
    return {f"{first}.{part}.{rest}" if rest else first: value for key, value in weights.items() for first, _, rest in [key.partition(".")]}


def swa(weights: dict) -> dict:
    return {"n_averaged": torch.tensor(7), **under("module.", weights)}


NESTED = {  # containers, of the average and the raw weights; what torch.save takes
    "ema": lambda a, r: {"model": r, "ema": a, "opt": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}, "train_steps": 3},
    "args": lambda a, r: {"model": r, "ema": a, "args": argparse.Namespace(lr=1e-4, betas=(0.9, 0.999), model="XL/2"), "steps": 3},
    "model_ema": lambda a, r: {"model": r, "model_ema": a, "epoch": 3},
    "ema_model": lambda a, r: {"ema_model": a, "model": r},
    "state_dict_ema": lambda a, r: {"arch": "x", "state_dict": r, "state_dict_ema": a, "optimizer": {"exp_avg": r}, "metric": 0.1},
    "ema_state_dict": lambda a, r: {"state_dict": r, "ema_state_dict": a},
    "ModelEmaV3": lambda a, r: {"net": r, "ModelEmaV3": under("module.", a)},
    "averaged": lambda a, r: {"model": r, "averaged_model": a},
    "params_ema": lambda a, r: {"params": r, "params_ema": a},
    "ema.module": lambda a, r: {"model": r, "ema": {"module": a, "decay": 0.999}},
    "checkpoint.ema": lambda a, r: {"checkpoint": {"model": r, "ema": a}},
    "AveragedModel": lambda a, r: {"model": r, "swa_model": swa(a)},
    "Lightning, both": lambda a, r: {"state_dict": under("model.", r) | under("ema.", a), "callbacks": {"x": {"best": torch.tensor(1.0)}}},
    "DDT": lambda a, r: {"state_dict": under("denoiser.", r) | under("ema_denoiser.", a) | {"vae.q.w": torch.ones(2)}},
    "Lightning": lambda a, r: {"state_dict": under("model.", a), "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.5"},
    "state_dict": lambda a, r: {"epoch": 1, "state_dict": under("module.", a), "optimizer": {"exp_avg": r}},
    "model": lambda a, r: {"model": a, "ema": None, "scaler": {"scale": torch.ones(1)}, "rng_state": {"cpu": torch.ones(9)}},
    "params": lambda a, r: {"params": {"net": a}},
}
FLAT = {  # of one mapping; safetensors hold these, too
    "plain": lambda a, r: a,
    "side by side": lambda a, r: under("model.", r) | under("ema.", a),
    "side by side, averaged": lambda a, r: under("model.", r) | under("swa.", swa(a)),
    "beside the names": lambda a, r: r | under("ema.", a),
    "AveragedModel alone": lambda a, r: swa(a),
    "ema-pytorch": lambda a, r: {"initted": torch.tensor(True), **under("online_model.", r), **under("ema_model.", swa(a))},
    "all under ema": lambda a, r: under("ema.", a),
}
NAMED = {  # and the container that is asked for
    "model_ema1": lambda a, r: {"model": r, "model_ema1": a, "model_ema2": r},
    "model": lambda a, r: {"model": a, "ema": r},
    "0.9999": lambda a, r: {"model": r, "emas": {"0.9999": a, "0.999": r}},
    "teacher": lambda a, r: {"student": r, "teacher": a},
    "gan.generator": lambda a, r: {"gan": {"generator": a, "discriminator": r}},
    "denoiser": lambda a, r: {"state_dict": under("denoiser.", a) | under("vae.", r)},
}
WRAPPERS = {
    "": lambda w: w,
    "module.": lambda w: under("module.", w),
    "_orig_mod.": lambda w: under("_orig_mod.", w),
    "module._orig_mod.": lambda w: under("module._orig_mod.", w),
    "model.net.": lambda w: under("model.net.", w),
    "_orig_mod inside": lambda w: inside("_orig_mod", w),
    "module inside": lambda w: inside("module", w),
    "FSDP": lambda w: inside("_fsdp_wrapped_module", under("_fsdp_wrapped_module.", w)),
}
CASTS = {
    "float32": lambda x: x,
    "float16": torch.Tensor.half,
    "bfloat16": torch.Tensor.bfloat16,
    "float64": torch.Tensor.double,
    "Parameter": torch.nn.Parameter,
    "strided": lambda x: x.t().contiguous().t() if x.dim() == 2 else x,
}
DTYPES = ("int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")


def saved(content: object, how: str) -> bytes:
    """`zip`, `legacy`, `no sums` (zip) or `safetensors`."""
    if how.startswith("safetensors"):
        return save({key: value.contiguous() for key, value in content.items()}, {"format": "pt"} if how.endswith("metadata") else None)
    file = io.BytesIO()
    torch.serialization.set_crc32_options(how != "no sums")
    try:
        torch.save(content, file, _use_new_zipfile_serialization=how != "legacy")
    finally:
        torch.serialization.set_crc32_options(True)
    return file.getvalue()


def quantised(x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):  # torch is about to drop them; people's files stay
        return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)


def flip(data: bytes, bit: int) -> bytes:
    spoiled = bytearray(data)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


class Runs:
    """What `weights_only` must never call."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def cases(average: dict, raw: dict) -> Iterator[Case]:
    yield from _unusual(average, raw)
    yield from _damaged(average, raw)
    yield from _of_another_model(average)
    yield from _of_other_types(average)
    yield from _not_clear(average, raw)
    yield from _no_weights(average)


def _unusual(average: dict, raw: dict) -> Iterator[Case]:
    rng = random.Random(1)
    for name, put in {**NESTED, **FLAT}.items():
        for _ in range(9):
            wrapper, cast = rng.choice([*WRAPPERS]), rng.choice([*CASTS])
            how = rng.choice(["zip", "legacy", "no sums"] + ["safetensors", "safetensors with metadata"] * 2 * (name in FLAT))
            wrapped = {key: CASTS[cast](value) for key, value in WRAPPERS[wrapper](average).items()}
            file = rng.choice(["x.pt", "x.pth", "x.ckpt", "x.safetensors", "5f1c9ab"])
            yield Case(f"container {name}", RIGHT, partial(saved, OrderedDict(put(wrapped, raw)), how), file)
    for name, put in NAMED.items():
        for wrapper in ("", "module.", "_orig_mod inside"):
            yield Case("container that is named", RIGHT, partial(saved, put(WRAPPERS[wrapper](average), raw), "zip"), container=name)


def _damaged(average: dict, raw: dict) -> Iterator[Case]:
    rng = random.Random(2)
    for how in ("zip", "legacy", "no sums", "safetensors"):
        whole = saved(average if how == "safetensors" else {"model": raw, "ema": average}, how)
        for share in (0.0, 0.0001, 0.001, 0.01, *(rng.random() for _ in range(12)), 0.9999):
            yield Case(f"truncated {how}", REFUSED, whole[: int(share * len(whole))])
        for index in range(24):
            bit = rng.randrange(8 * (len(whole) if index % 2 else min(4000, len(whole))))  # half of them in names, shapes and types
            allowed = NEVER_OTHER if how == "zip" else AS_WRITTEN
            yield Case(f"flipped bit, {how}", allowed, flip(whole, bit))
        for _ in range(4):
            spoiled = flip(whole, rng.randrange(8 * len(whole)))
            yield Case("flipped bit, SHA-256 in the study", REFUSED, spoiled, sha256=hashlib.sha256(whole).hexdigest())
        for index in range(4):
            yield Case(f"garbage after it, {how}", NEVER_OTHER, whole + rng.randbytes(10**index))


def _of_another_model(average: dict) -> Iterator[Case]:
    names = [*average]
    for index in range(10):
        name, how = names[index * len(names) // 10], ("zip", "legacy", "safetensors")[index % 3]
        yield Case("a tensor more", REFUSED, partial(saved, average | {f"{name}.more": torch.ones(2)}, how))
        yield Case("a tensor less", REFUSED, partial(saved, {key: value for key, value in average.items() if key != name}, how))
        renamed = {f"other.{key}" if key == name else key: value for key, value in average.items()}
        yield Case("another name", REFUSED, partial(saved, renamed, how))
        yield Case("another shape", REFUSED, partial(saved, average | {name: torch.ones(3, *average[name].shape)}, how))


def _of_other_types(average: dict) -> Iterator[Case]:
    names, rng = [*average], random.Random(3)
    for value in (torch.nan, torch.inf, -torch.inf):
        for cast in ("float32", "float16", "bfloat16", "float64"):
            for how in ("zip", "legacy", "safetensors"):
                name = rng.choice(names)
                spoiled = CASTS[cast](average[name].clone())
                spoiled.view(-1)[rng.randrange(spoiled.numel())] = value
                content = average | {name: spoiled}
                yield Case(
                    f"not finite: {value}", REFUSED, partial(saved, content if how == "safetensors" else {"model_ema": content}, how)
                )
    for dtype in DTYPES:
        for how in ("zip", "legacy", "safetensors"):
            name = rng.choice(names)
            cast = average[name].abs().to(getattr(torch, dtype))
            content = average | {name: cast}
            yield Case(f"dtype {dtype}", REFUSED, partial(saved, content if how == "safetensors" else {"ema": content}, how))
    for kind, odd in {
        "sparse": lambda x: x.reshape(-1).to_sparse(),
        "meta": lambda x: x.to("meta"),
        "quantised": quantised,
        "list": lambda x: x.tolist(),
        "NumPy": lambda x: x.numpy(),
    }.items():
        for name in names[:3]:
            yield Case(f"tensor is {kind}", REFUSED, partial(saved, {"ema": average | {name: odd(average[name])}}, "zip"))


def _not_clear(average: dict, raw: dict) -> Iterator[Case]:
    for how in ("zip", "legacy", "no sums"):
        for content in (
            {"model": raw, "model_ema1": average, "model_ema2": raw},
            {"ema": {"0.9999": average, "0.999": raw}},
            {"student": raw, "teacher": average},
            {"gan": {"generator": average, "discriminator": raw}},
            {"state_dict": average, "current_model_state": raw},
            under("ema_a.", average) | under("ema_b.", raw),
        ):
            yield Case("several containers", REFUSED, partial(saved, content, how))
        for lost in ([*average.values()], {}, {"a": {"b": average}}, torch.cat([value.reshape(-1) for value in average.values()])):
            yield Case("average that cannot be read", REFUSED, partial(saved, {"model": raw, "ema": lost}, how))
        yield Case("container that is not there", REFUSED, partial(saved, {"model": raw, "ema": average}, how), container="model_ema")
        yield Case("two of one name", REFUSED, partial(saved, average | under("module.", raw), how))


def _no_weights(average: dict) -> Iterator[Case]:
    rng = random.Random(4)
    for content in (
        {"ema": average, "x": Runs()},
        {"ema": Runs()},
        Runs(),
        torch.nn.Linear(2, 2),
        {"args": SimpleNamespace(lr=1e-4), "ema": average},
        {"args": argparse.Namespace(hook=Runs()), "ema": average},
    ):
        for how in ("zip", "legacy"):
            yield Case("pickle with code", REFUSED, partial(saved, content, how))
        yield Case("plain pickle with code", REFUSED, pickle.dumps(content))
    yield Case("plain pickle", REFUSED, pickle.dumps({"a": np.ones(2)}))
    for content in ({}, {"ema": {}}, {"lr": 0.1}, [], [average], 3, None, torch.ones(3), {0: torch.ones(3)}, {"ema": {"a": 1}}):
        yield Case("nothing by name", REFUSED, partial(saved, content, "zip"))
    for data in (
        b"",
        b"\0",
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\3\4",
        b"\x80\2",
        b"{}",
        bytes(4096),
    ):
        yield Case("no checkpoint", REFUSED, data)
        yield Case("no checkpoint", REFUSED, data, "x.safetensors")
    for size in (9, 64, 1000, 10**5):
        yield Case("random bytes", REFUSED, rng.randbytes(size))
        yield Case("random header", REFUSED, (size // 2).to_bytes(8, "little") + b"{" + rng.randbytes(size))
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "text")
    yield Case("another zip", REFUSED, other.getvalue())
    script = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    yield Case("TorchScript", REFUSED, script.getvalue())
    for target in ("nowhere", "."):
        yield Case("no file", REFUSED, Path(target))
