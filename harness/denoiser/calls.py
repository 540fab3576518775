"""What sampling really called: how often the network, and at which times, as the network saw it."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.results.views import OF_FILE
from harness.study.typed import UserError

Make = Callable[[range], dict[str, np.ndarray]]


@contextmanager
def times_of_calls(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The time, (), of every call of `model` within, in order. Models are called with (x, t, labels)."""
    times: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(lambda _model, given: times.append(given[1].flatten()[0].detach()))
    try:
        yield times
    finally:
        hook.remove()


def with_times(model: nn.Module, make: Make) -> Make:
    """`make` with one array more, `times` (B, calls) float64: those of the calls of `model`, the same for every image."""

    def made(indices: range) -> dict[str, np.ndarray]:
        with times_of_calls(model) as times:
            arrays = make(indices)
        row = torch.stack(times).double().cpu().numpy() if times else np.zeros(0)
        return arrays | {"times": np.tile(row, (len(indices), 1))}

    return made


def file_of(denoiser: dict[str, Any]) -> str:
    """Which published file weights are from, by their record: file, sha256, container. UserError where the record is another's."""
    try:
        file, sha256, container = (denoiser[field] for field in ("checkpoint", "checkpoint_sha256", "container"))
    except KeyError as error:
        raise UserError(f"the record of published weights has no {error}; delete them and run the same command again") from None
    return f"{OF_FILE}{file} (sha256 {sha256}, container {container})"


def in_words(times: np.ndarray, average: float | None, file: str | None = None) -> str:
    """What samples were drawn with, of times (N, calls): the same words for the same times, to 1e-6 (another device rounds otherwise).

    `average`: decay that the training averaged the weights with in its last step; None: it is not known. `file`: of published weights, in
    the words of `file_of`, after those of the sampler. UserError where images differ.
    """
    rounded = np.round(times, 6) + 0.0
    if len(rounded) and (rounded != rounded[0]).any():
        raise UserError("samples of one file were drawn at different times; delete the file and its state, and run the same command again")
    row = rounded[0] if len(rounded) else np.zeros(0)
    called = f"{len(row)} calls" + (f" from t = {row[0]:g} to {row[-1]:g}" if len(row) else "")
    called += f" ({hashlib.sha256(row.tobytes()).hexdigest()[:12]})"
    return f"{called} {file}" if file else f"{called} of weights averaged with {'unknown' if average is None else f'{average:g}'}"
