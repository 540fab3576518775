"""The one training loop: resumable, seeded per step, stopped on NaN.

Step k draws its data order and noise from (seed, k) alone, and the state (weights, EMA, optimiser, step) is written atomically,
so a run that was killed continues to the same bytes.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import artifacts
from harness.config import Training, UserError
from harness.runtime import Progress, stream

CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device
SAVE_EVERY = 10.0  # seconds between checkpoints; when they fall does not change the result
BETAS = (0.9, 0.95)  # paper dossier §6


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
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=training.lr, betas=BETAS, weight_decay=0.0, fused=True)
    average = [p.detach().clone() for p in parameters]
    start = _resume(state, parameters, average, optimiser)
    if start:
        print(f"{name}: resumed at step {start}", flush=True)
    progress = Progress(name, training.steps, start=start)
    model.train()
    losses, saved = [], time.monotonic()
    for step in range(start, training.steps):
        for group in optimiser.param_groups:
            group["lr"] = training.lr * schedule(step, training.steps)
        loss = loss_of(step, stream(seed, "step", step))
        losses.append(loss.detach())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if ema:
            torch._foreach_lerp_(average, parameters, 1 - min(ema, (1 + step) / (10 + step)))  # warm-up as in EDM
        done = step + 1
        if done % CHECK_EVERY == 0 or done == training.steps:
            _refuse_nan(torch.stack(losses), done, name, optimiser.param_groups[0]["lr"], state)
            progress.update(done, f", loss {losses[-1].item():.4f}")
            losses.clear()
            if time.monotonic() - saved > SAVE_EVERY:
                _save(state, done, parameters, average, optimiser)
                saved = time.monotonic()
    model.eval()
    if ema:
        with torch.no_grad():
            torch._foreach_copy_(parameters, average)
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
    order = torch.randperm(count, generator=stream(seed, "epoch", epoch))
    return order[place * batch : (place + 1) * batch]


def _refuse_nan(losses: Tensor, done: int, name: str, lr: float, state: Path) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        step = done - len(losses) + int(bad[0])
        raise UserError(
            f"{name}: the loss is {losses[bad[0]].item()} at step {step}, learning rate {lr:.3g}; "
            f"lower training.lr in the study (the last good checkpoint is kept in {state})"
        )


def _save(state: Path, step: int, parameters: list, average: list, optimiser: torch.optim.Optimizer) -> None:
    tensors = {f"parameter.{i}": p for i, p in enumerate(parameters)} | {f"average.{i}": p for i, p in enumerate(average)}
    for i, parameter in enumerate(parameters):
        tensors |= {f"optimiser.{i}.{key}": value for key, value in optimiser.state[parameter].items()}
    with artifacts.atomic(state / "checkpoint.safetensors") as temporary:
        artifacts.save_tensors(temporary, tensors, step=step)


def _resume(state: Path, parameters: list, average: list, optimiser: torch.optim.Optimizer) -> int:
    """Load the checkpoint of `state` and return its step; 0 where there is none that can be read."""
    path = state / "checkpoint.safetensors"
    if not path.exists():
        return 0
    try:
        tensors, metadata = artifacts.load_tensors(path, check=False)
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(tensors[f"parameter.{i}"])
                average[i].copy_(tensors[f"average.{i}"])
                optimiser.state[parameter] = {key: tensors[f"optimiser.{i}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    except (UserError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not a checkpoint of this run ({error}); delete {state} and run the same command again") from None
    return metadata["step"]
