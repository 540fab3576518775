"""The doors of images from outside: a folder of files, an .npz file, a data set of parquet, Arrow or tars."""

import sys
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from harness.data.dataset import BUILDERS, SAVED, DatasetSource
from harness.data.folder import DECODERS
from harness.data.listing import list_images, not_read
from harness.data.reader import decode, printable, read_image
from harness.data.shards import check_whole
from harness.evaluation.adm_batches import ArchivedImages, arrays_of, readable
from harness.evaluation.outside.image_set import ImageSet
from harness.store import artifacts
from harness.study.sections.data import Columns, DatasetFiles
from harness.study.typed import UserError

NAMES = {"arr_0": "arr_1", "images": "labels"}  # of images and labels in an .npz: ADM's, and stage `samples`'
DOORS = f"a folder of images, an .npz file with {' or '.join(NAMES)}, or a data set ({', '.join(BUILDERS)}, save_to_disk)"


def open_images(path: Path, *, image_size: int | None = None, column: str | None = None, split: str | None = None) -> ImageSet:
    """What is at `path`, told by what it is. `column`, `split`: of a data set. UserError where it is none of the doors."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected {DOORS}")
    is_dataset = path.suffix in BUILDERS or any((path / name).is_file() for name in SAVED)
    if path.is_dir() and not is_dataset:
        listing = list_images(path)
        is_dataset = not listing.images and any(Path(name).suffix in BUILDERS for name in listing.others)
        if not is_dataset:
            return FolderImages(path, listing.images, listing.others, image_size)
    if is_dataset:
        return DatasetImages(path, column, split, image_size)
    if column or split:
        raise UserError(f"{path}: --column and --split are of a data set; leave them out")
    if path.suffix == ".npz":
        return NpzImages(path, image_size)
    raise UserError(f"{path}: expected {DOORS}")


@cache
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODERS)


class FolderImages(ImageSet):
    """Files at any depth below a folder, in the order of their sorted names."""

    kind = "a folder of files"

    def __init__(self, path: Path, files: list[str], others: Sequence[str] = (), image_size: int | None = None) -> None:
        super().__init__(path, len(files), image_size)
        self.names = files
        if others:
            print(not_read(path, others), file=sys.stderr, flush=True)

    def called(self, index: int) -> str:
        return printable(self.path / self.names[index])

    def read(self, first: int, stop: int) -> list[np.ndarray]:
        read = _decoders().map(lambda name: read_image(self.path / name), self.names[first:stop])
        return [self.shaped(image, index) for index, image in enumerate(read, start=first)]

    def take(self, rows: Sequence[int]) -> "FolderImages":
        return FolderImages(self.path, [self.names[row] for row in rows], image_size=self.image_size)


class NpzImages(ImageSet):
    """`arr_0` of an ADM file, or `images` of stage `samples`, streamed out of the archive, and the labels beside them."""

    kind = "an .npz file"

    def __init__(self, path: Path, image_size: int | None = None) -> None:
        with readable(path):
            self.archive = zipfile.ZipFile(path)
        arrays = arrays_of(self.archive)
        name = next((name for name in NAMES if name in arrays), None)
        if name is None:
            what = "statistics, which a reference may be: " if {"mu", "sigma"} <= arrays.keys() else ""
            raise UserError(f"{path}: has {what}{', '.join(sorted(arrays)) or 'no arrays'}; images are called {' or '.join(NAMES)}")
        if artifacts.sidecar(path).exists():
            _check_record(path)
        self.images = ArchivedImages(self.archive, path, arrays[name], None)
        super().__init__(path, len(self.images), image_size)
        if NAMES[name] in arrays:
            with readable(path), self.archive.open(arrays[NAMES[name]]) as file:
                self.labels = whole_numbers(npy.read_array(file, allow_pickle=False), self.count, f"{path}: {NAMES[name]}")

    def read(self, first: int, stop: int) -> list[np.ndarray]:
        return [self.shaped(self.images[index], index) for index in range(first, stop)]


def _check_record(path: Path) -> None:
    """UserError for samples of stage `samples` that are not what was written, or that diverged."""
    artifacts.checked(path)
    record = artifacts.meta(path)
    if record.get("status", "ok") != "ok":
        raise UserError(f"{path}: its record says: {record['status']}: {record.get('reason', '')}; there is nothing to measure")


def whole_numbers(values: np.ndarray, count: int, where: str) -> np.ndarray:
    """(N,) int64 labels, from 0 up. UserError where they are something else, or not one for each of `count` images."""
    if values.dtype.kind not in "iu" or values.shape != (count,):
        raise UserError(f"{where}: labels are {values.shape} {values.dtype}; expected a whole number for each of the {count} images")
    if len(values) and values.min() < 0:
        raise UserError(f"{where}: label {values.min()} of image {values.argmin()} is out of range: labels are 0, 1, ...")
    return values.astype(np.int64)


class _Rows(DatasetSource):
    """The rows of a data set, by the reader that studies have."""

    def _name(self, splits: dict[str, Any], root: Path, split: str) -> str:
        name = self.data.train_split or (next(iter(splits)) if len(splits) == 1 else None)
        if name not in splits:
            raise UserError(f"{root}: has the splits {', '.join(splits)}; say which with --split")
        return name

    def _splits(self, root: Path) -> Any:
        """Of parquet, a group of rows is read at a time: the library would keep all that it has read of a file until its end."""
        kinds = {path.suffix for path in root.rglob("*")} & {*BUILDERS} if root.is_dir() else {root.suffix}
        if kinds != {".parquet"}:
            return super()._splits(root)
        from datasets import load_dataset
        from pyarrow.dataset import ParquetFragmentScanOptions

        options = {"streaming": True, "fragment_scan_options": ParquetFragmentScanOptions(pre_buffer=False)}
        return load_dataset(str(root), **options) if root.is_dir() else load_dataset("parquet", data_files={"all": [str(root)]}, **options)

    def features(self, root: Path) -> dict[str, Any]:
        """Of all columns, by name."""
        rows = self._split(root, "train")
        return dict(rows.features or next(iter(rows.take(1)), {}))

    def rows(self, root: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Values of `columns`; images are not decoded."""
        return (row for _, row, _ in self._rows(root, "train", columns))


class DatasetImages(ImageSet):
    """The rows of parquet, Arrow or tars, in their order."""

    kind = "a data set"

    def __init__(self, path: Path, column: str | None = None, split: str | None = None, image_size: int | None = None) -> None:
        check_whole(path)
        self.source = _Rows(DatasetFiles.model_construct(columns=Columns(), train_split=split))
        self.features = self.source.features(path)
        self.column = column or _image_column(path, self.features)
        light = next((name for name in self.features if name != self.column.split(".")[0]), self.column)  # what counting has to read
        super().__init__(path, sum(1 for _ in self.source.rows(path, [light])), image_size)
        self._rows, self._next = iter(()), 0

    def called(self, index: int) -> str:
        return f"{self.path}, row {index}, {self.column}"

    def values(self, column: str) -> list[Any]:
        """Of every row."""
        return [row[column] for row in self.source.rows(self.path, [column])]

    def read(self, first: int, stop: int) -> list[np.ndarray]:
        if first < self._next or not self._next:
            self._rows, self._next = self.source.rows(self.path, [self.column]), 0
        values = [row[self.column] for row in islice(self._rows, first - self._next, stop - self._next)]
        self._next = stop
        read = _decoders().map(self._image, values, range(first, stop))
        return [self.shaped(image, index) for index, image in enumerate(read, start=first)]

    def _image(self, value: object, index: int) -> Image.Image:
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, bytes):
            return decode(content, self.called(index))
        if content is None and isinstance(path, str):
            return read_image(Path(path))
        raise UserError(f"{self.called(index)}: no image ({type(value).__name__}); --column names the one that has it")


def _image_column(path: Path, features: dict[str, Any]) -> str:
    """`image`, or the only column of images."""
    from datasets import Image as ImageFeature

    found = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
    if "image" in features:
        return "image"
    if len(found) == 1:
        return found[0]
    raise UserError(f"{path}: which column has the images? Say so with --column; it has {', '.join(features)}")
