"""The caption of each label, and its words by number."""

from collections.abc import Sequence

import numpy as np

from harness.data.registry import source_of
from harness.study.sections.data import DataSection


def captions(data: DataSection, labels: Sequence[int]) -> list[str]:
    """What the CLIP score compares an image of a label with."""
    return source_of(data).captions(labels)


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
