"""LightningDiT with diffusion registers (released `src/stage2/models/lightningDiT.py`)."""

from typing import ClassVar

from torch import Tensor, nn

from harness.denoiser.base import Denoiser, check_width
from harness.denoiser.layers import Block, FinalLayer, FourierTimeEmbedding, LabelEmbedding, PatchEmbedding, RotaryTable
from harness.encoder.positions import sincos_2d


class LightningDiT(Denoiser):
    """Denoiser over a latent grid, in the released code's time: t = 0 is data, t = 1 is noise.

    Raises UserError for a register start outside the depth, a negative count, a latent grid that the patch size does not divide, or
    a width that 4 x the heads do not divide.
    """

    time_embedding: ClassVar[type[nn.Module]] = FourierTimeEmbedding

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
        super().__init__(
            input_size=input_size,
            patch_size=patch_size,
            num_classes=num_classes,
            depth=depth,
            registers=registers,
            register_start=register_start,
        )
        check_width("denoiser", hidden_size, num_heads)
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = self.time_embedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.register_buffer("pos_embed", sincos_2d(hidden_size, self.side)[None])
        self.feat_rope = RotaryTable(hidden_size // num_heads, self.side)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * in_channels)
        self.initialise()
        if registers:
            self.feat_rope_incontext = RotaryTable(hidden_size // num_heads, self.side, registers)
            self.add_registers(hidden_size)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> prediction (B, C, H, W)."""
        condition = self.t_embedder(t) + self.y_embedder(y)
        x = self.x_embedder(x) + self.pos_embed
        rotate = self.feat_rope
        for index, block in enumerate(self.blocks):
            if self.registers and index == self.register_start:
                x = self.prepend_registers(x)
                rotate = self.feat_rope_incontext
            x = block(x, condition, rotate)
        return self.unpatchify(self.final_layer(x[:, self.registers :], condition))
