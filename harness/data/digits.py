"""The data source `sklearn_digits`: the 1,797 handwritten digits that come with scikit-learn."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from harness.study.sections.data import Digits
from harness.study.typed import UserError

if TYPE_CHECKING:
    pass
from harness.data.images import SPLIT_SEED


def _digits(data: Digits) -> dict[str, tuple[list, list[int]]]:
    """Images and labels of each split."""
    from PIL import Image as Pil
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    found = hashlib.sha256(np.ascontiguousarray(raw.images).tobytes() + raw.target.astype(np.int64).tobytes()).hexdigest()
    if found != data.sha256:
        raise UserError(f"scikit-learn digits: sha256 {found[:16]}... instead of {data.sha256[:16]}...; install the pinned scikit-learn")
    if data.reference >= len(raw.target):
        raise UserError(f"data.reference {data.reference} leaves nothing to train on: the source has {len(raw.target)} images")
    size = (data.image_size, data.image_size)
    images = [
        Pil.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).resize(size, Pil.Resampling.BICUBIC).convert("RGB")
        for image in raw.images
    ]
    train, reference = train_test_split(np.arange(len(images)), test_size=data.reference, random_state=SPLIT_SEED, stratify=raw.target)
    parts = {"train": train, "reference": reference}
    return {split: ([images[i] for i in part], [int(raw.target[i]) for i in part]) for split, part in parts.items()}
