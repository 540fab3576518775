"""The data source `sklearn_digits`: the 1,797 handwritten digits that come with scikit-learn."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.data.images import SPLIT_SEED
from harness.data.stored import StoredSource
from harness.study.sections.data import Digits
from harness.study.typed import UserError

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class DigitsSource(StoredSource):
    data: Digits

    def splits(self) -> dict[str, tuple[list[Any], list[int]]]:
        from PIL import Image
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        data, raw = self.data, load_digits()
        sha256 = hashlib.sha256(np.ascontiguousarray(raw.images).tobytes() + raw.target.astype(np.int64).tobytes()).hexdigest()
        if sha256 != data.sha256:
            raise UserError(
                f"scikit-learn digits: sha256 {sha256[:16]}... instead of {data.sha256[:16]}...; install the pinned scikit-learn"
            )
        if data.reference >= len(raw.target):
            raise UserError(f"data.reference {data.reference} leaves nothing to train on: the source has {len(raw.target)} images")
        size = (data.image_size, data.image_size)
        images = [
            Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
            for image in raw.images
        ]
        train, reference = train_test_split(np.arange(len(images)), test_size=data.reference, random_state=SPLIT_SEED, stratify=raw.target)
        parts = {"train": train, "reference": reference}
        return {split: ([images[i] for i in part], [int(raw.target[i]) for i in part]) for split, part in parts.items()}

    def label_names(self) -> list[str]:
        return WORDS

    def captions(self, labels: Sequence[int]) -> list[str]:
        return [f"a handwritten {WORDS[label]}" for label in labels]
