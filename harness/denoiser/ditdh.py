"""DiT with the wide DDT head, DiT^DH (released `src/stage2/models/DDT.py`, class DiTwDDTHead), with diffusion registers."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.denoiser.base import Denoiser, check_width
from harness.denoiser.layers import Block, FinalLayer, FourierTimeEmbedding, LabelEmbedding, PatchEmbedding, RotaryTable
from harness.encoder.positions import sincos_2d
from harness.study.sections.denoiser import DiTDHShape


class DiTDH(Denoiser):
    """A DiT encoder of `depth` blocks whose tokens condition a shallow, wide head of `head_depth` blocks, token by token,
    in the released code's time: t = 0 is data, t = 1 is noise.

    Registers join the encoder before block `register_start` and are not stripped before the head: with their time they condition
    the head's own registers, which are prepended to its patch tokens; both are dropped before the final layer (DDT.py:382-411).
    `blocks` holds the encoder's blocks, then the head's.

    Above patch size 1 the released code cannot run (it multiplies the input channels by patch ** 2 as well); here such sizes work.

    Raises UserError as LightningDiT does, also for the head's width, and for a register start outside the encoder's blocks.
    """

    @classmethod
    def own(cls, shape: DiTDHShape) -> dict[str, object]:
        """Those of the head."""
        return {"head_width": shape.head.width, "head_depth": shape.head.depth, "head_heads": shape.head.heads}

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
        self.x_embedder = PatchEmbedding(in_channels, head_width, patch_size)
        self.s_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.s_projector = nn.Linear(hidden_size, head_width) if hidden_size != head_width else nn.Identity()
        self.t_embedder = FourierTimeEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.final_layer = FinalLayer(head_width, patch_size**2 * in_channels)
        self.register_buffer("pos_embed", sincos_2d(hidden_size, self.side)[None])
        self.enc_feat_rope = RotaryTable(hidden_size // num_heads, self.side)
        self.dec_feat_rope = RotaryTable(head_width // head_heads, self.side)
        encoder = [Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth)]
        head = [Block(head_width, head_heads, mlp_ratio) for _ in range(head_depth)]
        self.blocks = nn.ModuleList(encoder + head)
        self.initialise(xavier=False)  # the released initialize_weights leaves linear layers at torch's default
        if registers:
            self.enc_feat_rope_incontext = RotaryTable(hidden_size // num_heads, self.side, registers)
            self.dec_feat_rope_incontext = RotaryTable(head_width // head_heads, self.side, registers)
            self.add_registers(hidden_size, "enc_")
            self.add_registers(head_width, "dec_")

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> prediction (B, C, H, W)."""
        time = self.t_embedder(t)
        condition = F.silu(time + self.y_embedder(y))
        s = self.s_embedder(x) + self.pos_embed
        rotate = self.enc_feat_rope
        for index, block in enumerate(self.blocks[: self.depth]):
            if self.registers and index == self.register_start:
                s = self.prepend_registers(s, "enc_")
                rotate = self.enc_feat_rope_incontext
            s = block(s, condition, rotate)
        s = self.s_projector(F.silu(time.unsqueeze(1) + s))
        x = self.x_embedder(x)
        rotate = self.dec_feat_rope
        if self.registers:
            x = self.prepend_registers(x, "dec_")
            rotate = self.dec_feat_rope_incontext
        for block in self.blocks[self.depth :]:
            x = block(x, s, rotate)
        return self.unpatchify(self.final_layer(x[:, self.registers :], s[:, self.registers :]))
