"""A condition made of words, in the place of class labels."""

import torch
from torch import Tensor, nn

from harness.denoiser.layers import Attention, RMSNorm, SwiGLU


class TextEmbedding(nn.Module):
    """Prompts by number -> one vector each: words with their places, one transformer layer, a linear map of all words together.

    `tokens` (prompts + 1, L) int64: word numbers from 1, 0 fills up; the last row is the null prompt, which has no words. Prompts share the
    weights of their words, so that one that training never saw means something.
    """

    def __init__(self, tokens: Tensor, width: int, heads: int) -> None:
        super().__init__()
        length = tokens.shape[1]
        self.register_buffer("tokens", tokens, persistent=False)  # part of the study, not of the weights
        self.words = nn.Embedding(int(tokens.max()) + 1, width)
        self.places = nn.Parameter(torch.empty(length, width))
        for table in (self.words.weight, self.places):
            nn.init.normal_(table)  # as large as what the layers add: words must not drown
        self.norm1, self.attn = RMSNorm(width), Attention(width, heads)
        self.norm2, self.mlp = RMSNorm(width), SwiGLU(width, 3 * width)
        self.norm, self.pooled = RMSNorm(width), nn.Linear(length * width, width)

    def forward(self, y: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        x = self.words(self.tokens[y]) + self.places
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.pooled(self.norm(x).flatten(1))
