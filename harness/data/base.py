"""What every data source provides."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.data.images import Split
from harness.study.sections.data import DataSection


class Source(ABC):
    """The images of a study's section `data`, in the splits `train` and `reference` (held out of all training)."""

    def __init__(self, data: DataSection) -> None:
        self.data = data

    @abstractmethod
    def make(self, records: list[Path], out: Path) -> dict[str, int]:
        """Write the artifact `out`, a folder that `load` reads; `records`: those of the section's assets. Returns images by split.

        Its record has `source`, the section's. UserError where the source is not what the section says.
        """

    def count(self, root: Path) -> dict[str, int]:
        """`classes`, `train_images` and `reference` in the assets folder `root`, of a section that leaves them out."""
        raise NotImplementedError(f"{self.data.source} is not counted")

    @staticmethod
    @abstractmethod
    def load(folder: Path, split: str) -> Split:
        """One split of the folder that `make` wrote."""

    @abstractmethod
    def captions(self, labels: Sequence[int]) -> list[str]:
        """What the CLIP score compares an image of a label with; where labels are prompts, the prompts."""

    def captions_in(self, folder: Path, labels: Sequence[int]) -> list[str]:
        """The same, of the data set that `make` wrote: where it knows better than the section."""
        return self.captions(labels)

    def trained_on(self, folder: Path) -> int:
        """How many of the held-out images of that data set are byte for byte one of the training."""
        return 0

    def caption_source(self, folder: Path) -> str:
        """Where the captions of that data set come from, in words; empty where the section settles it."""
        return ""

    def scenes(self, split: str) -> list[list[Any]]:
        """What is true of each image of a split, as a list of harness.data.shapes.Thing; only where labels are prompts."""
        raise NotImplementedError(f"{self.data.source} has no scenes")
