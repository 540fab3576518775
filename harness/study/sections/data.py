"""Section `data`: where images come from.

A new source: its section here, registered in SOURCES, and its images, registered in harness/data/registry.py.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness.study.sections.asset import Asset
from harness.study.typed import Count, Sha256, Strict


class DataSection(Strict):
    """What every source says."""

    copied: ClassVar[bool] = True  # into the results; False: the images stay where they are, and the data set is an index of their files
    by_class: ClassVar[bool] = False  # images lie in the order of their labels, so that the first ones are of one class
    prompts: ClassVar[bool] = False  # labels are prompts of drawn shapes: denoisers read their words, GenEval is scored, and no accuracy

    source: str
    image_size: Count  # pixels
    reference: Count  # held-out images
    classes: Count  # labels are 0, 1, ...
    flip: bool  # mirror half of the images in training

    if TYPE_CHECKING:  # to pydantic, a subclass's field would shadow it

        @property
        def train_images(self) -> int:
            """How many images are trained on: a field of a subclass, or a property where it follows."""

    @property
    def label(self) -> str:
        """What a label is called in figures."""
        return "prompt" if self.prompts else "label"


class Digits(DataSection):
    """The 1,797 handwritten digits that come with scikit-learn."""

    source: Literal["sklearn_digits"]
    image_size: Count  # pixels, after a bicubic resize
    reference: Annotated[int, Field(ge=1, lt=1797)]  # images held out of all training; the reference of FID, KID, precision and recall
    sha256: Sha256  # of the source's raw arrays, so that a changed source is noticed
    classes: Literal[10] = 10
    flip: Literal[False] = False  # a mirrored digit is another sign

    @property
    def train_images(self) -> int:
        return 1797 - self.reference

    @model_validator(mode="after")
    def _every_digit_in_both(self) -> "Digits":
        if min(self.reference, self.train_images) < self.classes:
            raise ValueError(f"reference {self.reference}: {self.classes} images or more of the 1797 must be in either split, one a digit")
        return self


class Shapes(DataSection):
    """Drawn shapes with captions: the prompts of harness/data/shapes.py, which are the labels, and a seeded generator of their images."""

    prompts = True

    source: Literal["shapes"]
    image_size: Annotated[int, Field(ge=16)]  # pixels; below, shapes cannot be told apart
    train_images: Count  # of the prompts that training sees, GenEval's six kinds in turn
    reference: Count  # held-out images, of all prompts in turn, as samples are
    sha256: Sha256  # of the prompts and an image of each, so that a changed generator is noticed
    classes: Literal[164] = 164  # prompts
    flip: Literal[False] = False  # mirrored, left is right


class OwnImages(DataSection):
    """People's own images, for training and held out, each with a class. What is left out of the numbers is counted (study/counts.py)."""

    by_class = True

    classes: Count
    train: Asset
    held_out: Asset
    held_out_classes: Literal["all", "some"] = "all"  # of the training's
    captions: Asset | None = None  # CSV or JSONL: class,text or file_name,text; None: the images' own texts, else the names of the classes
    train_images: Count  # how many there must be; the length of an epoch follows from it
    reference: Count  # held-out images that outlier statistics and reconstruction use, evenly spaced through the sorted list
    flip: bool = True


class ImageFolder(OwnImages):
    """A folder of images for training and one of held-out images, each with a sub-folder a class, or with metadata that name labels.

    Labels 0, 1, ... are the training's classes in natural order (2 before 10). `metadata.csv`, `.jsonl` or `.parquet` beside the images is
    that of Hugging Face's `imagefolder`: `file_name` with `label`, `text` or both.
    """

    copied = False

    source: Literal["image_folder"]
    image_size: Count  # pixels, after ADM's centre crop (released train.py:269-273)


class Columns(Strict):
    """What the columns of a data set are called; of a WebDataset `jpg` or `png`, `cls` and `txt`. A field inside one is `json.label`."""

    image: str = "image"
    label: str = "label"  # whole numbers, texts or a ClassLabel
    text: str | None = None  # captions


class DatasetFiles(OwnImages):
    """What the library `datasets` reads from a folder or file: parquet, Arrow (`save_to_disk`), WebDataset's tars."""

    source: Literal["dataset"]
    image_size: Count  # pixels, after ADM's centre crop
    columns: Columns = Columns()
    train_split: str | None = None  # None: the only one there is
    held_out_split: str | None = None


SOURCES: dict[str, type[DataSection]] = {
    "sklearn_digits": Digits,
    "shapes": Shapes,
    "image_folder": ImageFolder,
    "dataset": DatasetFiles,
}
