"""The order of images in training, a function of (seed, step)."""

from functools import lru_cache

import torch
from torch import Tensor

from harness.machine.streams import stream


def batch_indices(seed: int, step: int, count: int, batch: int) -> Tensor:
    """Rows of the training set for `step`: every epoch is a permutation drawn from (seed, epoch); the remainder is dropped."""
    batch = min(batch, count)
    epoch, place = divmod(step, count // batch)
    return _epoch_order(seed, epoch, count)[place * batch : (place + 1) * batch]


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """An epoch's permutation, drawn once rather than at each of its steps."""
    return torch.randperm(count, generator=stream(seed, "epoch", epoch))
