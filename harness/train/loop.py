"""The one training loop: resumable, seeded per step, stopped on NaN.

Step k draws its data order and noise from (seed, k) alone, and the state (weights, averages, optimiser, step) is written atomically,
so a run that was killed continues to the same bytes.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from harness import artifacts
from harness.config import UserError
from harness.runtime import Progress, allow_tf32, device, stream
from harness.sections import Training

CHECK_EVERY = 20  # steps between looks at the loss: each look waits for the device
SAVE_EVERY = 10.0  # least seconds between checkpoints; when they fall does not change the result
SAVE_SHARE = 0.02  # most of the time that writing them may take: those of large models are many GB
CHECKPOINT = "checkpoint.safetensors"
EPSILON = 1e-8  # as in the released configs

Loss = Callable[[int, torch.Generator], Tensor | Iterable[Tensor]]


@dataclass(frozen=True)
class Opponent:
    """The discriminator of an adversarial loss: trained after each step of the model, from step `start` on."""

    model: nn.Module
    loss_of: Loss
    start: int


def fit(
    model: nn.Module,
    loss_of: Loss,
    training: Training,
    *,
    images: int,
    name: str,
    seed: int,
    state: Path,
    ema: Sequence[float] = (),
    ema_warm_up: bool = True,
    opponent: Opponent | None = None,
) -> list[dict[str, Tensor]]:
    """Train `model` in place on a set of `images`; returns the weights to keep: an exponential moving average for each decay of `ema`.

    loss_of(step, generator) -> scalar loss, or the micro-batches' shares of it, one after the other; it draws from `generator` only, which
    is on the device: a batch of a large study has 200 million normals, a second of a CPU's time.
    `state` is a folder of this run's own. Without `ema` the trained weights themselves are returned; with it, `model` ends with the first average.
    Raises UserError at the first loss that is not finite; the last good checkpoint stays.
    """
    allow_tf32(training.tf32)
    run = _State(model, ema, opponent.model if opponent else None)
    start, steps = run.resume(state), training.length(images)
    if start:
        print(f"{name}: resumed at step {start}", flush=True)
    progress = Progress(name, steps, start=start)
    model.train()
    losses, saved, pause = [], time.monotonic(), SAVE_EVERY
    for step in range(start, steps):
        lr, generator = training.lr * rate(step, training, images), stream(seed, "step", step, device())
        losses.append((step, lr, _descend(run.weights, loss_of(step, generator), training, lr)))
        run.weights.follow([min(decay, (1 + step) / (10 + step)) if ema_warm_up else decay for decay in ema])  # the warm-up is EDM's
        if opponent and step >= opponent.start:
            losses.append((step, lr, _descend(run.opponent, opponent.loss_of(step, generator), training, lr)))
        done = step + 1
        if done % CHECK_EVERY == 0 or done == steps:
            _refuse_nan(losses, name, state)
            progress.update(done, f", loss {losses[-1][2].item():.4f}")
            losses.clear()
            if time.monotonic() - saved > pause:
                began = time.monotonic()
                run.save(state, done)
                saved = time.monotonic()
                pause = max(SAVE_EVERY, (saved - began) / SAVE_SHARE)
    model.eval()
    return _averaged(model, run.weights) if ema else [model.state_dict()]


def _trainable(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def _descend(weights: "_Weights", loss: Tensor | Iterable[Tensor], training: Training, lr: float) -> Tensor:
    """One optimiser step; gradients of micro-batches add up. Returns the loss."""
    for parameter in weights.parameters:
        parameter.grad = None
    total = torch.zeros(())
    for part in [loss] if isinstance(loss, Tensor) else loss:
        part.backward()
        total = total.to(part.device) + part.detach()
    if training.clip:
        torch.nn.utils.clip_grad_norm_(weights.parameters, training.clip)
    weights.update(training, lr)
    return total


@torch.no_grad()
def _averaged(model: nn.Module, weights: "_Weights") -> list[dict[str, Tensor]]:
    """The model's state with each average in the place of its weights; the model itself keeps the first."""
    states = []
    for average in reversed(weights.averages):
        torch._foreach_copy_(weights.parameters, average)
        states.append({key: value.detach().clone() for key, value in model.state_dict().items()})
    return states[::-1]


def rate(step: int, training: Training, images: int) -> float:
    """Factor on the learning rate at `step`, by the schedule of the training."""
    schedule, steps, epoch = training.schedule, training.length(images), training.epoch(images)
    warm = max(1, steps // 20) if schedule.warm_up is None else round(schedule.warm_up * epoch)
    if step < warm:
        return (step + 1) / warm
    start = warm + round(schedule.hold * epoch)
    end = steps if schedule.until is None else round(schedule.until * epoch)
    if step < start or schedule.decay == "constant":
        return 1.0
    done, length = min(step, end) - start, max(1, end - start)
    left = 0.5 * (1 + math.cos(math.pi * done / length)) if schedule.decay == "cosine" else 1 - done / length
    return schedule.final + (1 - schedule.final) * left


def batch_indices(seed: int, step: int, count: int, batch: int) -> Tensor:
    """Rows of the training set for `step`: every epoch is a permutation drawn from (seed, epoch); the remainder is dropped."""
    batch = min(batch, count)
    epoch, place = divmod(step, count // batch)
    return _epoch_order(seed, epoch, count)[place * batch : (place + 1) * batch]


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """An epoch's permutation, drawn once rather than at each of its steps."""
    return torch.randperm(count, generator=stream(seed, "epoch", epoch))


def _refuse_nan(losses: list[tuple[int, float, Tensor]], name: str, state: Path) -> None:
    values = torch.stack([loss for _, _, loss in losses])
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        step, lr, loss = losses[int(bad[0])]
        kept = f"the last good checkpoint is kept in {state}" if (state / CHECKPOINT).exists() else "it came before the first checkpoint"
        raise UserError(
            f"{name}: the loss is {loss.item()} at step {step}, learning rate {lr:.3g}; lower training.lr in the study ({kept})"
        )


class _Weights:
    """Trained tensors, their moving averages and AdamW's moments, as lists.

    AdamW in torch's functional form: the class would import the compiler, 1.1 s in every training job.
    """

    def __init__(self, parameters: list[Tensor], ema: Sequence[float]) -> None:
        self.parameters = parameters
        self.averages = [[p.detach().clone() for p in parameters] for _ in ema]
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    @torch.no_grad()
    def update(self, training: Training, lr: float) -> None:
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        lists = [[values[i] for i in used] for values in (self.parameters, self.first, self.second, self.steps)]
        parameters, first, second, steps = lists
        adamw(
            parameters, [p.grad for p in parameters], first, second, [], steps, fused=True, amsgrad=False, maximize=False, lr=lr,
            beta1=training.betas[0], beta2=training.betas[1], eps=EPSILON, weight_decay=training.weight_decay,
        )  # fmt: skip

    @torch.no_grad()
    def follow(self, decays: Sequence[float]) -> None:
        """Move each average towards the weights."""
        for average, decay in zip(self.averages, decays, strict=True):
            torch._foreach_lerp_(average, self.parameters, 1 - decay)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        lists = {"parameters": self.parameters, "first": self.first, "second": self.second, "steps": self.steps}
        lists |= {f"average{i}": average for i, average in enumerate(self.averages)}
        return {f"{prefix}.{name}.{i}": tensor for name, values in lists.items() for i, tensor in enumerate(values)}


class _State:
    """What a checkpoint holds."""

    def __init__(self, model: nn.Module, ema: Sequence[float], opponent: nn.Module | None) -> None:
        self.weights = _Weights(_trainable(model), ema)
        self.opponent = _Weights(_trainable(opponent) if opponent else [], ())
        self.buffers = dict(opponent.named_buffers()) if opponent else {}  # spectral norms move with every forward pass

    def tensors(self) -> dict[str, Tensor]:
        buffers = {f"buffer.{name}": tensor for name, tensor in self.buffers.items()}
        return self.weights.tensors("model") | self.opponent.tensors("opponent") | buffers

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
