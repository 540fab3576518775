"""Denoisers by name; each class is built with keywords only and called as model(x (B, C, H, W), t (B,), y (B,)) -> (B, C, H, W)."""

from harness.denoiser.ditdh import DiTDH
from harness.denoiser.jit import JiT
from harness.denoiser.layers import Denoiser
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.sit import SiT

ARCHITECTURES: dict[str, type[Denoiser]] = {"lightningdit": LightningDiT, "ditdh": DiTDH, "sit": SiT, "jit": JiT}
