"""What scores need of sets of features before they look at them."""

from torch import Tensor

from harness.machine.device import device
from harness.study.typed import UserError

UNIT = 1e-3  # by how much a norm may differ from 1, that half precision has rounded


def checked(score: str, least: int, **sets: Tensor) -> list[Tensor]:
    """(N, D) sets of one D, by what they are called -> the same on the device. UserError for what `score` cannot be of.

    That is fewer than `least` rows, widths that differ, and values that are not finite.
    """
    first = next(iter(sets))
    for name, rows in sets.items():
        if rows.ndim != 2 or not rows.is_floating_point():
            raise UserError(f"{score}: {name} must be features (N, D) in floating point, got {tuple(rows.shape)} {rows.dtype}")
        if len(rows) < least:
            raise UserError(f"{score} needs at least {least} rows of features: {name} has {len(rows)}")
        if rows.shape[1] != sets[first].shape[1]:
            raise UserError(f"{score}: {first} has {sets[first].shape[1]} features, {name} {rows.shape[1]}; they must be of one network")
        finite = rows.isfinite().all(dim=1)
        if not finite.all():
            raise UserError(f"{score}: {name} has features that are not finite, first in row {int(finite.long().argmin())}")
    return [rows.to(device()) for rows in sets.values()]


def unit(score: str, least: int, **sets: Tensor) -> list[Tensor]:
    """`checked`, and each row of norm 1, which `score` is defined for. UserError for another: it would give a number, and a wrong one."""
    rows_of = checked(score, least, **sets)
    for name, rows in zip(sets, rows_of, strict=True):
        norms = rows.double().norm(dim=1)
        off = ((norms - 1).abs() > UNIT).nonzero()
        if len(off):
            row = int(off[0])
            raise UserError(f"{score}: {name} must be divided by their norms: row {row} has norm {norms[row].item():.4g}")
    return rows_of
