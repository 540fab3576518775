"""The loss of a denoiser: flow matching, without the tokens that a loss mask leaves out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.denoiser.dropout import KEYS
from harness.denoiser.flow import at_time, cosine_loss, flow_loss, sample_time
from harness.encoder.latents import Batch
from harness.machine import processes
from harness.machine.device import autocast
from harness.study.method import LossMask
from harness.study.study import Study
from harness.training.loop import Loss

LEAST = 1e-12  # share of tokens that the loss is divided by where none is kept (released train.py:545)


@dataclass(frozen=True)
class Part:
    """A micro-batch of a step: what the denoiser is called with, and its share of the loss, (), of what that gives."""

    inputs: tuple[Tensor, ...]
    loss: Callable[[Tensor], Tensor]


Parts = Callable[[int, torch.Generator], Iterator[Part]]


def loss_of(study: Study, mask: LossMask | None, limit: float, batches: Callable[[int], Batch], denoise: nn.Module) -> Loss:
    """The flow-matching loss of a step, (), micro-batch by micro-batch, as `parts_of` has it."""
    parts = parts_of(study, mask, limit, batches)

    def loss(step: int, generator: torch.Generator) -> Iterator[Tensor]:
        for part in parts(step, generator):
            with autocast(study.denoiser.training.precision):
                output = denoise(*part.inputs)
            yield part.loss(output)

    return loss


def parts_of(study: Study, mask: LossMask | None, limit: float, batches: Callable[[int], Batch]) -> Parts:
    """The micro-batches of a step.

    Tokens whose norm exceeds `limit` do not count where there is a mask.
    `batches` gives this process's share of the batch, but every draw is for the whole, so that its split changes nothing but rounding.
    """
    config = study.denoiser

    def parts(step: int, generator: torch.Generator) -> Iterator[Part]:
        batch = batches(step)
        clean, labels, share = batch.latents, batch.labels, len(batch.labels)
        count = share * processes.count()
        mine = processes.own_part(count)
        t = sample_time(count, config.time, study.time_shift, generator, config.time_mean, config.time_std)[mine]
        noise = torch.randn((count, *clean.shape[1:]), generator=generator, device=generator.device)[mine] * config.noise_scale
        drop = torch.rand(count, generator=generator, device=generator.device)[mine] < config.class_dropout
        labels = labels.masked_fill(drop, study.classes)
        keys = None
        if getattr(config, "dropout", 0.0):
            keys = torch.randint(KEYS, (count,), generator=generator, device=generator.device)[mine]
        if mask:
            kept = (batch.norms[mask.norm] <= limit).float().unflatten(1, clean.shape[2:]).unsqueeze(1)
            kept_share = kept.mean() / processes.count()
            processes.add_up([kept_share])
            kept_share = kept_share.clamp(min=LEAST)  # of the whole batch, also where it is split
        size = config.training.micro_batch or count

        def part(rows: slice) -> Part:
            def loss(output: Tensor) -> Tensor:
                of = (clean[rows], noise[rows], t[rows], output.float())
                per_element = flow_loss(*of, config.prediction, config.t_min, clamp_target=config.clamp_target)
                if config.cosine_loss:
                    per_element = per_element + cosine_loss(*of, config.prediction, config.t_min)
                if not mask:
                    mean = per_element.mean()
                else:
                    by_part = mask.normalised == "micro_batch"
                    mean = (per_element * kept[rows]).mean() / (kept[rows].mean().clamp(min=LEAST) if by_part else kept_share)
                return mean * ((rows.stop - rows.start) / count)

            of_dropout = () if keys is None else (keys[rows],)
            return Part((at_time(clean[rows], noise[rows], t[rows]), t[rows], labels[rows], *of_dropout), loss)

        for first in range(0, share, size):
            yield part(slice(first, min(first + size, share)))

    return parts
