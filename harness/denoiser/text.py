"""Conditions made of words, in the place of class labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.denoiser.layers import Attention, RMSNorm, SwiGLU
from harness.study.typed import UserError


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


class WordStates(nn.Module):
    """Prompts by number -> a state of each word and place, in the place of a text encoder's hidden states.

    `tokens` as for TextEmbedding. Texts are filled up to `length`; UserError where one is longer.
    """

    def __init__(self, tokens: Tensor, width: int, length: int) -> None:
        super().__init__()
        if tokens.shape[1] > length:
            raise UserError(f"denoiser.condition_tokens {length} is too few: the longest prompt has {tokens.shape[1]} words")
        tokens = F.pad(tokens, (0, length - tokens.shape[1]))
        self.register_buffer("tokens", tokens, persistent=False)  # part of the study, not of the weights
        self.words = nn.Embedding(int(tokens.max()) + 1, width)
        self.places = nn.Parameter(torch.empty(length, width))
        for table in (self.words.weight, self.places):
            nn.init.normal_(table)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) -> states (B, length, width), and which are a word's (B, length)."""
        tokens = self.tokens[y]
        return self.words(tokens) + self.places, tokens > 0


class GivenStates(nn.Module):
    """Prompts by number -> states (prompts + 1, L, width) that a text encoder gave, and which of them are real (prompts + 1, L) bool.

    The last are the null prompt's. They are stored with the weights.
    """

    def __init__(self, states: Tensor, real: Tensor) -> None:
        super().__init__()
        self.register_buffer("states", states)
        self.register_buffer("real", real)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) -> (B, L, width), (B, L)."""
        return self.states[y], self.real[y]
