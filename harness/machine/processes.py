"""The processes that share a stage under torchrun: who they are, what each one does, and what they tell one another.

Without torchrun there is one process, and nothing here does anything.
"""

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from harness.study.typed import UserError

PATIENCE = timedelta(minutes=30)  # longest wait for another process; the first one may be writing many GB
BUCKET = 2**26  # values that travel together: 256 MB of float32
T = TypeVar("T")

_place = [0, 1]  # number of this process, and how many there are


def rank() -> int:
    """Number of this process among those that share the stage; 0 is the one that writes and speaks."""
    return _place[0]


def count() -> int:
    """How many processes share the stage."""
    return _place[1]


def join(shared: bool) -> None:
    """Find the other processes that torchrun started, if it did (WORLD_SIZE, RANK); nccl between GPUs, gloo between CPUs.

    UserError where there are several and the stage is not `shared`, or the others are not found.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted == count():
        return
    if not shared:
        raise UserError(
            f"this stage runs in one process, WORLD_SIZE is {wanted}; run the same command with `python -m harness`, not torchrun"
        )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _together():
        distributed.init_process_group(backend, timeout=PATIENCE)
    _place[:] = distributed.get_rank(), distributed.get_world_size()
    atexit.register(leave)


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    _place[:] = 0, 1


def own_part(things: int) -> slice:
    """This process's part of `things` in a row. UserError if they cannot be dealt out evenly."""
    each, rest = divmod(things, count())
    if rest:
        raise UserError(
            f"{count()} processes do not divide a batch of {things} images; start a number that does (torchrun --nproc-per-node)"
        )
    return slice(rank() * each, (rank() + 1) * each)


@torch.no_grad()
def add_up(tensors: Sequence[Tensor]) -> None:
    """Put the sum over the processes into each tensor (of any shape, the same in all processes), the same bytes in all of them."""
    if count() == 1:
        return
    with _together():
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(flat)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(summed.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket


def from_first(value: T) -> T:
    """The first process's `value`, in all of them; they wait for it."""
    if count() == 1:
        return value
    told = [value]
    with _together():
        distributed.broadcast_object_list(told)
    return told[0]


def wait() -> None:
    """Until every process has come here."""
    add_up([torch.zeros(1)])


@contextmanager
def entered_by_first(context: AbstractContextManager[T]) -> Iterator[T]:
    """`context` in the first process; the others wait for what it yields, and do not enter. An error on entering is raised in all."""
    if rank():
        told: Any = from_first(None)
        if isinstance(told, Exception):
            raise told
        yield told
        return
    with ExitStack() as stack:
        try:
            entered = stack.enter_context(context)
        except Exception as error:
            from_first(error)
            raise
        yield from_first(entered)


@contextmanager
def _together() -> Iterator[None]:
    """Turns the breakdown of a connection, which follows on the end of another process, into one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} lost the others "
            f"({' '.join(str(error).split())[:200]}); see what ended them"
        ) from None
