"""Judge accuracy: does the judge see the label that a sample was drawn with?"""

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.bootstrap import share
from harness.evaluation.outcome import Measured


def accuracy(logits: Tensor, labels: np.ndarray) -> Measured:
    """Share of (N, classes) logits whose largest is that of the label (N,)."""
    return share((logits.argmax(1) == torch.from_numpy(labels)).float().mean().item(), len(labels))
