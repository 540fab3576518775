"""Nearest neighbours and balls around points, decided in float64, in blocks of rows.

Distances come from a matrix product, whose rounding could decide a tie; pairs that it cannot tell apart are computed again from the
differences, which give equal distances equal values. All distances are squared.
"""

from typing import Literal

import torch
from torch import Tensor

ROWS = 256  # of distances at once
SPARE = 8  # candidates beside the k nearest, so that rounding does not lose one
CLOSE = 1e-12  # of the squared norms: more than the product's rounding, at 2,048 features about 1e-13
VALUES = 2**22  # of differences at once

Ties = Literal["<", "<="]  # whether a point on the surface is inside a ball: no (dgm-eval), yes (torch-fidelity, ADM, FD-Loss)


def nearest(rows: Tensor, others: Tensor, count: int, own: bool = False) -> tuple[Tensor, Tensor]:
    """(N, D) and (M, D) -> squared distances (N, count) float64 to the nearest others, ascending, and which they are (N, count).

    `own`: others are the rows themselves, and none is its own neighbour. There must be more than `count` others.
    """
    values, numbers, start = [], [], 0
    others = others.double()
    for part in (part.double() for part in rows.split(ROWS)):
        between = products(part, others)
        if own:
            here = torch.arange(len(part), device=part.device)
            between[here, start + here] = torch.inf
        candidates = between.topk(min(count + SPARE, len(others) - own), largest=False).indices
        pairs = torch.arange(len(part), device=part.device).repeat_interleave(candidates.shape[1])
        exact = differences(part, others, pairs, candidates.flatten()).view(candidates.shape)
        order = exact.sort(dim=1, stable=True)
        values.append(order.values[:, :count])
        numbers.append(candidates.gather(1, order.indices)[:, :count])
        start += len(part)
    return torch.cat(values), torch.cat(numbers)


def products(rows: Tensor, others: Tensor) -> Tensor:
    """(N, D) and (M, D) float64 -> squared distances (N, M), to rounding."""
    return rows.square().sum(1, keepdim=True) + others.square().sum(1) - 2 * rows @ others.T


def differences(rows: Tensor, others: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Squared distances (P,) of the pairs of rows (N, D) numbered first (P,) and others (M, D) numbered second (P,), float64."""
    at_once = max(1, VALUES // rows.shape[1])
    parts = [(rows[one] - others[other]).square().sum(1) for one, other in zip(first.split(at_once), second.split(at_once), strict=True)]
    return torch.cat(parts)


def inside(between: Tensor, radii: Tensor, rows: Tensor, others: Tensor, ties: Ties) -> Tensor:
    """Which of `between` (N, M), the products of rows and others, are within squared radii, (M,) or (N, 1): booleans (N, M)."""
    radii = radii.expand_as(between)
    within = between < radii
    close = CLOSE * (rows.square().sum(1, keepdim=True) + others.square().sum(1))
    first, second = ((between - radii).abs() <= close).nonzero(as_tuple=True)
    if len(first):
        exact, radius = differences(rows, others, first, second), radii[first, second]
        within[first, second] = exact < radius if ties == "<" else exact <= radius
    return within
