"""Denoisers by name; each class is built with keywords only and called as model(x (B, C, H, W), t (B,), y (B,)) -> (B, C, H, W)."""

from harness.models.denoisers.ditdh import DiTDH
from harness.models.denoisers.jit import JiT
from harness.models.denoisers.layers import Denoiser
from harness.models.denoisers.lightningdit import LightningDiT
from harness.models.denoisers.sit import SiT

ARCHITECTURES: dict[str, type[Denoiser]] = {"lightningdit": LightningDiT, "ditdh": DiTDH, "sit": SiT, "jit": JiT}
