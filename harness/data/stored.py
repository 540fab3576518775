"""Data sets whose images are saved: a folder of Hugging Face `datasets` with images, labels and captions."""

import json
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.base import Source
from harness.data.images import InMemory
from harness.data.reader import decode
from harness.store import artifacts


class StoredSource(Source):
    """A source small enough to be saved whole."""

    @abstractmethod
    def splits(self) -> dict[str, tuple[list[Any], list[int]]]:
        """PIL images (RGB, `image_size` pixels a side) and labels of each split. UserError where they are not what the section says."""

    def label_names(self) -> list[str]:
        """What labels are called in the data set."""
        return self.captions(range(self.data.classes))

    def make(self, records: list[Path], out: Path) -> dict[str, int]:
        from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
        from datasets.utils.logging import disable_progress_bar

        splits = self.splits()
        features = Features({"image": Image(), "label": ClassLabel(names=self.label_names()), "caption": Value("string")})
        disable_progress_bar()
        counts = {split: len(labels) for split, (_, labels) in splits.items()}
        with artifacts.artifact(
            out, stage="data", module=type(self).__module__, config=self.data, inputs=records, source=self.data.source, counts=counts
        ) as folder:
            shutil.rmtree(folder, ignore_errors=True)
            tables = {
                split: Dataset.from_dict({"image": images, "label": labels, "caption": self.captions(labels)}, features=features)
                for split, (images, labels) in splits.items()
            }
            DatasetDict(tables).save_to_disk(folder)
        return counts

    @staticmethod
    def load(folder: Path, split: str) -> InMemory:
        """Reads the Arrow files directly: importing `datasets` would take longer than the reading."""
        import pyarrow as pa

        part = folder / split
        names = [file["filename"] for file in json.loads((part / "state.json").read_text(encoding="utf-8"))["_data_files"]]
        rows = pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(part / name))).read_all() for name in names).to_pydict()
        images = np.stack([np.asarray(decode(image["bytes"], part)) for image in rows["image"]])
        return InMemory(images, np.asarray(rows["label"], dtype=np.int64))
