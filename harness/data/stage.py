"""Data sets: images, labels and captions, in the splits `train` and `reference` (held out of all training).

Small sources become a Hugging Face `datasets` folder. A folder of images stays where it is: the data set is an index of its files.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data import shapes
from harness.store import artifacts, assets
from harness.study.sections import Data, Digits, ImageFolder, Shapes
from harness.study.typed import UserError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPLIT_SEED = 0  # the split is part of the protocol, not of a run
IMAGE_FILES = {".jpeg", ".jpg", ".png", ".webp"}
DECODERS = 16  # threads; decoding leaves Python's lock


class Split:
    """Images (H, W, 3) uint8 by number, `labels` (N,) int64. Subclasses say where the images are."""

    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def pixels(self, rows: Sequence[int] | None = None) -> "torch.Tensor":
        """(N, 3, H, W) float32 in [-1, 1] of `rows`, or of all images."""
        return to_pixels(np.stack([self[int(i)] for i in (range(len(self)) if rows is None else rows)]))


class InMemory(Split):
    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index]


class OnDisk(Split):
    """Files below `root`, decoded and centre-cropped when asked for."""

    def __init__(self, root: Path, files: list[str], labels: np.ndarray, image_size: int) -> None:
        self.root, self.files, self.labels, self.image_size = root, files, labels, image_size

    def __getitem__(self, index: int) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        path = self.root / self.files[index]
        try:
            with Image.open(path) as image:
                return centre_crop(image.convert("RGB"), self.image_size)
        except (OSError, SyntaxError, UnidentifiedImageError) as error:
            raise UserError(
                f"{path}: not a readable image ({error}); put a good copy in its place and run the same command again"
            ) from None

    def pixels(self, rows: Sequence[int] | None = None) -> "torch.Tensor":
        wanted = [int(i) for i in (range(len(self)) if rows is None else rows)]
        return to_pixels(np.stack(list(_pool().map(self.__getitem__, wanted))))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODERS)


def centre_crop(image: "Image", size: int) -> np.ndarray:
    """ADM's centre crop: halve with a box filter while twice too large, resize the short side bicubically, cut the middle square out."""
    from PIL.Image import Resampling

    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Resampling.BICUBIC)
    top, left = (image.height - size) // 2, (image.width - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def to_pixels(images: np.ndarray) -> "torch.Tensor":
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_uint8(pixels: "torch.Tensor") -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] -> (N, H, W, 3) uint8, rounded (the released sample_ddp.py:280 truncates)."""
    import torch

    return pixels.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def brightness(pixels: "torch.Tensor", grid: int) -> "torch.Tensor":
    """(N, 3, H, W) -> (N, grid * grid), the mean of each patch."""
    import torch

    return torch.nn.functional.adaptive_avg_pool2d(pixels.mean(dim=1, keepdim=True), grid).flatten(1)


def captions(data: Data, labels: Sequence[int]) -> list[str]:
    """What the CLIP score compares an image of a label with."""
    if isinstance(data, Digits):
        return [f"a handwritten {WORDS[label]}" for label in labels]
    if isinstance(data, Shapes):
        return [shapes.PROMPTS[label].text for label in labels]
    from open_clip import IMAGENET_CLASSNAMES

    return [f"a photo of a {IMAGENET_CLASSNAMES[label]}" for label in labels]


# ----------------------------------------------------------------------------------------------------------------- making


def make(data: Data, out: Path, asset_records: Path | None = None) -> dict:
    """Stage `data`: build the data set folder `out`; returns its counts and checksum."""
    if isinstance(data, ImageFolder):
        counts = _make_index(data, out, asset_records)
    else:
        counts = _save(data, _digits(data) if isinstance(data, Digits) else _shapes(data), out)
    return counts | {"sha256": artifacts.sha256(out)}


def _make_index(data: ImageFolder, out: Path, asset_records: Path) -> dict:
    """`train.json` and `reference.json`: relative paths and labels. The folders themselves are named in the record."""
    files = {"train": asset_records / "data.train.json", "reference": asset_records / "data.held_out.json"}
    roots = {split: assets.locate(path) for split, path in files.items()}
    index = {split: _walk(root, data.classes) for split, root in roots.items()}
    found = len(index["train"]["files"])
    if found != data.train_images:
        raise UserError(f"{roots['train']}: {found} images, data.train_images says {data.train_images}; is the folder complete?")
    held_out = len(index["reference"]["files"])
    if held_out < data.reference:
        raise UserError(f"{roots['reference']}: {held_out} images, data.reference wants {data.reference}")
    every = np.linspace(0, held_out, data.reference, endpoint=False).astype(int)  # evenly spaced: the list is sorted by class
    index["reference"] = {key: [values[i] for i in every] for key, values in index["reference"].items()}
    counts = {split: len(part["files"]) for split, part in index.items()}
    facts = {"counts": counts, "roots": {split: str(root) for split, root in roots.items()}, "image_size": data.image_size}
    with artifacts.artifact(out, stage="data", module=__name__, config=data, inputs=files.values(), **facts) as folder:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for split, part in index.items():
            artifacts.write_json(folder / f"{split}.json", part)
    return counts


def _walk(root: Path, classes: int) -> dict[str, list]:
    """Every image below `root`, by sorted sub-folder, which gives the label."""
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    if len(folders) != classes:
        raise UserError(f"{root}: {len(folders)} class folders, data.classes says {classes}; expected one sub-folder a class")
    files, labels = [], []
    for label, folder in enumerate(folders):
        names = sorted(path.relative_to(root).as_posix() for path in folder.rglob("*") if path.suffix.lower() in IMAGE_FILES)
        files += names
        labels += [label] * len(names)
    return {"files": files, "labels": labels}


def _digits(data: Digits) -> dict[str, tuple[list, list[int]]]:
    """Images and labels of each split."""
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
    parts = {"train": train, "reference": reference}
    return {split: ([images[i] for i in part], [int(raw.target[i]) for i in part]) for split, part in parts.items()}


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


def load(folder: Path, split: str) -> Split:
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
