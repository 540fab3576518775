"""CLIP score with an open_clip model: max(100 cos(image, caption), 0) (Hessel et al. 2021, w = 100); a run's is its samples' mean."""

from collections.abc import Sequence

import numpy as np
import torch

from harness.evaluation.clip.base import Preprocess, Tokenizer
from harness.machine.device import allow_tf32, device

BATCH = 256


@torch.no_grad()
def clip_scores(
    images: np.ndarray | Sequence[np.ndarray],
    captions: list[str],
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    preprocess: Preprocess,
) -> torch.Tensor:
    """(N, H, W, 3) uint8, or N of (H, W, 3), and N captions -> (N,) float64, one an image. The model is on the device of the run."""
    allow_tf32(False)
    kinds, texts = sorted(set(captions)), {}
    for first in range(0, len(kinds), BATCH):
        some = kinds[first : first + BATCH]
        texts |= dict(zip(some, model.encode_text(tokenizer(some).to(device()), normalize=True), strict=True))
    cosines = []
    for first in range(0, len(images), BATCH):
        batch = np.stack([images[i] for i in range(first, min(first + BATCH, len(images)))])
        image = model.encode_image(preprocess(batch).to(device()), normalize=True)
        text = torch.stack([texts[c] for c in captions[first : first + BATCH]])
        cosines.append((image * text).sum(-1).cpu())
    return (100 * torch.cat(cosines)).clamp(min=0).double()
