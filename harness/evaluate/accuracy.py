"""Judge accuracy: does the judge see the label that a sample was drawn with?"""

import numpy as np
import torch
from torch import Tensor


def accuracy(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """(N, classes) logits and (N,) labels -> `accuracy`."""
    return {"accuracy": (logits.argmax(1) == torch.from_numpy(labels)).float().mean().item()}
