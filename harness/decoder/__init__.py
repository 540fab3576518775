"""Decoders: the ViT decoder, the losses of its training, and its training."""

import harness.machine.device  # noqa: F401 (makes torchvision importable before transformers and open_clip look for it)
