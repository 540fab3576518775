"""The one training loop: resumable, seeded per step; steps that are not finite are skipped, and too many of them end it.

Step k draws its data order and noise from (seed, k) alone, and the state (weights, averages, optimiser, losses, step) is written
atomically, so a run that was killed continues to the same bytes.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
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


@dataclass
class Run:
    """One training: a model on the device, the seed of its draws, a folder for its own checkpoints (None: there are none).

    `outcome` gets what `fit` says of it.
    """

    model: nn.Module
    name: str
    seed: int
    state: Path | None
    snapshots: Snapshots | None = None
    outcome: dict = field(default_factory=dict)


Descent = Callable[[int, Sequence[torch.Generator]], Sequence[Tensor]]  # leaves the gradients in each model, and returns each loss


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
    run = Run(model, name, seed, state, snapshots, {} if outcome is None else outcome)
    (kept,) = fit_together(
        [run], lambda _: by_itself(model, loss_of), training, images=images, ema=ema, ema_warm_up=ema_warm_up, opponent=opponent
    )
    if isinstance(kept, Diverged):
        raise kept
    return kept


def fit_together(
    runs: Sequence[Run],
    descent_of: Callable[[list[int]], Descent],
    training: Training,
    *,
    images: int,
    ema: Sequence[float] = (),
    ema_warm_up: bool = True,
    opponent: Opponent | None = None,
    alone: bool = False,
) -> "list[list[dict[str, Tensor]] | Diverged]":
    """As `fit`, of several runs that differ in their seeds: what it returns, or raises, for each.

    descent_of(numbers of runs) -> one step of these, without the optimiser. Which runs are beside one must not change its numbers: those
    whose checkpoints are of different steps go on one after the other. `alone`: each does.
    """
    allow_tf32(training.tf32)
    trainees = [_Trainee(run, training, training.length(images), ema, opponent) for run in runs]
    starts = [(trainee.done, number * alone) for number, trainee in enumerate(trainees)]
    for start in sorted(set(starts)):
        numbers = [number for number, own in enumerate(starts) if own == start]
        together = [trainees[number] for number in numbers]
        for trainee in together:
            trainee.run.model.train()
        _train(together, descent_of(numbers), training, images, ema, ema_warm_up, opponent)
    return [trainee.kept(images, ema) for trainee in trainees]


def _train(
    trainees: "list[_Trainee]",
    descend: Descent,
    training: Training,
    images: int,
    ema: Sequence[float],
    ema_warm_up: bool,
    opponent: Opponent | None,
) -> None:
    """From the step that all of them have come to."""
    first, steps, start = trainees[0].run, training.length(images), trainees[0].done
    progress = Progress(first.name + (f" and {len(trainees) - 1} more" if len(trainees) > 1 else ""), steps, start=start)
    against = by_itself(opponent.model, opponent.loss_of) if opponent else None
    going, saved, pause = trainees, time.monotonic(), SAVE_EVERY
    for step in range(start, steps):
        for trainee in going:
            trainee.keep_snapshot(step)
        going = [trainee for trainee in going if not trainee.over]
        if not going:
            break
        lr, generators = training.lr * rate(step, training, images), [stream(t.run.seed, "step", step, device()) for t in trainees]
        losses = dict(zip(trainees, descend(step, generators), strict=True))
        for trainee in going:
            trainee.state.model.update(training, lr, step, losses[trainee])
            trainee.state.model.follow(
                [min(decay, (1 + step) / (10 + step)) if ema_warm_up else decay for decay in ema]
            )  # the warm-up of TensorFlow's average, as score-SDE has it
        if opponent and against and step >= opponent.start:
            if opponent.own_schedule:
                lr = training.lr * rate(step - opponent.start, training, images)
            (trainee,), (loss,) = trainees, against(step, generators)
            trainee.state.opponent.update(training, lr, step, loss)
        for trainee in going:
            trainee.done = step + 1
        if (step + 1) % CHECK_EVERY and step + 1 < steps:
            continue
        for trainee in going:
            trainee.look()
        going = [trainee for trainee in going if not trainee.over]
        progress.update(step + 1, f", loss {sum(loss.item() for loss in losses.values()) / len(losses):.4f}")
        if not processes.rank() and abs(time.monotonic() - saved) > pause:  # a clock can jump back
            began = time.monotonic()
            for trainee in going:
                trainee.save()
            saved = time.monotonic()
            pause = min(max(SAVE_EVERY, (saved - began) / SAVE_SHARE), LONGEST_PAUSE)


class _Trainee:
    """A run with its state, at the step of its last checkpoint. `over`: too many of its steps were skipped, and it stays as it is."""

    def __init__(self, run: Run, training: Training, steps: int, ema: Sequence[float], opponent: Opponent | None) -> None:
        self.run, self.training, self.state = run, training, State(run.model, opponent.model if opponent else None, ema, steps)
        self.missing = processes.from_first(run.snapshots.missing(run.state)) if run.snapshots else []
        self.done = self.state.resume(run.state, latest=self.missing[0] if self.missing else None) if run.state else 0
        self.look()
        if self.done and not processes.rank():
            print(f"{run.name}: resumed at step {self.done}", flush=True)

    def look(self) -> None:
        """Which steps were skipped; waits for the device."""
        self.skipped = self.state.skipped()
        self.over = len(self.skipped) > self.training.skips

    def keep_snapshot(self, step: int) -> None:
        """Where one of `step` is missing, and the run is not over."""
        if step in self.missing:
            self.look()
            if not self.over and not processes.rank():
                self.run.snapshots.keep(self.run.state, step, self.state.model, self.run.model)

    def save(self) -> None:
        if self.run.state:
            self.state.save(self.run.state, self.done)

    def kept(self, images: int, ema: Sequence[float]) -> "list[dict[str, Tensor]] | Diverged":
        """The weights to keep, or how it diverged; the outcome is filled."""
        model, training, losses = self.run.model.eval(), self.training, self.state.model.losses
        kept = self.state.model.averaged(model) if ema else [model.state_dict()]
        self.run.outcome |= {"skipped_steps": len(self.skipped), "losses": curve(losses[: self.done], len(losses))}
        if ema:
            decays = self.state.model.decays.tolist()
            self.run.outcome |= {"averaged": {f"{decay:g}": used for decay, used in zip(ema, decays, strict=True)}}
        if not self.over:
            return kept
        last = self.skipped[training.skips]
        return Diverged(self.run.name, training, last, len(self.skipped), training.lr * rate(last, training, images), self.run.state, kept)


def by_itself(model: nn.Module, loss_of: Loss) -> Descent:
    """The descent of one run; gradients of micro-batches add up."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def descend(step: int, generators: Sequence[torch.Generator]) -> list[Tensor]:
        for parameter in parameters:
            parameter.grad = None
        loss = loss_of(step, generators[0])
        total = torch.zeros(())
        for part in [loss] if isinstance(loss, Tensor) else loss:
            part.backward()
            total = total.to(part.device) + part.detach()
        return [total]

    return descend


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
