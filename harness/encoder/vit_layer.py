"""A pre-norm layer of a ViT, under the names of the released RAE decoders; the decoder is made of it, and what plans count of a tower."""

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Only the projections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)


class Dense(nn.Module):
    """One linear layer under the name `dense`, where the released checkpoints keep it."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width_in) -> (..., width_out)."""
        return self.dense(x)


class Attention(nn.Module):
    """(B, tokens, width) -> same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = SelfAttention(width)
        self.output = Dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        maps = (self.attention.query, self.attention.key, self.attention.value)
        query, key, value = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in maps)
        return self.output(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """(B, tokens, width) -> same."""

    def __init__(self, width: int, heads: int, mlp: int, eps: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = Dense(width, mlp)
        self.output = Dense(mlp, width)
        self.layernorm_before = nn.LayerNorm(width, eps)
        self.layernorm_after = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))
