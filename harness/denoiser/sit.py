"""SiT (willisma/SiT `models.py`) with diffusion registers."""

import torch.nn.functional as F
from torch import Tensor, nn

from harness.denoiser.base import Denoiser, check_width
from harness.denoiser.layers import Block, FinalLayer, LabelEmbedding, PatchEmbedding, PlainLayerNorm, SinusoidTimeEmbedding
from harness.encoder.positions import sincos_2d
from harness.study.sections.denoiser import SiTShape


class Mlp(nn.Module):
    """Two linear maps with GELU in its tanh form."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> as x."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SiT(Denoiser):
    """Denoiser over VAE latents; SiT-XL/2 is (4, 32, 32) latents, width 1152, depth 28, 16 heads, patch size 2.

    Parameter names as published, so that `SiT-XL-2-256x256.pt` loads with `strict=True`. Upstream's time runs the other way (t = 1 is
    data, models predict the velocity data - noise; `transport/transport.py`). This class is called in our time, t = 0 data and t = 1 noise,
    and converts inside: the network reads 1 - t and its output changes sign, so that published weights give the velocity
    noise - data.

    `learn_sigma`: the final layer has twice the channels, of which the second half is dropped, as in the published model.

    Raises UserError for a register start outside the depth, a negative count, a latent grid that the patch size does not divide, or
    a width that the heads or 4 do not divide.
    """

    @classmethod
    def own(cls, shape: SiTShape) -> dict[str, object]:
        """Whether it learns a sigma."""
        return {"learn_sigma": shape.learn_sigma}

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        patch_size: int = 2,
        mlp_ratio: float = 4.0,
        registers: int = 0,
        register_start: int = 0,
        learn_sigma: bool = True,
    ) -> None:
        super().__init__(
            input_size=input_size,
            patch_size=patch_size,
            num_classes=num_classes,
            depth=depth,
            registers=registers,
            register_start=register_start,
        )
        check_width("denoiser", hidden_size, num_heads, rotary=False)
        self.in_channels = in_channels
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = SinusoidTimeEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.register_buffer("pos_embed", sincos_2d(hidden_size, self.side)[None])
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio, norm=PlainLayerNorm, mlp=Mlp) for _ in range(depth))
        out_channels = in_channels * (2 if learn_sigma else 1)
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * out_channels, norm=PlainLayerNorm)
        self.initialise()
        if registers:
            self.add_registers(hidden_size)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> velocity noise - data (B, C, H, W)."""
        return -self.network(x, 1 - t, y)

    def network(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """As `forward`, in the time and with the sign that the weights were trained in."""
        condition = self.t_embedder(t) + self.y_embedder(y)
        x = self.x_embedder(x) + self.pos_embed
        for index, block in enumerate(self.blocks):
            if self.registers and index == self.register_start:
                x = self.prepend_registers(x)
            x = block(x, condition)
        return self.unpatchify(self.final_layer(x[:, self.registers :], condition))[:, : self.in_channels]
