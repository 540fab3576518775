"""Denoisers: architectures, flow matching, training and sampling."""

import harness.machine.device  # noqa: F401 (makes torchvision importable before transformers and open_clip look for it)
