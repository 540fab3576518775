"""Whitening statistics that are published: read, checked, and as a Whitening."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from harness.encoder.whitening import EPSILON, Whitening
from harness.store import foreign
from harness.study.typed import UserError

Shape = tuple[int, int, int]


def read_statistics(path: Path, shape: Shape, multiplier: float = 1.0) -> tuple[Whitening, dict[str, object]]:
    """The whitening by a file's statistics, and what to record of them; otherwise as `whitening_of`."""
    entries = foreign.read_entries(path, ("mean", "var", "std"))
    shapes = {name: list(value.shape) if value is not None else None for name, value in entries.items()}
    return whitening_of(entries, shape, path, multiplier), {"entries": shapes, "multiplier": multiplier}


def whitening_of(entries: Mapping[str, Tensor | None], shape: Shape, path: Path, multiplier: float = 1.0) -> Whitening:
    """By `mean` and `var` (RAE's and the authors' rae.py, diffusion-bench) or `mean` and `std` (LightningDiT), each of `shape`.

    That is (C, 1, 1) or (C, H, W); one more axis of 1 may come first. Whitened latents are (raw - mean) / sqrt(var + 1e-5), or
    (raw - mean) / std, times `multiplier`. A mean that is there as None is 0, as in RAE's file of DINOv2. UserError that names `path` where
    one of the two is missing, or of another shape, not finite in float32, or not positive.
    """
    spreads = [name for name in ("var", "std") if entries.get(name) is not None]
    if "mean" not in entries or len(spreads) != 1:
        there = ", ".join(f"'{name}'" for name in entries) or "neither of them"
        raise UserError(f"{path}: whitening statistics are 'mean' and 'var', or 'mean' and 'std'; it has {there}")
    [name] = spreads
    spread = _checked(name, entries[name], shape, path)
    mean = spread.new_zeros(shape) if entries["mean"] is None else _checked("mean", entries["mean"], shape, path)
    if wrong := int((spread <= 0).sum()):
        raise UserError(f"{path}: '{name}' is not positive ({wrong} of {spread.numel()} values); not statistics of latents, or damaged")
    std = ((spread + EPSILON).sqrt() if name == "var" else spread) / multiplier
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        by = "" if multiplier == 1 else f", by the multiplier {multiplier:g},"
        raise UserError(f"{path}: 'mean' or '{name}'{by} is beyond float32, which latents are in; not statistics of latents, or damaged")
    return Whitening(mean, std)


def _checked(name: str, value: Tensor, shape: Shape, path: Path) -> Tensor:
    """(*shape) in float32."""
    inner = value[0] if value.dim() == len(shape) + 1 and len(value) == 1 else value
    if tuple(inner.shape) != shape:
        raise UserError(
            f"{path}: '{name}' is {tuple(value.shape)}, the study's encoder and latents.whitening need {shape}; is it of this encoder, and "
            "by channel or by position as the study says?"
        )
    if not value.is_floating_point():
        raise UserError(f"{path}: '{name}' is {str(value.dtype).removeprefix('torch.')}, not floating-point; get it again")
    return inner.float()
