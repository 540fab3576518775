"""Weights at earlier steps of a training: kept below the run's state while it trains, so that a kill costs none of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.store.tensors import load_checkpoint, save_checkpoint
from harness.training.ema import Weights


@dataclass(frozen=True)
class Snapshots:
    """After which steps to keep the weights, and which of the averages, by its place in `ema`."""

    steps: Sequence[int]
    average: int

    def missing(self, state: Path) -> list[int]:
        """Steps of which `state` has no weights as they were written; a checkpoint of a later step is of no use to them."""
        return [step for step in self.steps if load_snapshot(state, step) is None]

    @torch.no_grad()
    def keep(self, state: Path, step: int, weights: Weights, model: nn.Module) -> None:
        """Write the average, as the state of `model`, whose own weights stay as they are."""
        own = [parameter.detach().clone() for parameter in weights.parameters]
        torch._foreach_copy_(weights.parameters, weights.averages[self.average])
        save_checkpoint(_folder(state, step), model.state_dict(), step=step)
        torch._foreach_copy_(weights.parameters, own)


def load_snapshot(state: Path, step: int) -> dict[str, Tensor] | None:
    """The weights that were kept after `step`, (name -> tensor); None where the training has not come there."""
    checkpoint = load_checkpoint(_folder(state, step))
    return checkpoint[0] if checkpoint else None


def _folder(state: Path, step: int) -> Path:
    return state / f"step{step}"
