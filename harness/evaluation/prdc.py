"""Precision, recall, density and coverage (arXiv 2002.09797) in one pass over the pairs, decided in float64.

Precision and recall are those of precision_recall.py, where torch-fidelity's float32 decides. With ties the two rules in use differ
widely (.68 and .96 on points of a grid), so that the rule is a part of the score's name.
"""

from dataclasses import dataclass
from statistics import stdev

import torch
from torch import Tensor

from harness.evaluation.bootstrap import ERRORS, SEED, around, by_resampling, means, share
from harness.evaluation.neighbours import ROWS, Ties, inside, nearest, products
from harness.evaluation.outcome import Measured
from harness.evaluation.precision_recall import recall_of_halves
from harness.evaluation.sets import checked
from harness.machine.streams import stream
from harness.study.typed import UserError


@dataclass(frozen=True)
class Balls:
    """Of N samples and M reference images, each with the ball to its k-th nearest neighbour of its own kind.

    `holding` (N,): in how many of the reference's balls a sample is. `reached` (M,): whether a sample is in the ball of a reference image;
    `recalled` (M,): whether it is in the ball of a sample. `reached_by_halves` (halves,): the share that half of the samples reaches.
    """

    holding: Tensor
    reached: Tensor
    recalled: Tensor
    reached_by_halves: Tensor


def balls(samples: Tensor, reference: Tensor, neighbours: int, halves: int = 0, ties: Ties = "<=") -> Balls:
    """(N, D) and (M, D) features; `halves` of the samples are drawn without replacement, seeded. Memory is that of ROWS rows of pairs."""
    samples, reference = checked("density and coverage", 1, samples=samples, reference=reference)
    least = min(len(samples), len(reference))
    if neighbours < 1 or least <= neighbours:
        raise UserError(f"density and coverage need at least 1 neighbour and more images than that: {neighbours} of {least}")
    own, its = (nearest(rows, rows, neighbours, own=True)[0][:, -1] for rows in (samples, reference))
    reference, place = reference.double(), reference.device
    generator = stream(SEED, "halves coverage", len(samples))
    kept = torch.zeros(halves, len(samples), dtype=torch.float64)
    for half in kept:
        half[torch.randperm(len(samples), generator=generator)[: max(len(samples) // 2, 1)]] = 1
    holding = []
    reached, recalled = (torch.zeros(len(reference), dtype=torch.bool, device=place) for _ in range(2))
    hits = torch.zeros(halves, len(reference), dtype=torch.bool, device=place)
    for rows, radii, half in zip(samples.split(ROWS), own.split(ROWS), kept.to(place).split(ROWS, dim=1), strict=True):
        part = rows.double()
        between = products(part, reference)
        held = inside(between, its, part, reference, ties)
        holding.append(held.sum(1))
        reached |= held.any(0)
        recalled |= inside(between, radii[:, None], part, reference, ties).any(0)
        hits |= half @ held.double() > 0
    return Balls(torch.cat(holding), reached, recalled, hits.double().mean(1))


def prdc(samples: Tensor, reference: Tensor, neighbours: int, halves: int, ties: Ties = "<=") -> dict[str, Measured]:
    """(N, D) and (M, D) features -> `precision`, `recall`, `density` and `coverage`.

    The standard errors of recall and coverage are the spread of `halves` of the samples: a resample that repeats images covers less than
    a new draw. Density is a mean over samples, whose resamples are as many.
    """
    of = balls(samples, reference, neighbours, halves, ties)
    density = of.holding.double().cpu() / neighbours
    how = f"{halves} halves of the samples, drawn without replacement, seeded: {ERRORS}"
    recall_error = stdev(recall_of_halves(samples, reference, neighbours, halves))
    return {
        "precision": share((of.holding > 0).double().mean().item(), len(samples)),
        "recall": around(of.recalled.double().mean().item(), recall_error, how, least=0.0, most=1.0),
        "density": by_resampling(density.mean().item(), means("density", density, halves), least=0.0),
        "coverage": around(of.reached.double().mean().item(), stdev(of.reached_by_halves.tolist()), how, least=0.0, most=1.0),
    }
