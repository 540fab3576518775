"""The DDT of diffusion-bench (End2End-Diffusion/diffusion-bench `src/stage2/models/DDT.py`, class DiTwDDTHead), with diffusion registers.

Not the class of that name in the released code: time and label, or text, are tokens beside the patches of an encoder without adaLN.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.denoiser.base import Denoiser, check_width
from harness.denoiser.layers import (
    FourierTimeEmbedding,
    LabelEmbedding,
    Modulation,
    PatchEmbedding,
    RMSNorm,
    Rotary,
    RotaryTable,
    after_still,
    modulate,
)
from harness.denoiser.text import GivenStates, WordStates
from harness.study.sections.denoiser import DiffusionBenchDDTShape

PROJECTOR = "repa_projector."


class PatchesFirstTable(RotaryTable):
    """RotaryTable whose `still` unrotated rows are stored after those of the patches; of the tokens, the patches are the last, as ever."""

    def __init__(self, head_width: int, side: int, still: int = 0) -> None:
        super().__init__(head_width, side)
        self.patches = side**2
        self.freqs_cos = F.pad(self.freqs_cos, (0, 0, 0, still), value=1.0)
        self.freqs_sin = F.pad(self.freqs_sin, (0, 0, 0, still))

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, head_width) cosines and sines; what stands before the patches is not turned."""
        return after_still(self.freqs_cos[: self.patches], self.freqs_sin[: self.patches], count)


class Attention(nn.Module):
    """Self-attention with a matrix each for query, key and value; queries and keys are normalised per head before they are rotated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotate: Rotary, mask: Tensor | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C). `mask` (B, 1, 1, N) bool: the keys that are seen; None: all."""
        attended = F.scaled_dot_product_attention(*self.heads_of(x, rotate), attn_mask=mask)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def heads_of(self, x: Tensor, rotate: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) -> query, key and value, each (B, heads, N, C / heads)."""
        query, key, value = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q, self.k, self.v))
        return rotate(self.q_norm(query)), rotate(self.k_norm(key)), value


class SwiGLU(nn.Module):
    """Gated MLP with two matrices in the place of one, whose hidden width is two thirds of `hidden`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = int(2 / 3 * hidden)
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> as x."""
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class EncoderBlock(nn.Module):
    """Transformer block without adaLN."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, rotate: Rotary, mask: Tensor | None) -> Tensor:
        """x (B, N, C) -> (B, N, C); `mask` as of Attention."""
        x = x + self.attn(self.norm1(x), rotate, mask=mask)
        return x + self.mlp(self.norm2(x))


class HeadBlock(EncoderBlock):
    """Transformer block under adaLN, token by token."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__(width, heads, mlp_ratio)
        self.adaln_modulation = Modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor, rotate: Rotary) -> Tensor:  # type: ignore[override]
        """x and condition (B, N, C) -> (B, N, C)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln_modulation(condition)
        x = torch.addcmul(x, gate1, self.attn(modulate(self.norm1(x), shift1, scale1), rotate))
        return torch.addcmul(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))


class FinalLayer(nn.Module):
    """Tokens (B, N, C) -> (B, N, out) under adaLN, token by token."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.linear = nn.Linear(width, out)
        self.adaln_modulation = Modulation(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x and condition (B, N, C) -> (B, N, out)."""
        shift, scale = self.adaln_modulation(condition)
        return self.linear(modulate(self.norm(x), shift, scale))


class TimeTokens(FourierTimeEmbedding):
    """The embedding of a time, and `count` tokens of it."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__(width)
        self.learnable_tokens = nn.Parameter(0.02 * torch.randn(count, width))

    def tokens(self, time: Tensor) -> Tensor:
        """Embedded times (B, width) -> (B, count, width)."""
        return self.learnable_tokens + time.unsqueeze(1)


class LabelTokens(LabelEmbedding):
    """`count` tokens of a class."""

    def __init__(self, num_classes: int, width: int, count: int) -> None:
        super().__init__(num_classes, width)
        self.learnable_tokens = nn.Parameter(0.02 * torch.randn(count, width))

    def forward(self, y: Tensor) -> Tensor:
        """(B,) int64 -> (B, count, width)."""
        return self.learnable_tokens + super().forward(y).unsqueeze(1)


class TextTokens(nn.Module):
    """A token of each position of a text."""

    def __init__(self, context_width: int, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(context_width)
        self.proj = nn.Linear(context_width, width)

    def forward(self, context: Tensor) -> Tensor:
        """(B, L, context_width) -> (B, L, width)."""
        return self.proj(self.norm(context))


class DiffusionBenchDDT(Denoiser):
    """A DiT encoder of `depth` blocks over patches, `time_tokens` of the time and `condition_tokens` of the label or the text. Its patches,
    with the time, condition a shallow, wide head of `head_depth` blocks, token by token; t = 0 is data, t = 1 is noise, as there.

    `condition` is `label`, or `text`: then `y_embedder` turns what stands in the place of labels into states of the text (B,
    condition_tokens, context_width) and which of them are real (B, condition_tokens), and the others are seen by no token. What is not set
    passes on what it is given: such a model is called with that pair.

    `blocks` holds the encoder's blocks, then the head's. Parameter names as published, so that the weights load with `strict=True`. There
    the encoder's tokens are patches, time, condition; here registers, time, condition, patches, which changes nothing but the order.
    Registers do as in DiT^DH: those of the encoder, with the time, condition the head's own; both are dropped before the final layer.

    Raises UserError as DiTDH does.
    """

    @classmethod
    def own(cls, shape: DiffusionBenchDDTShape) -> dict[str, object]:
        """Those of the head and of the tokens in context."""
        head = {"head_width": shape.head.width, "head_depth": shape.head.depth, "head_heads": shape.head.heads}
        return head | {name: getattr(shape, name) for name in ("condition", "time_tokens", "condition_tokens", "context_width")}

    @classmethod
    def from_published(cls, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Without the projector that aligned the encoder with another one in training."""
        kept = {name: value for name, value in tensors.items() if not name.startswith(PROJECTOR)}
        dropped = len(tensors) - len(kept)
        return kept, {"dropped": {f"{PROJECTOR}*": dropped}} if dropped else {}

    @classmethod
    def text(cls, tokens: Tensor, shape: DiffusionBenchDDTShape) -> nn.Module:
        """States of a text that are learned with the denoiser, one of each word; or a place for given ones."""
        if shape.states == "given":
            size = (len(tokens), shape.condition_tokens)
            return GivenStates(torch.zeros(*size, shape.context_width), torch.zeros(size, dtype=torch.bool))
        return WordStates(tokens, shape.context_width, shape.condition_tokens)

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        head_width: int,
        head_depth: int,
        head_heads: int,
        condition: str = "label",
        time_tokens: int = 4,
        condition_tokens: int = 8,
        context_width: int | None = None,
        patch_size: int = 1,
        mlp_ratio: float = 4.0,
        registers: int = 0,
        register_start: int = 0,
    ) -> None:
        super().__init__(
            input_size=input_size,
            patch_size=patch_size,
            num_classes=num_classes,
            depth=depth,
            registers=registers,
            register_start=register_start,
        )
        check_width("denoiser", hidden_size, num_heads)
        check_width("denoiser's head", head_width, head_heads)
        self.depth = depth
        self.s_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.x_embedder = PatchEmbedding(in_channels, head_width, patch_size)
        self.s_projector = nn.Linear(hidden_size, head_width) if hidden_size != head_width else nn.Identity()
        self.t_embedder = TimeTokens(hidden_size, time_tokens)
        self.ctx_embedder: nn.Module = LabelTokens(num_classes, hidden_size, condition_tokens)
        if condition == "text":
            self.ctx_embedder = TextTokens(context_width, hidden_size)
            self.y_embedder = nn.Identity()
        self.of_text = condition == "text"
        encoder = [EncoderBlock(hidden_size, num_heads, mlp_ratio) for _ in range(depth)]
        head = [HeadBlock(head_width, head_heads, mlp_ratio) for _ in range(head_depth)]
        self.blocks = nn.ModuleList(encoder + head)
        self.final_layer = FinalLayer(head_width, patch_size**2 * in_channels)
        self.enc_rope = PatchesFirstTable(hidden_size // num_heads, self.side, time_tokens + condition_tokens)
        self.dec_rope = PatchesFirstTable(head_width // head_heads, self.side)
        self.initialise(xavier=False)  # linear layers stay at torch's default, as there
        if registers:
            self.add_registers(hidden_size, "enc_")
            self.add_registers(head_width, "dec_")

    def forward(self, x: Tensor, t: Tensor, y: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) or as told above -> prediction (B, C, H, W)."""
        time = self.t_embedder(t)
        s = self.s_projector(F.silu(time.unsqueeze(1) + self.encoded(x, time, y)))
        x = self.x_embedder(x)
        if self.registers:
            x = self.prepend_registers(x, "dec_")
        for block in self.blocks[self.depth :]:
            x = block(x, s, self.dec_rope)
        return self.unpatchify(self.final_layer(x[:, self.registers :], s[:, self.registers :]))

    def encoded(self, x: Tensor, time: Tensor, y: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """x and y as in `forward`, embedded times (B, hidden_size) -> the encoder's registers and patches (B, N, hidden_size)."""
        s = self.s_embedder(x)
        patches, mask = s.shape[1], None
        if self.of_text:
            y, real = self.y_embedder(y)
            before, after = self.t_embedder.learnable_tokens.shape[0], patches
            mask = F.pad(real.bool(), (before, after), value=True)[:, None, None]
        s = torch.cat([self.t_embedder.tokens(time), self.ctx_embedder(y), s], dim=1)
        for index, block in enumerate(self.blocks[: self.depth]):
            if self.registers and index == self.register_start:
                s = self.prepend_registers(s, "enc_")
                mask = mask if mask is None else F.pad(mask, (self.registers, 0), value=True)
            s = block(s, self.enc_rope, mask)
        return torch.cat([s[:, : self.registers], s[:, -patches:]], dim=1)
