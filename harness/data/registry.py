"""What the names of data sources in a study stand for.

A new source: a subclass of Source (or of StoredSource, which saves its images), registered here, and its section in
harness/study/sections/data.py.
"""

from harness.data.base import Source
from harness.data.dataset import DatasetSource
from harness.data.digits import DigitsSource
from harness.data.folder import FolderSource
from harness.data.shapes import ShapesSource
from harness.study.sections.data import DataSection

SOURCES: dict[str, type[Source]] = {
    "sklearn_digits": DigitsSource,
    "shapes": ShapesSource,
    "image_folder": FolderSource,
    "dataset": DatasetSource,
}


def source_of(data: DataSection) -> Source:
    """The source of a study's section `data`."""
    return SOURCES[data.source](data)
