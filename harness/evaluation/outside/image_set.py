"""A set of images from outside: of one size, 8 bits, read in order a few at a time, so that memory does not grow with their number."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from harness.data.images import centre_crop
from harness.machine.progress import Progress
from harness.study.typed import UserError

AHEAD = 64  # images that are read at once
ONE_SIZE = "bring them to one size, or give --image-size N for ADM's centre crop to N pixels"


class ImageSet(Sequence[np.ndarray]):
    """N images (H, W, 3) uint8 by number, all of the first one's size; `image_size`: each cropped to a square of it as ADM does.

    `path`: where they are; `names`: of their files, sorted, where they are files; `labels` (N,) and `texts`: where they come with some.
    """

    kind = "images"

    def __init__(self, path: Path, count: int, image_size: int | None = None) -> None:
        if not count:
            raise UserError(f"{path}: has no images")
        self.path, self.count, self.image_size = path, count, image_size
        self.names: list[str] | None = None
        self.labels: np.ndarray | None = None
        self.texts: list[str] | None = None
        self._first, self._kept = 0, list[np.ndarray]()
        self._shape: tuple[int, ...] | None = None

    @abstractmethod
    def read(self, first: int, stop: int) -> list[np.ndarray]:
        """The images `first` to `stop` - 1, each `shaped`."""

    def called(self, index: int) -> str:
        """An image, in messages."""
        return f"{self.path}: image {index}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        if not self._first <= index < self._first + len(self._kept):
            self._kept = []
            self._first, self._kept = index, self.read(index, min(index + AHEAD, self.count))
        return self._kept[index - self._first]

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3) of every image."""
        if self._shape is None:
            self._shape = self[0].shape
        return self._shape

    def shaped(self, image: "Image.Image | np.ndarray", index: int) -> np.ndarray:
        """(H, W, 3) uint8, cropped where that is asked for. UserError for an image of another size than the first."""
        if self.image_size:
            image = centre_crop(Image.fromarray(image) if isinstance(image, np.ndarray) else image, self.image_size)
        array = np.asarray(image)
        if self._shape is None and not index:
            self._shape = array.shape
        if array.shape != self.shape:
            raise UserError(
                f"{self.called(index)}: {_pixels(array.shape)}, the first image of {self.path} is {_pixels(self.shape)}; {ONE_SIZE}"
            )
        return array

    def take(self, rows: Sequence[int]) -> Sequence[np.ndarray]:
        """The images of these numbers, which rise."""
        return _Part(self, rows)


class _Part(Sequence[np.ndarray]):
    def __init__(self, images: ImageSet, rows: Sequence[int]) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[self.rows[index]]


class Watched(Sequence[np.ndarray]):
    """Images that say how far their reader is, whose time counts from the first one on."""

    def __init__(self, images: Sequence[np.ndarray], what: str) -> None:
        self.images, self.what = images, what
        self.progress: Progress | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        if self.progress is None:
            self.progress = Progress(self.what, len(self), "images")
        image = self.images[index]
        self.progress.update(index + 1)
        return image


class Sized(Protocol):
    """What has images of one size."""

    path: Path

    @property
    def shape(self) -> tuple[int, ...]: ...


def check_same_size(images: Sized, others: Sized) -> None:
    """UserError where two sets have images of different sizes: what a network sees of them would differ by more than who made them."""
    if images.shape != others.shape:
        raise UserError(f"{others.path}: images of {_pixels(others.shape)}, those of {images.path} are {_pixels(images.shape)}; {ONE_SIZE}")


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"
