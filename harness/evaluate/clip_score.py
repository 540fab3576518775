"""CLIP score with an open_clip model: mean over samples of max(100 cos(image, caption), 0) (Hessel et al. 2021, w = 100)."""

import numpy as np
import torch

from harness import data
from harness.models.clip import WordTokenizer

BATCH = 256


@torch.no_grad()
def clip_score(images: np.ndarray, captions: list[str], model: torch.nn.Module, tokenizer: WordTokenizer) -> dict[str, float]:
    """(N, H, W, 3) uint8 and N captions -> `clip_score`."""
    kinds = sorted(set(captions))
    texts = dict(zip(kinds, model.encode_text(tokenizer(kinds), normalize=True), strict=True))
    cosines = []
    for first in range(0, len(images), BATCH):
        image = model.encode_image(data.to_pixels(images[first : first + BATCH]), normalize=True)
        text = torch.stack([texts[c] for c in captions[first : first + BATCH]])
        cosines.append((image * text).sum(-1))
    return {"clip_score": (100 * torch.cat(cosines)).clamp(min=0).double().mean().item()}
