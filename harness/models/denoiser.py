"""LightningDiT with diffusion registers.

Architecture and parameter names follow the authors' release (DSR `src/stage2/models/lightningDiT.py`
and `model_utils.py`), so that published weights load with `strict=True`. Differences, all deliberate:
fixed tables are buffers and stay frozen (there, train.py:252 unfreezes them), nothing is moved to a device by hand
(model_utils.py:185), a register start at or beyond the depth is refused (there, lightningDiT.py strips registers it never added).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import UserError


def sincos_1d(width: int, positions: Tensor) -> Tensor:
    """(N,) positions -> (N, width) float32 table: sines first, then cosines."""
    omega = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double().reshape(-1, 1) * omega
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sincos_2d(width: int, grid: int) -> Tensor:
    """(grid * grid, width) table; the first half of the channels encodes the column (MAE's order)."""
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    return torch.cat([sincos_1d(width // 2, column), sincos_1d(width // 2, row)], dim=1)


def register_positions(width: int, count: int) -> Tensor:
    """(count, width) table for diffusion registers.

    A square grid where `count` is a square, as released; otherwise a line, since registers have no place in the image.
    """
    side = math.isqrt(count)
    if side * side == count:
        return sincos_2d(width, side)
    return sincos_1d(width, torch.arange(count))


class RotaryTable(nn.Module):
    """2-D rotary embedding of a `grid` x `grid` token map, preceded by `registers` unrotated rows."""

    def __init__(self, head_width: int, grid: int, registers: int = 0) -> None:
        super().__init__()
        quarter = torch.arange(0, head_width // 2, 2)[: head_width // 4].float() / (head_width // 2)
        angle = torch.arange(grid).float()[:, None] * (1.0 / 10000**quarter)  # (grid, head_width / 4)
        angle = angle.repeat_interleave(2, dim=-1)
        rows = angle[:, None, :].expand(grid, grid, -1)
        columns = angle[None, :, :].expand(grid, grid, -1)
        angle = torch.cat([rows, columns], dim=-1).reshape(grid * grid, -1)
        still = torch.zeros(registers, angle.shape[1])  # angle 0: registers are not rotated
        angle = torch.cat([still, angle])
        self.register_buffer("freqs_cos", angle.cos())
        self.register_buffer("freqs_sin", angle.sin())

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, head_width): neighbouring channels are one complex number, turned by the token's angle."""
        turn = torch.complex(self.freqs_cos[:, ::2], self.freqs_sin[:, ::2])
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotate: RotaryTable) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = rotate(qkv[:2])
        x = F.scaled_dot_product_attention(query, key, qkv[2])
        return self.proj(x.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * up)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: (B, N, C) tokens with (B, C) shift and scale."""
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, int(2 / 3 * int(width * mlp_ratio)))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor, rotate: RotaryTable) -> Tensor:
        """x (B, N, C), condition (B, C)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = torch.addcmul(x, gate1.unsqueeze(1), self.attn(modulate(self.norm1(x), shift1, scale1), rotate))
        return torch.addcmul(x, gate2.unsqueeze(1), self.mlp(modulate(self.norm2(x), shift2, scale2)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = RMSNorm(width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class TimeEmbedding(nn.Module):
    """Gaussian Fourier features of t in [0, 1], then an MLP. `W` is frozen."""

    def __init__(self, width: int, features: int = 256) -> None:
        super().__init__()
        self.register_buffer("W", torch.randn(features))
        self.mlp = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angle = 2 * math.pi * t[:, None] * self.W
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))


class LabelEmbedding(nn.Module):
    """Class embedding with one extra row, `num_classes`, for the null label."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class PatchEmbedding(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class LightningDiT(nn.Module):
    """Denoiser over a latent grid.

    `registers` learnable tokens, the same for every sample, are prepended before block `register_start`, take part in every later
    block and are dropped before the final layer (released lightningDiT.py:305-317).

    Raises UserError for a register start outside the depth, a negative count or a latent grid that the patch size does not divide.
    """

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        patch_size: int = 1,
        mlp_ratio: float = 4.0,
        registers: int = 0,
        register_start: int = 0,
    ) -> None:
        super().__init__()
        if registers < 0 or (registers and not 0 <= register_start < depth):
            raise UserError(
                f"diffusion registers: count {registers} with start {register_start} does not fit a denoiser of {depth} blocks; "
                f"take a count of 0 or more and a start from 0 to {depth - 1}"
            )
        if input_size % patch_size or hidden_size % (4 * num_heads):
            raise UserError(
                f"denoiser: latent grid {input_size} must be a multiple of the patch size {patch_size}, "
                f"and width {hidden_size} of 4 x {num_heads} heads"
            )
        self.num_classes = num_classes
        self.patch_size = patch_size
        self.grid = input_size // patch_size
        self.registers = registers
        self.register_start = register_start
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = TimeEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.register_buffer("pos_embed", sincos_2d(hidden_size, self.grid)[None])
        self.feat_rope = RotaryTable(hidden_size // num_heads, self.grid)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * in_channels)
        self.initialise()
        # Registers come last, so that every other weight is the same with and without them for one seed.
        if registers:
            self.register_tokens = nn.Parameter(torch.randn(1, registers, hidden_size))
            self.register_buffer("register_pos_embed", register_positions(hidden_size, registers)[None])
            self.feat_rope_incontext = RotaryTable(hidden_size // num_heads, self.grid, registers)

    def initialise(self) -> None:
        """DiT's initialisation: Xavier for linear layers, zero for every adaLN and for the last projection."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.x_embedder.proj.weight.shape[0], -1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in [block.adaLN_modulation[1] for block in self.blocks] + [
            self.final_layer.adaLN_modulation[1],
            self.final_layer.linear,
        ]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> prediction (B, C, H, W)."""
        condition = self.t_embedder(t) + self.y_embedder(y)
        x = self.x_embedder(x) + self.pos_embed
        rotate = self.feat_rope
        for index, block in enumerate(self.blocks):
            if self.registers and index == self.register_start:
                registers = (self.register_tokens + self.register_pos_embed).expand(x.shape[0], -1, -1)
                x = torch.cat([registers, x], dim=1)
                rotate = self.feat_rope_incontext
            x = block(x, condition, rotate)
        return self.unpatchify(self.final_layer(x[:, self.registers :], condition))

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, grid * grid, patch * patch * C) -> (B, C, H, W)."""
        patch, grid = self.patch_size, self.grid
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (grid, grid))
        return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, grid * patch, grid * patch)
