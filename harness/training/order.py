"""The order of images in training, a function of (seed, step), and where random crops of them lie."""

from functools import lru_cache

import torch
from torch import Tensor

from harness.machine.streams import stream


def batch_indices(seed: int, step: int, count: int, batch: int) -> Tensor:
    """Rows of the training set for `step`: every epoch is a permutation drawn from (seed, epoch); the remainder is dropped."""
    batch = min(batch, count)
    epoch, place = divmod(step, count // batch)
    return _epoch_order(seed, epoch, count)[place * batch : (place + 1) * batch]


def crop_places(seed: int, step: int, count: int, batch: int) -> Tensor:
    """(batch, 2) in [0, 1): where a square is cut out of each image of `step`, down and across; from (seed, epoch, image) alone."""
    return _epoch_places(seed, step // (count // min(batch, count)), count)[batch_indices(seed, step, count, batch)]


@lru_cache(maxsize=2)
def _epoch_places(seed: int, epoch: int, count: int) -> Tensor:
    return torch.rand(count, 2, generator=stream(seed, "crop", epoch))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """An epoch's permutation, drawn once rather than at each of its steps."""
    return torch.randperm(count, generator=stream(seed, "epoch", epoch))
