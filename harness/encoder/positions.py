"""Fixed tables of positions, as MAE and DiT have them."""

import torch
from torch import Tensor


def sincos_1d(width: int, positions: Tensor) -> Tensor:
    """(N,) positions -> (N, width) float32 table: sines first, then cosines."""
    omega = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double().reshape(-1, 1) * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_2d(width: int, side: int) -> Tensor:
    """(side * side, width) table; the first half of the channels encodes the column (MAE's order)."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.cat([sincos_1d(width // 2, column), sincos_1d(width // 2, row)], dim=1)
