"""DDT, the decoupled diffusion transformer (MCG-NJU/DDT `decoupled_improved_dit.py`), with diffusion registers."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.denoiser.base import Denoiser, check_width
from harness.denoiser.layers import Block, FinalLayer, LabelEmbedding, PlainLayerNorm, Rotary, SinusoidTimeEmbedding, after_still
from harness.study.sections.denoiser import DDTShape

LONGEST_PERIOD = 10  # of the time's sinusoids; SiT's is 10000
EXTENT = 16.0  # position of the last row and column, whatever the grid


class AlternatingRotary(Rotary):
    """2-D rotary embedding of a `side` x `side` token map; pairs of channels turn with the column and with the row in turn. In no
    checkpoint."""

    def __init__(self, head_width: int, side: int) -> None:
        rate = 1.0 / 10000 ** (torch.arange(0, head_width, 4, device="cpu").float() / head_width)
        angle = torch.linspace(0, EXTENT, side, device="cpu")[:, None] * rate  # (side, head_width / 4); never on `meta`, see RotaryTable
        columns, rows = angle[None].expand(side, side, -1), angle[:, None].expand(side, side, -1)
        angle = torch.stack([columns, rows], dim=-1).reshape(side * side, -1)
        super().__init__(angle.repeat_interleave(2, dim=-1), stored=False)

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, head_width) cosines and sines; registers before the patches are not turned."""
        return after_still(self.freqs_cos, self.freqs_sin, count)


class SwiGLU(nn.Module):
    """Gated MLP without biases, whose hidden width is two thirds of `hidden`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = int(2 / 3 * hidden)
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> as x."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class FlatPatchEmbedding(nn.Module):
    """Patches, each flattened channel by channel, -> tokens."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(channels * patch**2, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, patches, width), row by row."""
        x = x.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        return self.proj(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))


class DDT(Denoiser):
    """An encoder of `depth` blocks under time and label, whose tokens with the time condition `head_depth` further blocks, token by token.

    DDT-XL/2 is (4, 32, 32) latents, width 1152, 16 heads, 22 blocks and a head of 6, patch size 2. `blocks` holds the encoder's, then the
    head's. Parameter names as published (there under `ema_denoiser.`), so that the weights load with `strict=True`. Upstream's time runs
    the other way (t = 1 is data, models predict the velocity data - noise). This class is called in our time, t = 0 data and t = 1 noise,
    and converts as SiT does: the network reads 1 - t and its output changes sign.

    Registers do as in DiT^DH: those of the encoder, with the time, condition the head's own; both are dropped before the final layer.

    Raises UserError as LightningDiT does.
    """

    @classmethod
    def own(cls, shape: DDTShape) -> dict[str, object]:
        """The blocks of its head."""
        return {"head_depth": shape.head_depth}

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        head_depth: int,
        patch_size: int = 2,
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
        self.depth = depth
        self.x_embedder = FlatPatchEmbedding(in_channels, hidden_size, patch_size)
        self.s_embedder = FlatPatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = SinusoidTimeEmbedding(hidden_size, max_period=LONGEST_PERIOD)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.rotate = AlternatingRotary(hidden_size // num_heads, self.side)
        block = partial(Block, hidden_size, num_heads, mlp_ratio, mlp=SwiGLU, qk_norm=True, qkv_bias=False, silu=False)
        self.blocks = nn.ModuleList(block() for _ in range(depth + head_depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * in_channels, norm=PlainLayerNorm, silu=False)
        self.initialise()
        if registers:
            self.add_registers(hidden_size, "enc_")
            self.add_registers(hidden_size, "dec_")

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> velocity noise - data (B, C, H, W)."""
        s = self.condition(x, t, y)
        x = self.x_embedder(x)
        if self.registers:
            x = self.prepend_registers(x, "dec_")
        for block in self.blocks[self.depth :]:
            x = block(x, s, self.rotate)
        return -self.unpatchify(self.final_layer(x[:, self.registers :], s[:, self.registers :]))

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, side * side, C * patch * patch) -> (B, C, H, W)."""
        patch, side = self.patch_size, self.side
        x = x.unflatten(2, (-1, patch, patch)).unflatten(1, (side, side))
        return x.permute(0, 3, 1, 4, 2, 5).reshape(x.shape[0], -1, side * patch, side * patch)

    def condition(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """As `forward` -> (B, registers + patches, hidden_size): the encoder's tokens with the time, which condition the head's."""
        time = self.t_embedder(1 - t)
        condition = F.silu(time + self.y_embedder(y))
        s = self.s_embedder(x)
        for index, block in enumerate(self.blocks[: self.depth]):
            if self.registers and index == self.register_start:
                s = self.prepend_registers(s, "enc_")
            s = block(s, condition, self.rotate)
        return F.silu(time.unsqueeze(1) + s)
