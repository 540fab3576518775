"""Layers that denoisers are made of: rotary tables, attention, blocks, embeddings.

Parameter names follow the released code (DSR `src/stage2/models/model_utils.py` and `lightningDiT.py`), so that published weights
load with `strict=True`. Differences, both deliberate: fixed tables are buffers (there, train.py:252 unfreezes them; a study's
`frozen: released` does), and nothing is moved to a device by hand (model_utils.py:185).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotary embedding from a table of angles, (N, head_width), one for both of each pair of neighbouring channels."""

    def __init__(self, angle: Tensor, *, stored: bool = True) -> None:
        super().__init__()
        self.register_buffer("freqs_cos", angle.cos(), persistent=stored)
        self.register_buffer("freqs_sin", angle.sin(), persistent=stored)

    def forward(self, x: Tensor) -> Tensor:
        """(..., N, head_width): neighbouring channels are one complex number, turned by the token's angle.

        Half precision is turned in float32 and given back as it came, as the released code does under autocast.
        """
        cos, sin = self.rows(x.shape[-2])
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        turned = self.by_reals(wide, cos, sin) if torch.compiler.is_compiling() else self.by_complex(wide, cos, sin)
        return turned.to(x.dtype)

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, head_width) cosines and sines: the table's last rows, so that the patches keep their own."""
        return self.freqs_cos[-count:], self.freqs_sin[-count:]

    @staticmethod
    def by_complex(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (..., N, head_width), cos and sin (N, head_width) -> as x. The faster in eager mode: one kernel."""
        turn = torch.complex(cos[:, ::2], sin[:, ::2])
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)

    @staticmethod
    def by_reals(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """As `by_complex`, for the compiler, which makes no code for complex numbers."""
        even, odd = x[..., ::2], x[..., 1::2]
        return x * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin


class RotaryTable(Rotary):
    """2-D rotary embedding of a `side` x `side` token map, preceded by `still` unrotated rows (released model_utils.py,
    VisionRotaryEmbeddingFast). `stored`: whether checkpoints hold it."""

    def __init__(self, head_width: int, side: int, still: int = 0, *, stored: bool = True) -> None:
        where = None if stored else "cpu"  # not on `meta`, where no weights that are loaded later would fill it
        quarter = torch.arange(0, head_width // 2, 2, device=where)[: head_width // 4].float() / (head_width // 2)
        angle = torch.arange(side, device=where).float()[:, None] * (1.0 / 10000**quarter)  # (side, head_width / 4)
        angle = angle.repeat_interleave(2, dim=-1)
        rows = angle[:, None, :].expand(side, side, -1)
        columns = angle[None, :, :].expand(side, side, -1)
        angle = torch.cat([rows, columns], dim=-1).reshape(side * side, -1)
        angle = torch.cat([torch.zeros(still, angle.shape[1], device=where), angle])  # angle 0: no rotation
        super().__init__(angle, stored=stored)


def after_still(cos: Tensor, sin: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(N, head_width) cosines and sines of the last rows -> (count, head_width): rows before them that are not turned, then these."""
    return F.pad(cos, (0, 0, count - len(cos), 0), value=1.0), F.pad(sin, (0, 0, count - len(sin), 0))


class RMSNorm(nn.Module):
    """Over the last axis; half precision is normalised in the weight's precision and given back as it came."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> as x."""
        return F.rms_norm(x.to(self.weight.dtype), (x.shape[-1],), self.weight, self.eps).to(x.dtype)


PlainLayerNorm = partial(nn.LayerNorm, elementwise_affine=False, eps=1e-6)


class Attention(nn.Module):
    """Self-attention; with `qk_norm`, queries and keys are normalised per head before they are rotated."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qk_norm = qk_norm
        if qk_norm:
            self.q_norm = RMSNorm(width // heads)
            self.k_norm = RMSNorm(width // heads)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotate: RotaryTable | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        query, key, value = self.heads_of(x, rotate)
        x = F.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).flatten(2))

    def heads_of(self, x: Tensor, rotate: RotaryTable | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) -> query, key and value, each (B, heads, N, C / heads)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pair, value = qkv.split([2, 1])  # the gradients of slices would be padded with zeros
        if self.qk_norm:
            query, key = pair.unbind()
            pair = torch.stack([self.q_norm(query), self.k_norm(key)])
        query, key = (rotate(pair) if rotate else pair).unbind()
        return query, key, value.squeeze(0)


class SwiGLU(nn.Module):
    """Gated MLP (Shazeer 2020) whose hidden width is two thirds of `hidden`, so that it has as many weights as one without a gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = int(2 / 3 * hidden)
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> as x."""
        return self.w3(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., hidden)."""
        gate, up = self.w12(x).chunk(2, dim=-1)
        return F.silu(gate) * up


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: (B, N, C) tokens with (B, 1, C) or (B, N, C) shift and scale."""
    return torch.addcmul(shift, x, 1 + scale)


class Modulation(nn.Sequential):
    """`parts` vectors of adaLN from a condition; without `silu`, from one that has been through it."""

    def __init__(self, width: int, parts: int, *, silu: bool = True) -> None:
        super().__init__(*[nn.SiLU()] * silu, nn.Linear(width, parts * width))
        self.parts = parts

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """(B, C), one for all tokens of a sample, or (B, N, C), one per token -> `parts` of (B, 1, C) or (B, N, C)."""
        out = super().forward(condition)
        if out.ndim == 2:
            out = out.unsqueeze(1)
        return out.chunk(self.parts, dim=-1)


class Block(nn.Module):
    """Transformer block under adaLN (released LightningDiTBlock in lightningDiT.py, LightningDDTBlock in DDT.py)."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        *,
        norm: Callable[[int], nn.Module] = RMSNorm,
        mlp: Callable[[int, int], nn.Module] = SwiGLU,
        qk_norm: bool = False,
        qkv_bias: bool = True,
        silu: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, heads, qk_norm=qk_norm, qkv_bias=qkv_bias)
        self.norm2 = norm(width)
        self.mlp = mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = Modulation(width, 6, silu=silu)

    def forward(self, x: Tensor, condition: Tensor, rotate: RotaryTable | None = None) -> Tensor:
        """x (B, N, C), condition (B, C) or (B, N, C) -> (B, N, C)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition)
        x = torch.addcmul(x, gate1, self.attn(modulate(self.norm1(x), shift1, scale1), rotate))
        return torch.addcmul(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))


class FinalLayer(nn.Module):
    """Tokens (B, N, C) -> (B, N, out) under adaLN (released LightningFinalLayer in lightningDiT.py, DDTFinalLayer in DDT.py)."""

    def __init__(self, width: int, out: int, norm: Callable[[int], nn.Module] = RMSNorm, *, silu: bool = True) -> None:
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = Modulation(width, 2, silu=silu)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, N, C), condition (B, C) or (B, N, C) -> (B, N, out)."""
        shift, scale = self.adaLN_modulation(condition)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class FourierTimeEmbedding(nn.Module):
    """Gaussian Fourier features of t in [0, 1], then an MLP. `W` is frozen, unless a study says `frozen: released`."""

    def __init__(self, width: int, features: int = 256) -> None:
        super().__init__()
        self.register_buffer("W", torch.randn(features))
        self.mlp = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        angle = 2 * math.pi * t[:, None] * self.W
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))


class SinusoidTimeEmbedding(nn.Module):
    """Sinusoids of t at fixed frequencies, cosines first, then an MLP (SiT, JiT and DDT; their checkpoints hold no table)."""

    def __init__(self, width: int, features: int = 256, max_period: float = 10000) -> None:
        super().__init__()
        self.half, self.max_period = features // 2, max_period
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        steps = torch.arange(self.half, dtype=torch.float32, device=t.device)
        angle = t[:, None] * torch.exp(-math.log(self.max_period) * steps / self.half)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))


class LabelEmbedding(nn.Module):
    """Class embedding with one extra row, `num_classes`, for the null label."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        """(B,) int64 -> (B, width)."""
        return self.embedding_table(y)


class PatchEmbedding(nn.Module):
    """Patches -> tokens, linear."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, patches, width), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)
