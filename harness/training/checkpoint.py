"""What a training carries from step to step: weights, their averages, AdamW's moments, the losses; and its checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.store.tensors import load_checkpoint, save_checkpoint
from harness.study.typed import UserError
from harness.training.ema import Weights


class State:
    """What a checkpoint holds: the model's weights and, in an adversarial training, the opponent's."""

    def __init__(self, model: nn.Module, opponent: nn.Module | None, ema: Sequence[float], steps: int) -> None:
        self.model, self.opponent = Weights(model, ema, steps), Weights(opponent, (), steps)
        self.buffers = dict(opponent.named_buffers()) if opponent else {}  # spectral norms move with every forward pass

    def tensors(self) -> dict[str, Tensor]:
        """What the checkpoint holds, by name; the tensors themselves, no copies."""
        buffers = {f"buffer.{name}": tensor for name, tensor in self.buffers.items()}
        return self.model.tensors("model") | self.opponent.tensors("opponent") | buffers

    def skipped(self) -> list[int]:
        """Steps that were skipped, of either player."""
        return sorted(self.model.skipped() + self.opponent.skipped())

    def save(self, folder: Path, step: int) -> None:
        """Write the checkpoint of `step`, atomically."""
        save_checkpoint(folder, self.tensors(), step=step)

    @torch.no_grad()
    def resume(self, folder: Path, latest: int | None = None) -> int:
        """Load the checkpoint of `folder`, of a step up to `latest`, and return its step; 0 where there is none."""
        checkpoint = load_checkpoint(folder, latest)
        if checkpoint is None:
            return 0
        saved, facts = checkpoint
        try:
            for name, tensor in self.tensors().items():
                tensor.copy_(saved[name])
            return facts["step"]
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{folder}: its checkpoint is of another run ({error}); delete it and run the same command again") from None
