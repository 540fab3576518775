"""Encoders: towers, their registers, whitening, and the latents that they give."""

import harness.machine.device  # noqa: F401 (makes torchvision importable before transformers and open_clip look for it)
