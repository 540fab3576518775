"""Data sets: images, labels and captions, in the splits `train` and `reference` (held out of all training).

Small sources become a Hugging Face `datasets` folder. A folder of images stays where it is: the data set is an index of its files.
"""

import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data import shapes
from harness.data.captions import WORDS, captions
from harness.data.digits import _digits
from harness.data.folder import OnDisk, _make_index
from harness.data.images import InMemory, Split
from harness.store import artifacts
from harness.study.sections.data import Digits, ImageFolder, Shapes
from harness.study.study import Study
from harness.study.typed import UserError

if TYPE_CHECKING:
    pass


# ----------------------------------------------------------------------------------------------------------------- making


def make_data(study: Study, *, records: list[Path] = (), out: Path) -> dict:
    """Stage `data`: build the data set folder `out`; returns its counts and checksum."""
    data = study.data
    if isinstance(data, ImageFolder):
        counts = _make_index(data, out, records)
    else:
        counts = _save(data, _digits(data) if isinstance(data, Digits) else _shapes(data), out)
    return counts | {"sha256": artifacts.sha256(out)}


def _shapes(data: Shapes) -> dict[str, tuple[list, list[int]]]:
    """Images and labels of each split."""
    from PIL import Image as Pil

    found = shapes.digest(data.image_size)
    if found != data.sha256:
        raise UserError(
            f"shapes of {data.image_size} pixels: sha256 {found[:16]}... instead of {data.sha256[:16]}...; "
            "install the pinned numpy, or, where the generator or the size was changed on purpose, write the new one into data.sha256"
        )
    parts = {split: shapes.split_of(data, split) for split in shapes.SPLITS}
    return {split: ([Pil.fromarray(image) for image in images], labels) for split, (images, labels) in parts.items()}


def _save(data: Digits | Shapes, parts: dict[str, tuple[list, list[int]]], out: Path) -> dict:
    """Images with labels and captions as a folder of Hugging Face `datasets`; returns how many each split has."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
    from datasets.utils.logging import disable_progress_bar

    names = WORDS if isinstance(data, Digits) else captions(data, range(data.classes))
    features = Features({"image": Image(), "label": ClassLabel(names=names), "caption": Value("string")})
    disable_progress_bar()
    counts = {split: len(labels) for split, (_, labels) in parts.items()}
    with artifacts.artifact(out, stage="data", module=__name__, config=data, counts=counts) as folder:
        shutil.rmtree(folder, ignore_errors=True)
        tables = {
            split: Dataset.from_dict({"image": images, "label": labels, "caption": captions(data, labels)}, features=features)
            for split, (images, labels) in parts.items()
        }
        DatasetDict(tables).save_to_disk(folder)
    return counts


# ---------------------------------------------------------------------------------------------------------------- reading


def load_data(folder: Path, split: str) -> Split:
    """One split of a data set folder."""
    artifacts.checked(folder)
    index = Path(folder) / f"{split}.json"
    if index.is_file():
        part, facts = json.loads(index.read_text()), artifacts.meta(folder)
        return OnDisk(Path(facts["roots"][split]), part["files"], np.asarray(part["labels"], dtype=np.int64), facts["image_size"])
    return _load_arrow(Path(folder) / split)


def _load_arrow(part: Path) -> InMemory:
    """Reads the Arrow files directly: importing `datasets` would take longer than the reading."""
    import pyarrow as pa
    from PIL import Image as Pil

    names = [file["filename"] for file in json.loads((part / "state.json").read_text())["_data_files"]]
    rows = pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(part / name))).read_all() for name in names).to_pydict()
    images = np.stack([np.asarray(Pil.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in rows["image"]])
    return InMemory(images, np.asarray(rows["label"], dtype=np.int64))
