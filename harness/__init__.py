"""Benchmark and reproducibility harness for Dual-Stage Registers (arXiv 2605.05206)."""

import os

# The harness never reaches for the network by itself; libraries read these when they are imported.
for _switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_switch, "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from harness.study.method import DiffusionRegisters, EncoderRegisters, LossMask, Method  # noqa: E402 (after the switches)

__all__ = ["DiffusionRegisters", "EncoderRegisters", "LossMask", "Method"]
__version__ = "0.1.0"
