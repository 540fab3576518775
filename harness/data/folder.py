"""The data source `image_folder`: files below two folders, a sub-folder a class, indexed and not copied."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.by_class import Listed, listed
from harness.data.images import Split, centre_crop, random_crop, to_pixels
from harness.data.own import OwnSource, index_file
from harness.data.reader import read_image
from harness.store import artifacts, assets

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

DECODERS = 16  # threads; decoding leaves Python's lock


class FolderSource(OwnSource):
    """`train.json` and `reference.json`: relative paths, labels, texts. The folders themselves are named in the record."""

    def look(self, root: Path, split: str) -> Listed:
        return listed(root)

    def shared(self, found: dict[str, Listed], roots: dict[str, Path], same: bool) -> list[str]:
        """By the places of files, links to folders followed; of a copy all of them."""
        train, held_out = (_placed(found[split], roots[split]) for split in ("train", "reference"))
        return [name for place, name in train.items() if same or place in held_out]

    def contents(self, folder: Path, split: str, files: list[str], record: Path) -> list[str]:
        listing = assets.Kept(record).listing
        known = dict(zip(listing.names, listing.sha256, strict=True))
        return [known[file] for file in files]

    @staticmethod
    def load(folder: Path, split: str) -> "OnDisk":
        kept = assets.Kept(folder.parent / artifacts.meta(folder)["records"][split])
        return indexed(folder, split, kept.path, kept)


def _placed(part: Listed, root: Path) -> dict[str, str]:
    """Where each file is -> its name below `root`."""
    real = cache(os.path.realpath)
    return {os.path.join(real(root / Path(file).parent), Path(file).name): file for files in part.classes.values() for file in files}


def indexed(folder: Path, split: str, root: Path, kept: assets.Kept | None = None) -> "OnDisk":
    """The files below `root` that the index of a split names; `kept`: the asset that they are, where they are one."""
    index, facts = json.loads(index_file(folder, split).read_text(encoding="utf-8")), artifacts.meta(folder)
    labels = np.asarray(index["labels"], dtype=np.int64)
    return OnDisk(root, index["files"], labels, facts["image_size"], index.get("texts"), kept)


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODERS)


class OnDisk(Split):
    """Files below `root`, decoded and centre-cropped when asked for; UserError for one of an asset that is not what was recorded."""

    by_class = True

    def __init__(
        self,
        root: Path,
        files: list[str],
        labels: np.ndarray,
        image_size: int,
        texts: list[str] | None = None,
        kept: assets.Kept | None = None,
    ) -> None:
        self.root, self.files, self.labels, self.image_size, self.texts, self.kept = root, files, labels, image_size, texts, kept

    def __getitem__(self, index: int) -> np.ndarray:
        return centre_crop(self._image(index), self.image_size)

    def _image(self, index: int) -> "Image":
        name = self.files[index]
        return read_image(self.kept.file(name) if self.kept else self.root / name)

    def pixels(self, rows: Sequence[int] | None = None) -> "torch.Tensor":
        wanted = [int(i) for i in (range(len(self)) if rows is None else rows)]
        return to_pixels(np.stack(list(_decoders().map(self.__getitem__, wanted))))

    def random_crops(self, rows: Sequence[int], places: Sequence[Sequence[float]]) -> "torch.Tensor":
        def cut(index: int, place: Sequence[float]) -> np.ndarray:
            return random_crop(self._image(index), self.image_size, place)

        return to_pixels(np.stack(list(_decoders().map(cut, rows, places))))
