"""RAE's ViT decoder: latent tokens -> pixels. Parameter names as released (RAE `src/stage1/decoders`, a ViT-MAE decoder)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.encoder.positions import sincos_2d


class SelfAttention(nn.Module):
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
        return self.dense(x)


class Attention(nn.Module):
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


class ViTDecoder(nn.Module):
    """Tokens (B, grid * grid, channels) -> image (B, 3, H, W), with H = grid * patch. A learned class token goes first and is dropped."""

    def __init__(self, *, channels: int, grid: int, patch: int, width: int, depth: int, heads: int, mlp: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.decoder_embed = nn.Linear(channels, width)
        self.trainable_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        table = torch.cat([torch.zeros(1, width), sincos_2d(width, grid)])
        self.register_buffer("decoder_pos_embed", table[None])
        self.decoder_layers = nn.ModuleList(Layer(width, heads, mlp, eps) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps)
        self.decoder_pred = nn.Linear(width, 3 * patch**2)

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, P, channels) -> (B, P, patch * patch * 3)."""
        x = self.decoder_embed(tokens)
        x = torch.cat([self.trainable_cls_token.expand(len(x), -1, -1), x], dim=1) + self.decoder_pos_embed
        for layer in self.decoder_layers:
            x = layer(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def forward(self, tokens: Tensor) -> Tensor:
        grid, patch = self.grid, self.patch
        x = self.logits(tokens).reshape(-1, grid, grid, patch, patch, 3)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, grid * patch, grid * patch)
