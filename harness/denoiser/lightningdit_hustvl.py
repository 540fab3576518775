"""LightningDiT as first published (hustvl/LightningDiT `models/lightningdit.py`), with diffusion registers."""

from torch import Tensor

from harness.denoiser.layers import SinusoidTimeEmbedding
from harness.denoiser.lightningdit import LightningDiT


class LightningDiTHustvl(LightningDiT):
    """The released LightningDiT's network with sinusoids of the time, called in our time: t = 0 is data, t = 1 is noise.

    Upstream's time runs the other way (t = 1 is data, models predict the velocity data - noise), so, as in SiT, the network reads 1 - t and
    its output changes sign. Parameter names as published; the published models have SwiGLU, RMSNorm and rotary tables, and no norm of
    queries and keys. Raises UserError as LightningDiT does.
    """

    time_embedding = SinusoidTimeEmbedding

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> velocity noise - data (B, C, H, W)."""
        return -super().forward(x, 1 - t, y)
