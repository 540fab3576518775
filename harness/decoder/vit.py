"""RAE's ViT decoder: latent tokens -> pixels. Parameter names as released (RAE `src/stage1/decoders`, a ViT-MAE decoder)."""

import torch
from torch import Tensor, nn

from harness.encoder.positions import sincos_2d
from harness.encoder.vit_layer import Layer


class ViTDecoder(nn.Module):
    """Tokens (B, side * side, channels) -> image (B, 3, H, W), with H = side * patch. A learned class token goes first and is dropped."""

    def __init__(self, *, channels: int, side: int, patch: int, width: int, depth: int, heads: int, mlp: int, eps: float = 1e-12) -> None:
        super().__init__()
        self.side, self.patch = side, patch
        self.decoder_embed = nn.Linear(channels, width)
        self.trainable_cls_token = nn.Parameter(torch.zeros(1, 1, width))
        table = torch.cat([torch.zeros(1, width), sincos_2d(width, side)])
        self.register_buffer("decoder_pos_embed", table[None])
        self.decoder_layers = nn.ModuleList(Layer(width, heads, mlp, eps) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width, eps)
        self.decoder_pred = nn.Linear(width, 3 * patch**2)

    def decode(self, raw: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> pixels (B, 3, H, W)."""
        return self(raw.flatten(2).transpose(1, 2))

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, P, channels) -> (B, P, patch * patch * 3)."""
        x = self.decoder_embed(tokens)
        x = torch.cat([self.trainable_cls_token.expand(len(x), -1, -1), x], dim=1) + self.decoder_pos_embed
        for layer in self.decoder_layers:
            x = layer(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, side * side, channels) -> (B, 3, side * patch, side * patch)."""
        side, patch = self.side, self.patch
        x = self.logits(tokens).reshape(-1, side, side, patch, patch, 3)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, side * patch, side * patch)
