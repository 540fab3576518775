"""The one training loop: resumable, seeded per step, stopped on NaN.

Step k draws its data order and noise from (seed, k) alone, and the state (weights, EMA, optimiser, step) is written atomically,
so a run that was killed continues to the same bytes.
"""

import math
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from harness import artifacts
from harness.config import Training, UserError
from harness.runtime import Progress, stream

CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device
SAVE_EVERY = 10.0  # seconds between checkpoints; when they fall does not change the result
CHECKPOINT = "checkpoint.safetensors"
BETAS, EPSILON = (0.9, 0.95), 1e-8  # as in the released configs


def fit(
    model: nn.Module,
    loss_of: Callable[[int, torch.Generator], Tensor],
    training: Training,
    *,
    name: str,
    seed: int,
    state: Path,
    ema: float = 0.0,
) -> dict[str, Tensor]:
    """Train `model` in place; returns the weights to keep (the exponential moving average where `ema` > 0).

    loss_of(step, generator) -> scalar loss; it draws from `generator` only. `state` is a folder of this run's own.
    Raises UserError at the first loss that is not finite; the last good checkpoint stays.
    """
    run = _State([p for p in model.parameters() if p.requires_grad])
    start = run.resume(state)
    if start:
        print(f"{name}: resumed at step {start}", flush=True)
    progress = Progress(name, training.steps, start=start)
    model.train()
    losses, saved = [], time.monotonic()
    for step in range(start, training.steps):
        lr = training.lr * schedule(step, training.steps)
        loss = loss_of(step, stream(seed, "step", step))
        losses.append(loss.detach())
        model.zero_grad(set_to_none=True)
        loss.backward()
        if training.clip:
            torch.nn.utils.clip_grad_norm_(run.parameters, training.clip)
        run.update(lr, min(ema, (1 + step) / (10 + step)))  # the average's warm-up is EDM's
        done = step + 1
        if done % CHECK_EVERY == 0 or done == training.steps:
            _refuse_nan(torch.stack(losses), done, name, training, state)
            progress.update(done, f", loss {losses[-1].item():.4f}")
            losses.clear()
            if time.monotonic() - saved > SAVE_EVERY:
                run.save(state, done)
                saved = time.monotonic()
    model.eval()
    if ema:
        with torch.no_grad():
            torch._foreach_copy_(run.parameters, run.average)
    return model.state_dict()


def schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: linear warm-up over 5 % of the steps, then cosine to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batch_indices(seed: int, step: int, count: int, batch: int) -> Tensor:
    """Rows of the training set for `step`: every epoch is a permutation drawn from (seed, epoch); the remainder is dropped."""
    batch = min(batch, count)
    epoch, place = divmod(step, count // batch)
    return _epoch_order(seed, epoch, count)[place * batch : (place + 1) * batch]


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """An epoch's permutation, drawn once rather than at each of its steps."""
    return torch.randperm(count, generator=stream(seed, "epoch", epoch))


def _refuse_nan(losses: Tensor, done: int, name: str, training: Training, state: Path) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        step = done - len(losses) + int(bad[0])
        lr = training.lr * schedule(step, training.steps)
        kept = f"the last good checkpoint is kept in {state}" if (state / CHECKPOINT).exists() else "it came before the first checkpoint"
        raise UserError(
            f"{name}: the loss is {losses[bad[0]].item()} at step {step}, learning rate {lr:.3g}; lower training.lr in the study ({kept})"
        )


class _State:
    """Weights, their moving average and AdamW's moments, as lists of tensors.

    AdamW in torch's functional form: the class would import the compiler, 1.1 s in every training job.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.average = [p.detach().clone() for p in parameters]
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    @torch.no_grad()
    def update(self, lr: float, ema: float) -> None:
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        lists = [[values[i] for i in used] for values in (self.parameters, self.first, self.second, self.steps)]
        parameters, first, second, steps = lists
        adamw(
            parameters, [p.grad for p in parameters], first, second, [], steps,
            fused=True, amsgrad=False, maximize=False, lr=lr, beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, weight_decay=0.0,
        )  # fmt: skip
        if ema:
            torch._foreach_lerp_(self.average, self.parameters, 1 - ema)

    def tensors(self) -> dict[str, Tensor]:
        return {f"{name}.{i}": tensor for name, values in vars(self).items() for i, tensor in enumerate(values)}

    def save(self, state: Path, step: int) -> None:
        with artifacts.atomic(state / CHECKPOINT) as temporary:
            artifacts.save_tensors(temporary, self.tensors(), step=step)

    @torch.no_grad()
    def resume(self, state: Path) -> int:
        """Load the checkpoint of `state` and return its step; 0 where there is none."""
        path = state / CHECKPOINT
        if not path.exists():
            return 0
        try:
            saved, metadata = artifacts.load_tensors(path, check=False)
            for name, tensor in self.tensors().items():
                tensor.copy_(saved[name])
            return metadata["step"]
        except (UserError, KeyError, RuntimeError) as error:
            raise UserError(f"{path}: not a checkpoint of this run ({error}); delete {state} and run the same command again") from None
