"""Judge accuracy: does the judge see the label that a sample was drawn with?"""

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.bootstrap import Measured, share


def accuracy(logits: Tensor, labels: np.ndarray) -> dict[str, Measured]:
    """(N, classes) logits and (N,) labels -> `accuracy`."""
    return {"accuracy": share((logits.argmax(1) == torch.from_numpy(labels)).float().mean().item(), len(labels))}
