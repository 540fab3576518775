"""Data sets: images, labels and captions as a Hugging Face `datasets` folder with the splits `train` and `reference`."""

import hashlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness import artifacts
from harness.config import Data, UserError

if TYPE_CHECKING:
    import torch

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPLIT_SEED = 0  # the split is part of the protocol, not of a run


@dataclass(frozen=True)
class Split:
    """images (N, H, W, 3) uint8, labels (N,) int64, captions N strings."""

    images: np.ndarray
    labels: np.ndarray
    captions: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self) -> "torch.Tensor":
        """(N, 3, H, W) float32 in [-1, 1]."""
        return to_pixels(self.images)


def to_pixels(images: np.ndarray) -> "torch.Tensor":
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_uint8(pixels: "torch.Tensor") -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] -> (N, H, W, 3) uint8, rounded (the released sample_ddp.py:280 truncates)."""
    import torch

    return pixels.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def caption(label: int) -> str:
    return f"a handwritten {WORDS[label]}"


def make(data: Data, out: Path) -> dict:
    """Build the data set folder `out`; returns its counts and checksum."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
    from datasets.utils.logging import disable_progress_bar
    from PIL import Image as Pil
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    found = hashlib.sha256(np.ascontiguousarray(raw.images).tobytes() + raw.target.astype(np.int64).tobytes()).hexdigest()
    if found != data.sha256:
        raise UserError(f"scikit-learn digits: sha256 {found[:16]}... instead of {data.sha256[:16]}...; install the pinned scikit-learn")
    if data.reference >= len(raw.target):
        raise UserError(f"data.reference {data.reference} leaves nothing to train on: the source has {len(raw.target)} images")
    size = (data.image_size, data.image_size)
    images = [
        Pil.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).resize(size, Pil.Resampling.BICUBIC).convert("RGB")
        for image in raw.images
    ]
    train, reference = train_test_split(np.arange(len(images)), test_size=data.reference, random_state=SPLIT_SEED, stratify=raw.target)
    features = Features({"image": Image(), "label": ClassLabel(names=WORDS), "caption": Value("string")})

    def table(indices: np.ndarray) -> Dataset:
        labels = [int(raw.target[i]) for i in indices]
        rows = {"image": [images[i] for i in indices], "label": labels, "caption": [caption(label) for label in labels]}
        return Dataset.from_dict(rows, features=features)

    disable_progress_bar()
    counts = {"train": len(train), "reference": data.reference}
    with artifacts.artifact(out, stage="data", module=__name__, config=data, counts=counts) as folder:
        shutil.rmtree(folder, ignore_errors=True)
        DatasetDict(train=table(train), reference=table(reference)).save_to_disk(folder)
    return counts | {"sha256": artifacts.sha256(out)}


def load(folder: Path, split: str) -> Split:
    """One split of a data set folder. Reads the Arrow files directly: importing `datasets` would take longer than the reading."""
    import pyarrow as pa
    from PIL import Image as Pil

    artifacts.checked(folder)
    part = Path(folder) / split
    names = [file["filename"] for file in json.loads((part / "state.json").read_text())["_data_files"]]
    rows = pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(part / name))).read_all() for name in names).to_pydict()
    images = np.stack([np.asarray(Pil.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in rows["image"]])
    return Split(images, np.asarray(rows["label"], dtype=np.int64), rows["caption"])
