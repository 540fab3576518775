"""What sources of people's own images share: one list of classes, counts, captions, and the index of what each split has."""

import json
import os
import shutil
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.base import Source
from harness.data.by_class import Listed
from harness.data.class_words import TEMPLATE, Captions, Texts, add_texts, captions_of, class_captions, image_captions, read_texts
from harness.data.classes import check_held_out, in_order
from harness.data.listing import not_read
from harness.data.reader import printable
from harness.store import artifacts, assets
from harness.store.files import write_json
from harness.study.sections.data import OwnImages
from harness.study.typed import UserError

CAPTIONS = "captions.json"  # those of every class, beside the index


class OwnSource(Source):
    """Images that are labelled by the places of their classes in one list, the training's."""

    data: OwnImages

    @abstractmethod
    def look(self, root: Path, split: str) -> Listed:
        """What there is of a split at `root`, without reading the images. UserError for an image of no class, or a class without one."""

    @abstractmethod
    def shared(self, found: dict[str, Listed], roots: dict[str, Path], same: bool) -> Sequence[str]:
        """Images of the training that are held out, too; `same`: both splits are of the same file or folder, or of copies."""

    @abstractmethod
    def contents(self, folder: Path, split: str, files: list[str], record: Path) -> list[str]:
        """SHA-256 of each of these images of a split, as it lies in the asset of `record` or was stored in `folder`."""

    def store(self, folder: Path, roots: dict[str, Path], index: dict[str, dict[str, list[Any]]]) -> None:
        """Write the images into the data set `folder`, unless they stay where they are."""

    def count(self, root: Path) -> dict[str, int]:
        wanted = {"train": self.data.train, "reference": self.data.held_out}
        roots = {split: assets.place(asset, root) for split, asset in wanted.items()}
        if gone := [f"'{path}' ({wanted[split].source})" for split, path in roots.items() if not path.exists()]:
            raise UserError(f"there is no {' and no '.join(gone)}; put the images there, or write their numbers into the study")
        found = {split: self.look(path, split) for split, path in roots.items()}
        self._check_apart(found, roots, copies=False)
        classes = self._classes(found, roots)
        images = {split: sum(map(len, part.classes.values())) for split, part in found.items()}
        return {"classes": len(classes), "train_images": images["train"], "reference": images["reference"]}

    def make(self, records: list[Path], out: Path) -> dict[str, int]:
        """`train.json` and `reference.json`: relative paths, labels, texts, and the sha256 of the asset, whose record knows where it is."""
        data = self.data
        files = {"train": assets.record_of(records, "data.train"), "reference": assets.record_of(records, "data.held_out")}
        if data.captions:
            files["captions"] = assets.record_of(records, "data.captions")
        roots = {split: assets.locate(path) for split, path in files.items()}
        captions = read_texts(roots.pop("captions")) if data.captions else None
        found = {split: self.look(root, split) for split, root in roots.items()}
        digests = {artifacts.read_json(files[split])["sha256"] for split in roots}
        self._check_apart(found, roots, copies=len(digests) == 1)
        classes = self._classes(found, roots)
        self._check_counts(found, roots)
        for split, part in found.items():
            if part.others:
                print(not_read(roots[split], part.others), file=sys.stderr, flush=True)
        index = {split: _index(part, classes) for split, part in found.items()}
        texts = _captions(data, captions, classes, index)
        every = np.linspace(0, len(index["reference"]["files"]), data.reference, endpoint=False).astype(int)  # evenly: sorted by class
        index["reference"] = {key: [column[i] for i in every] for key, column in index["reference"].items()}
        counts = {split: len(part["files"]) for split, part in index.items()}
        outcome: dict[str, Any] = {}
        with artifacts.artifact(
            out,
            stage="data",
            module=type(self).__module__,
            config=data,
            inputs=files.values(),
            outcome=outcome,
            source=data.source,
            counts=counts,
            classes=classes,
            captions=texts.source,
            records={split: os.path.relpath(path, out.parent) for split, path in files.items()},
            image_size=data.image_size,
        ) as folder:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.store(folder, roots, index)
            train, held_out = (self.contents(folder, split, index[split]["files"], files[split]) for split in ("train", "reference"))
            outcome["trained_on"] = self._trained_on({*train}, held_out, index["reference"]["files"], roots["reference"])
            for split, columns in index.items():
                write_json(index_file(folder, split), columns | {"asset": artifacts.read_json(files[split])["sha256"]})
            write_json(folder / CAPTIONS, texts._asdict())
        return counts

    def _check_apart(self, found: dict[str, Listed], roots: dict[str, Path], *, copies: bool) -> None:
        """UserError where an image is in both splits: scores against images that were trained on look right, and are not."""
        same = copies or os.path.realpath(roots["train"]) == os.path.realpath(roots["reference"])
        if both := self.shared(found, roots, same):
            raise UserError(
                f"{roots['reference']}: {len(both)} held-out images are trained on, too ({printable(both[0])}); give data.train and "
                "data.held_out images of their own"
            )

    @staticmethod
    def _trained_on(train: set[str], held_out: list[str], names: list[str], where: Path) -> int:
        """How many held-out images are byte for byte one of the training, which is told; UserError where all are."""
        both = [name for name, content in zip(names, held_out, strict=True) if content in train]
        told = f"{where}: {len(both)} of {len(names)} held-out images are trained on, too, byte for byte"
        if len(both) == len(names):
            raise UserError(f"{told}; give data.train and data.held_out images of their own")
        if both:
            print(f"warning: {told} ({printable(both[0])})", file=sys.stderr, flush=True)
        return len(both)

    def _check_counts(self, found: dict[str, Listed], roots: dict[str, Path]) -> None:
        """UserError where there are other numbers of classes and images than the study says."""
        data, counts = self.data, {split: sum(map(len, part.classes.values())) for split, part in found.items()}
        if (there := len(found["train"].classes)) != data.classes:
            raise UserError(f"{roots['train']}: {there} classes, data.classes says {data.classes}; is it complete?")
        if counts["train"] != data.train_images:
            raise UserError(f"{roots['train']}: {counts['train']} images, data.train_images says {data.train_images}; is it complete?")
        if counts["reference"] < data.reference:
            raise UserError(f"{roots['reference']}: {counts['reference']} images, data.reference wants {data.reference}")

    def _classes(self, found: dict[str, Listed], roots: dict[str, Path]) -> list[str]:
        """The one list of classes: those of the training images. UserError where the held-out ones are not of these."""
        train, where, part = str(roots["train"]), str(roots["reference"]), found["train"]
        classes = part.order or in_order(part.classes, train)
        some = self.data.held_out_classes == "some"
        check_held_out(classes, [*found["reference"].classes], train=train, where=where, some=some)
        return classes

    def captions(self, labels: Sequence[int]) -> list[str]:
        """A word a class, in the place of what only the data set knows."""
        return [TEMPLATE.format(f"class{label}") for label in labels]

    def trained_on(self, folder: Path) -> int:
        return int(artifacts.meta(folder)["trained_on"])

    def caption_source(self, folder: Path) -> str:
        return artifacts.meta(folder)["captions"]

    def captions_in(self, folder: Path, labels: Sequence[int]) -> list[str]:
        """Those of a label in turn."""
        texts = json.loads((folder / CAPTIONS).read_text(encoding="utf-8"))["texts"]
        if texts is None:
            source = self.caption_source(folder)
            raise UserError(f"{folder}: no caption is known: {source}; give the study data.captions, a file with the columns class,text")
        seen: Counter[int] = Counter()
        chosen = []
        for label in map(int, labels):
            chosen.append(texts[label][seen[label] % len(texts[label])])
            seen[label] += 1
        return chosen


def index_file(folder: Path, split: str) -> Path:
    """Where the index of a split is."""
    return folder / f"{split}.json"


def _index(part: Listed, classes: list[str]) -> dict[str, list[Any]]:
    """Files in the order of their labels; and their texts, where there are."""
    pairs = [(file, label) for label, name in enumerate(classes) for file in part.classes.get(name, [])]
    index: dict[str, list[Any]] = {"files": [file for file, _ in pairs], "labels": [label for _, label in pairs]}
    return index | ({"texts": [part.texts[file] for file in index["files"]]} if part.texts else {})


def _captions(data: OwnImages, given: Texts | None, classes: list[str], index: dict[str, dict[str, list[Any]]]) -> Captions:
    """Those of `data.captions`, else of metadata beside the images, else of the names of the classes. Texts of images go into `index`."""
    if given and data.captions and given.key == "class":
        for part in index.values():
            part.pop("texts", None)
        return class_captions(given.texts, classes, data.captions.path)
    if given and data.captions:
        add_texts(given.texts, index, data.captions.path)
    having = [split for split, part in index.items() if "texts" in part]
    if not having:
        return captions_of(classes)
    if len(having) == 1:
        raise UserError(f"data: only the {having[0]} images have texts in their metadata; give both folders such a file, or none")
    return image_captions(index, classes)
