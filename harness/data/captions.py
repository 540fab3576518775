"""The caption of each label, and its words by number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.data.images import Split
from harness.data.registry import source_of
from harness.study.sections.data import DataSection


def captions(data: DataSection, labels: Sequence[int], folder: Path | None = None) -> list[str]:
    """What the CLIP score compares images of these labels with; `folder`: the data set, where there is one."""
    return source_of(data).captions(labels) if folder is None else source_of(data).captions_in(folder, labels)


def image_texts(data: DataSection, split: Split, folder: Path) -> list[str]:
    """The caption of each image of a split of the data set `folder`: its own, else that of its label."""
    return split.texts if split.texts is not None else captions(data, split.labels.tolist(), folder)


def words(data: DataSection) -> list[str]:
    """Every word of the captions, sorted."""
    return sorted({word for text in captions(data, range(data.classes)) for word in text.split()})


def token_table(data: DataSection) -> np.ndarray:
    """(classes + 1, longest) int64: the words of each label's caption by number from 1, 0 fills up; the last row is the empty caption."""
    number = {word: i for i, word in enumerate(words(data), start=1)}
    texts = [[number[word] for word in text.split()] for text in captions(data, range(data.classes))]
    table = np.zeros((len(texts) + 1, max(map(len, texts))), np.int64)
    for row, text in enumerate(texts):
        table[row, : len(text)] = text
    return table
