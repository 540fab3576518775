"""JiT, "Just image Transformers" (LTH14/JiT `model_jit.py`), with diffusion registers."""

import torch
from torch import Tensor, nn

from harness.denoiser.base import Denoiser, check_insertion, check_width
from harness.denoiser.dropout import dropped
from harness.denoiser.layers import Block, FinalLayer, LabelEmbedding, RotaryTable, SinusoidTimeEmbedding, modulate
from harness.encoder.positions import sincos_2d
from harness.study.sections.denoiser import JiTShape


class BottleneckPatchEmbedding(nn.Module):
    """Patches -> `bottleneck` channels -> `width` channels, both linear."""

    def __init__(self, channels: int, bottleneck: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj1 = nn.Conv2d(channels, bottleneck, patch, stride=patch, bias=False)
        self.proj2 = nn.Conv2d(bottleneck, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, patches, width)."""
        return self.proj2(self.proj1(x)).flatten(2).transpose(1, 2)


class DropoutBlock(Block):
    """A block with dropout after the projection of the attention and in the MLP (`proj_drop`, `ffn_dropout`), where keys are given."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, dropout: float, place: int) -> None:
        super().__init__(width, heads, mlp_ratio, qk_norm=True)
        self.dropout, self.place = dropout, place

    def forward(self, x: Tensor, condition: Tensor, rotate: RotaryTable, keys: Tensor | None = None) -> Tensor:
        """x (B, N, C), condition (B, C), keys (B,) int64 -> (B, N, C)."""
        if keys is None or not self.dropout:
            return super().forward(x, condition, rotate)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition)
        attended = dropped(self.attn(modulate(self.norm1(x), shift1, scale1), rotate), self.dropout, keys, 2 * self.place)
        x = torch.addcmul(x, gate1, attended)
        hidden = dropped(self.mlp.hidden(modulate(self.norm2(x), shift2, scale2)), self.dropout, keys, 2 * self.place + 1)
        return torch.addcmul(x, gate2, self.mlp.w3(hidden))


class JiT(Denoiser):
    """Denoiser over pixels that predicts the image (x-prediction).

    JiT-H/16 is (3, 256, 256) images, width 1280, depth 32, 16 heads, patch size 16. `bottleneck` is the width between the two layers
    of the patch embedding; None takes 128, or 256 above width 1024, which gives the published values of B, L and H.

    JiT has in-context tokens of its own: `in_context_len` copies of the class embedding plus a learned position, prepended before
    block `in_context_start` and dropped before the final layer. A start of None takes a third of the depth, which gives the published
    4, 8 and 10 of B, L and H. The DSR paper does not say whether its JiT-H keeps them beside the diffusion registers; they are kept by
    default, and `in_context_len=0` leaves them out. Registers stand before them in every block's output.

    Parameter names as published (there under the wrapper's prefix `net.`, and without rotary tables), so that the weights load with
    `strict=True`. Upstream's
    time runs the other way (t = 1 is data; `denoiser.py`). This class is called in our time, t = 0 data and t = 1 noise: the network
    reads 1 - t. The predicted image needs no conversion. `dropout`: of the middle half of the blocks where a call gives keys, as
    training does (upstream 0.2 for H, none for B and L).

    Raises UserError as LightningDiT does, and for in-context tokens that do not fit.
    """

    @classmethod
    def own(cls, shape: JiTShape) -> dict[str, object]:
        """The number of its in-context tokens, where they join following from the depth; and the dropout."""
        return {"in_context_len": shape.in_context, "dropout": shape.dropout}

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        registers: int = 0,
        register_start: int = 0,
        bottleneck: int | None = None,
        in_context_len: int = 32,
        in_context_start: int | None = None,
        dropout: float = 0.0,
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
        if bottleneck is None:
            bottleneck = 256 if hidden_size > 1024 else 128
        if in_context_start is None:
            in_context_start = depth // 3
        check_insertion("JiT's in-context tokens", in_context_len, in_context_start, depth)
        self.in_context_len = in_context_len
        self.in_context_start = in_context_start
        self.t_embedder = SinusoidTimeEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.x_embedder = BottleneckPatchEmbedding(in_channels, bottleneck, hidden_size, patch_size)
        self.register_buffer("pos_embed", sincos_2d(hidden_size, self.side)[None])
        if in_context_len:
            self.in_context_posemb = nn.Parameter(0.02 * torch.randn(1, in_context_len, hidden_size))
        self.feat_rope = RotaryTable(hidden_size // num_heads, self.side, registers + in_context_len, stored=False)
        middle = range(depth // 4, depth // 4 * 3)  # model_jit.py
        shares = [dropout if place in middle else 0.0 for place in range(depth)]
        blocks = [DropoutBlock(hidden_size, num_heads, mlp_ratio, dropout=share, place=place) for place, share in enumerate(shares)]
        self.blocks = nn.ModuleList(blocks)
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * in_channels)
        self.initialise()
        if registers:
            self.add_registers(hidden_size)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, keys: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> predicted image (B, C, H, W).

        `keys` (B,) int64: of dropout, which there is none of without them.
        """
        label = self.y_embedder(y)
        condition = self.t_embedder(1 - t) + label
        x = self.x_embedder(x) + self.pos_embed
        patches = x.shape[1]
        for index, block in enumerate(self.blocks):
            if self.in_context_len and index == self.in_context_start:
                registers, x = x[:, :-patches], x[:, -patches:]
                x = torch.cat([registers, label.unsqueeze(1) + self.in_context_posemb, x], dim=1)
            if self.registers and index == self.register_start:
                x = self.prepend_registers(x)
            x = block(x, condition, self.feat_rope, keys)
        return self.unpatchify(self.final_layer(x[:, -patches:], condition))
