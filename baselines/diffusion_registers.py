"""Diffusion registers alone: learned tokens in the denoiser, encoder untouched."""

from harness import Method

METHOD = Method(title="+ diffusion registers", diffusion_registers=True)
