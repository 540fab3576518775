"""The data source `image_folder`: files below two folders, a sub-folder a class, indexed and not copied."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.by_class import Listed, listed
from harness.data.images import Split, centre_crop, to_pixels
from harness.data.own import OwnSource, index_file
from harness.data.reader import read_image
from harness.store import artifacts

if TYPE_CHECKING:
    import torch

DECODERS = 16  # threads; decoding leaves Python's lock


class FolderSource(OwnSource):
    """`train.json` and `reference.json`: relative paths, labels, texts. The folders themselves are named in the record."""

    def look(self, root: Path, split: str) -> Listed:
        return listed(root)

    @staticmethod
    def load(folder: Path, split: str) -> "OnDisk":
        return indexed(folder, split, Path(artifacts.meta(folder)["roots"][split]))


def indexed(folder: Path, split: str, root: Path) -> "OnDisk":
    """The files below `root` that the index of a split names."""
    index, facts = json.loads(index_file(folder, split).read_text(encoding="utf-8")), artifacts.meta(folder)
    return OnDisk(root, index["files"], np.asarray(index["labels"], dtype=np.int64), facts["image_size"], index.get("texts"))


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODERS)


class OnDisk(Split):
    """Files below `root`, decoded and centre-cropped when asked for."""

    by_class = True

    def __init__(self, root: Path, files: list[str], labels: np.ndarray, image_size: int, texts: list[str] | None = None) -> None:
        self.root, self.files, self.labels, self.image_size, self.texts = root, files, labels, image_size, texts

    def __getitem__(self, index: int) -> np.ndarray:
        return centre_crop(read_image(self.root / self.files[index]), self.image_size)

    def pixels(self, rows: Sequence[int] | None = None) -> "torch.Tensor":
        wanted = [int(i) for i in (range(len(self)) if rows is None else rows)]
        return to_pixels(np.stack(list(_decoders().map(self.__getitem__, wanted))))
