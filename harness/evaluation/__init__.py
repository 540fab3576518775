"""Metrics: arrays in, scores out. torchvision must be made importable before torch-fidelity looks for it."""

import harness.machine.device  # noqa: F401
