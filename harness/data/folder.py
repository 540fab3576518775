"""The data source `image_folder`: files below two folders, a sub-folder a class, indexed and not copied."""

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.base import Source
from harness.data.images import Split, centre_crop, to_pixels
from harness.data.listing import list_images, not_read, subfolders
from harness.data.reader import read_image
from harness.store import artifacts, assets
from harness.store.files import write_json
from harness.study.typed import UserError

if TYPE_CHECKING:
    import torch

DECODERS = 16  # threads; decoding leaves Python's lock


class FolderSource(Source):
    def make(self, records: list[Path], out: Path) -> dict[str, int]:
        """`train.json` and `reference.json`: relative paths and labels. The folders themselves are named in the record."""
        data = self.data
        files = {"train": assets.record_of(records, "data.train"), "reference": assets.record_of(records, "data.held_out")}
        roots = {split: assets.locate(path) for split, path in files.items()}
        index = {split: _walk(root, data.classes) for split, root in roots.items()}
        there = len(index["train"]["files"])
        if there != data.train_images:
            raise UserError(f"{roots['train']}: {there} images, data.train_images says {data.train_images}; is the folder complete?")
        held_out = len(index["reference"]["files"])
        if held_out < data.reference:
            raise UserError(f"{roots['reference']}: {held_out} images, data.reference wants {data.reference}")
        every = np.linspace(0, held_out, data.reference, endpoint=False).astype(int)  # evenly spaced: the list is sorted by class
        index["reference"] = {key: [column[i] for i in every] for key, column in index["reference"].items()}
        counts = {split: len(part["files"]) for split, part in index.items()}
        with artifacts.artifact(
            out,
            stage="data",
            module=__name__,
            config=data,
            inputs=files.values(),
            source=data.source,
            counts=counts,
            roots={split: str(root) for split, root in roots.items()},
            image_size=data.image_size,
        ) as folder:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for split, part in index.items():
                write_json(index_file(folder, split), part)
        return counts

    @staticmethod
    def load(folder: Path, split: str) -> "OnDisk":
        index, facts = json.loads(index_file(folder, split).read_text(encoding="utf-8")), artifacts.meta(folder)
        return OnDisk(Path(facts["roots"][split]), index["files"], np.asarray(index["labels"], dtype=np.int64), facts["image_size"])

    def captions(self, labels: Sequence[int]) -> list[str]:
        """ImageNet's class names."""
        from harness.machine.device import ensure_torchvision

        ensure_torchvision()  # open_clip imports it
        from open_clip import IMAGENET_CLASSNAMES

        return [f"a photo of a {IMAGENET_CLASSNAMES[label]}" for label in labels]


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODERS)


class OnDisk(Split):
    """Files below `root`, decoded and centre-cropped when asked for."""

    by_class = True

    def __init__(self, root: Path, files: list[str], labels: np.ndarray, image_size: int) -> None:
        self.root, self.files, self.labels, self.image_size = root, files, labels, image_size

    def __getitem__(self, index: int) -> np.ndarray:
        return centre_crop(read_image(self.root / self.files[index]), self.image_size)

    def pixels(self, rows: Sequence[int] | None = None) -> "torch.Tensor":
        wanted = [int(i) for i in (range(len(self)) if rows is None else rows)]
        return to_pixels(np.stack(list(_decoders().map(self.__getitem__, wanted))))


def index_file(folder: Path, split: str) -> Path:
    """Where the index of a split is."""
    return folder / f"{split}.json"


def _walk(root: Path, classes: int) -> dict[str, list[Any]]:
    """Every image below `root`, by sorted sub-folder, which gives the label."""
    folders = subfolders(root)
    if len(folders) != classes:
        raise UserError(f"{root}: {len(folders)} class folders, data.classes says {classes}; expected one sub-folder a class")
    listings = [list_images(root, folder) for folder in folders]
    if others := [name for listing in listings for name in listing.others]:
        print(not_read(root, others), file=sys.stderr, flush=True)
    files = [name for listing in listings for name in listing.images]
    labels = [label for label, listing in enumerate(listings) for _ in listing.images]
    return {"files": files, "labels": labels}
