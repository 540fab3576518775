"""The one training loop: resumable, seeded per step; steps that are not finite are skipped, and too many of them end it.

Step k draws its data order and noise from (seed, k) alone, and the state (weights, averages, optimiser, losses, step) is written
atomically, so a run that was killed continues to the same bytes.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.machine import processes
from harness.machine.device import allow_tf32, device
from harness.machine.progress import Progress
from harness.machine.streams import stream
from harness.store.tensors import CHECKPOINT
from harness.study.sections.training import Training
from harness.study.typed import UserError
from harness.training.checkpoint import State
from harness.training.ema import Weights
from harness.training.snapshots import Snapshots

CHECK_EVERY = 20  # steps between looks at the losses: each look waits for the device
SAVE_EVERY = 10.0  # least seconds between checkpoints; when they fall does not change the result
SAVE_SHARE = 0.02  # most of the time that writing them may take: those of large models are many GB
LONGEST_PAUSE = 3600.0  # seconds between checkpoints, whatever a clock that jumps says about the time of writing
WINDOWS = 100  # of the loss curve in the record

Loss = Callable[[int, torch.Generator], Tensor | Iterable[Tensor]]


class Diverged(UserError):  # noqa: N818 (a state of the training)
    """More steps than training.skips had no finite loss or gradient. `kept`: what `fit` would have returned; none of them changed it."""

    def __init__(
        self, name: str, training: Training, step: int, count: int, lr: float, state: Path | None, kept: list[dict[str, Tensor]]
    ) -> None:
        self.step, self.count, self.lr, self.kept = step, count, lr, kept
        self.reason = (
            f"{count} steps had no finite loss or gradient, training.skips allows {training.skips}: step {step}, learning rate {lr:.3g}"
        )
        where = (
            f"the last checkpoint is kept in {state}" if state and (state / CHECKPOINT).exists() else "it came before the first checkpoint"
        )
        super().__init__(f"{name}: {self.reason}; lower training.lr in the study ({where})")


@dataclass(frozen=True)
class Opponent:
    """The discriminator of an adversarial loss: trained after each step of the model, from step `start` on.

    Its learning rate is the model's, or, with an `own_schedule`, what the schedule says of its own steps, the first one at `start`.
    """

    model: nn.Module
    loss_of: Loss
    start: int
    own_schedule: bool = False


def fit(
    model: nn.Module,
    loss_of: Loss,
    training: Training,
    *,
    images: int,
    name: str,
    seed: int,
    state: Path | None,
    ema: Sequence[float] = (),
    ema_warm_up: bool = True,
    opponent: Opponent | None = None,
    snapshots: Snapshots | None = None,
    outcome: dict | None = None,
) -> list[dict[str, Tensor]]:
    """Train `model` in place on a set of `images`; returns the weights to keep: an exponential moving average for each decay of `ema`.

    loss_of(step, generator) -> scalar loss, or the micro-batches' shares of it, one after the other; it draws from `generator` only, which
    is on the device: a batch of a large study has 200 million normals, a second of a CPU's time. Of several processes, each gives its own
    shares; gradients and losses are added up.
    `state` is a folder of this run's own (None: no checkpoints); there the first process leaves the weights of `snapshots` that were
    reached. Without `ema` the trained weights themselves are returned; with it, `model` ends with the first average.
    `outcome` gets `losses`, the curve, `averaged`, the decay that each average last moved by, and `skipped_steps`: a step without a finite
    loss or gradient leaves weights and optimiser as they are. Raises Diverged where those are more than training.skips, a look later at
    most; the last checkpoint stays.
    """
    allow_tf32(training.tf32)
    steps = training.length(images)
    run = State(model, opponent.model if opponent else None, ema, steps)
    missing = processes.from_first(snapshots.missing(state)) if snapshots else []
    start = done = run.resume(state, latest=missing[0] if missing else None) if state else 0
    skipped = run.skipped()
    if start and not processes.rank():
        print(f"{name}: resumed at step {start}", flush=True)
    progress = Progress(name, steps, start=start)
    model.train()
    saved, pause = time.monotonic(), SAVE_EVERY
    for step in range(start, steps):
        if step in missing:
            skipped = run.skipped()
            if len(skipped) > training.skips:
                break
            if not processes.rank():
                snapshots.keep(state, step, run.model, model)
        lr, generator = training.lr * rate(step, training, images), stream(seed, "step", step, device())
        loss = _descend(run.model, loss_of(step, generator), training, lr, step)
        run.model.follow(
            [min(decay, (1 + step) / (10 + step)) if ema_warm_up else decay for decay in ema]
        )  # the warm-up of TensorFlow's average, as score-SDE has it
        if opponent and step >= opponent.start:
            if opponent.own_schedule:
                lr = training.lr * rate(step - opponent.start, training, images)
            _descend(run.opponent, opponent.loss_of(step, generator), training, lr, step)
        done = step + 1
        if done % CHECK_EVERY == 0 or done == steps:
            skipped = run.skipped()
            if len(skipped) > training.skips:
                break
            progress.update(done, f", loss {loss.item():.4f}")
            if state and not processes.rank() and abs(time.monotonic() - saved) > pause:  # a clock can jump back
                began = time.monotonic()
                run.save(state, done)
                saved = time.monotonic()
                pause = min(max(SAVE_EVERY, (saved - began) / SAVE_SHARE), LONGEST_PAUSE)
    model.eval()
    kept = run.model.averaged(model) if ema else [model.state_dict()]
    if outcome is not None:
        outcome |= {"skipped_steps": len(skipped), "losses": curve(run.model.losses[:done], steps)}
        outcome |= {"averaged": {f"{decay:g}": used for decay, used in zip(ema, run.model.decays.tolist(), strict=True)}} if ema else {}
    if len(skipped) > training.skips:
        last = skipped[training.skips]
        raise Diverged(name, training, last, len(skipped), training.lr * rate(last, training, images), state, kept)
    return kept


def _descend(weights: Weights, loss: Tensor | Iterable[Tensor], training: Training, lr: float, step: int) -> Tensor:
    """One optimiser step; gradients of micro-batches add up. Returns the loss."""
    for parameter in weights.parameters:
        parameter.grad = None
    total = torch.zeros(())
    for part in [loss] if isinstance(loss, Tensor) else loss:
        part.backward()
        total = total.to(part.device) + part.detach()
    weights.update(training, lr, step, total)
    return total


def curve(losses: Tensor, steps: int) -> list[float | None]:
    """losses (steps so far,) -> mean loss of each of the WINDOWS windows, of equal length, that `steps` have.

    Skipped steps are left out; None where all of them were.
    """
    means = [part.double().nanmean().item() for part in losses.split(math.ceil(steps / WINDOWS))]
    return [mean if math.isfinite(mean) else None for mean in means]


def rate(step: int, training: Training, images: int) -> float:
    """Factor on the learning rate at `step`, by the schedule of the training."""
    schedule, steps = training.schedule, training.length(images)
    warm = max(1, steps // 20) if schedule.warm_up is None else training.steps_of(schedule.warm_up, images)
    if step < warm:
        return (step + 1) / warm
    start = warm + training.steps_of(schedule.hold, images)
    end = steps if schedule.until is None else training.steps_of(schedule.until, images)
    if step < start or schedule.decay == "constant":
        return 1.0
    done, length = min(step, end) - start, max(1, end - start)
    left = 0.5 * (1 + math.cos(math.pi * done / length)) if schedule.decay == "cosine" else 1 - done / length
    return schedule.final + (1 - schedule.final) * left
