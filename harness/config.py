"""Where method files of before 0.2 import from. Goes with the version after it."""

import warnings

from harness.study.method import DiffusionRegisters, EncoderRegisters, LossMask, Method

__all__ = ["DiffusionRegisters", "EncoderRegisters", "LossMask", "Method"]

warnings.warn(
    "harness.config goes with the next version: in method files, write "
    "`from harness import Method, EncoderRegisters, DiffusionRegisters, LossMask`",
    FutureWarning,  # a DeprecationWarning is hidden in method files
    stacklevel=2,
)
