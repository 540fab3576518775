"""Images in memory: splits, pixels, cropping."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.study.sections.pixels import EightBit
from harness.study.typed import UserError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SPLIT_SEED = 0  # the split is part of the protocol, not of a run


class Split:
    """Images (H, W, 3) uint8 by number, `labels` (N,) int64. Subclasses say where the images are."""

    labels: np.ndarray
    texts: list[str] | None = None  # of each image, where it has one of its own
    by_class: bool = False  # whether images are in the order of their labels, so that the first ones are of one class

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def pixels(self, rows: Sequence[int] | None = None) -> "torch.Tensor":
        """(N, 3, H, W) float32 in [-1, 1] of `rows`, or of all images."""
        return to_pixels(np.stack([self[int(i)] for i in (range(len(self)) if rows is None else rows)]))

    def random_crops(self, rows: Sequence[int], places: Sequence[Sequence[float]]) -> "torch.Tensor":
        """As `pixels`, but squares cut out of the images as they were, at `places`, (down, across) of each, in [0, 1)."""
        raise UserError("decoder.crop: random needs images that are not stored cropped: data.source: image_folder")


class InMemory(Split):
    """`images` (N, H, W, 3) uint8 and `labels` (N,) int64."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index]


def centre_crop(image: "Image", size: int) -> np.ndarray:
    """(size, size, 3) uint8.

    ADM's centre crop: halve with a box filter while twice too large, resize the short side bicubically, cut the middle square out.
    """
    from PIL.Image import Resampling

    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC)
    top, left = (image.height - size) // 2, (image.width - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def random_crop(image: "Image", size: int, place: Sequence[float]) -> np.ndarray:
    """(size, size, 3) uint8: the short side at 1.5 x `size`, bicubically, then the square at `place`, (down, across), each in [0, 1).

    As the released train_stage1.py: torchvision's Resize and RandomCrop.
    """
    from PIL.Image import Resampling

    short, long = int(1.5 * size), int(int(1.5 * size) * max(image.size) / min(image.size))
    image = image.resize((short, long) if image.width <= image.height else (long, short), Resampling.BICUBIC)
    top, left = (int(part * (room - size + 1)) for part, room in zip(place, (image.height, image.width), strict=True))
    return np.asarray(image)[top : top + size, left : left + size]


def to_pixels(images: np.ndarray) -> "torch.Tensor":
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


class NotFiniteError(UserError):
    """There are no images, because numbers that `lost` of them would be of are not finite."""

    def __init__(self, lost: int, count: int, what: str = "images") -> None:
        super().__init__(f"{lost} of {count} {what} are not finite")
        self.lost = lost


def finite(pixels: "torch.Tensor") -> "torch.Tensor":
    """(N,) bool: whether all of each of (N, 3, H, W) is finite."""
    return pixels.isfinite().flatten(1).all(1)


def to_levels(pixels: "torch.Tensor", eight_bit: EightBit = "rounded") -> "torch.Tensor":
    """(N, 3, H, W) in [-1, 1] -> (N, 3, H, W) float32, whole numbers from 0 to 255; `truncated` is the released sample_ddp.py:280."""
    levels = pixels.float().add(1).mul(127.5)
    return (levels.round() if eight_bit == "rounded" else levels.floor()).clamp(0, 255)


def to_uint8(pixels: "torch.Tensor", eight_bit: EightBit = "rounded") -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] -> (N, H, W, 3) uint8. NotFiniteError where an image is not finite."""
    import torch

    if lost := int((~finite(pixels)).sum()):
        raise NotFiniteError(lost, len(pixels))
    return to_levels(pixels, eight_bit).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def brightness(pixels: "torch.Tensor", side: int) -> "torch.Tensor":
    """(N, 3, H, W) -> (N, side * side), the mean of each patch; `side` counts patches."""
    import torch

    return torch.nn.functional.adaptive_avg_pool2d(pixels.mean(dim=1, keepdim=True), side).flatten(1)
