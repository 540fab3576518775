"""Section `data`: where images come from."""

from typing import Annotated, Literal

from pydantic import Field

from harness.study.sections.asset import Asset, Sha256
from harness.study.typed import Count, Strict


class Digits(Strict):
    """The 1,797 handwritten digits that come with scikit-learn."""

    source: Literal["sklearn_digits"]
    image_size: Count  # pixels, after a bicubic resize
    reference: Count  # images held out of all training; the reference of FID, KID, precision and recall
    sha256: Sha256  # of the source's raw arrays, so that a changed source is noticed
    classes: Literal[10] = 10
    flip: Literal[False] = False  # a mirrored digit is another sign

    @property
    def train_images(self) -> int:
        return 1797 - self.reference


class Shapes(Strict):
    """Drawn shapes with captions: the prompts of harness/data/shapes.py, which are the labels, and a seeded generator of images for them."""

    source: Literal["shapes"]
    image_size: Annotated[int, Field(ge=16)]  # pixels; below, shapes cannot be told apart
    train_images: Count  # of the prompts that training sees, GenEval's six kinds in turn
    reference: Count  # held-out images, of all prompts in turn, as samples are
    sha256: Sha256  # of the prompts and an image of each, so that a changed generator is noticed
    classes: Literal[164] = 164  # prompts
    flip: Literal[False] = False  # mirrored, left is right


class ImageFolder(Strict):
    """A folder of images for training and one of held-out images, each with a sub-folder a class (sorted: labels 0, 1, ...)."""

    source: Literal["image_folder"]
    image_size: Count  # pixels, after ADM's centre crop (released train.py:269-273)
    classes: Count
    train: Asset
    held_out: Asset
    train_images: Count  # how many there must be; the length of an epoch follows from it
    reference: Count  # held-out images that outlier statistics and reconstruction use, evenly spaced through the sorted list
    flip: bool = True  # mirror half of the images in training


Data = Annotated[Digits | Shapes | ImageFolder, Field(discriminator="source")]
