"""Masked-token baseline: tokens whose norm before the final norm marks them as outliers do not count in the loss."""

from harness import LossMask, Method

METHOD = Method(title="+ loss masking", loss_mask=LossMask(norm="pre_ln"))
