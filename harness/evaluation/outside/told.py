"""What is told of samples from outside: the label and the caption of each, from where their user says."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from harness.data.class_words import READERS, plain_text, read_table, read_texts
from harness.data.classes import in_order, natural
from harness.evaluation.outside.doors import DatasetImages, whole_numbers
from harness.evaluation.outside.image_set import ImageSet
from harness.study.typed import UserError

FOLDERS, COLUMN = "folders", "column:"
BY_IMAGE, BY_LABEL = "the file's, one an image", "the file's, one a label"


def labels_of(images: ImageSet, told: str | None, classes: int | None) -> np.ndarray | None:
    """(N,) int64: those in the images' own file, or as `told`: `folders`, `column:NAME`, or a file. `classes`: how many, if known.

    UserError for labels that are out of range, or not one an image.
    """
    labels, where = images.labels, str(images.path)
    if told == FOLDERS:
        labels = _of_folders(images, classes)
    elif told and told.startswith(COLUMN):
        labels, where = _of_column(images, told.removeprefix(COLUMN)), f"{images.path}, {told}"
    elif told:
        labels, where = _of_file(images, Path(told)), told
    if labels is not None and classes is not None and len(labels) and labels.max() >= classes:
        raise UserError(f"{where}: label {labels.max()} of image {labels.argmax()} is out of range: the judge knows 0 to {classes - 1}")
    return labels


def class_folders(images: ImageSet) -> list[str]:
    """The names of the class folders, in natural order. UserError for an image in none."""
    if images.names is None:
        raise UserError(f"{images.path}: {images.kind} has no class folders; give --labels FILE")
    for name in images.names:
        if len(PurePosixPath(name).parts) < 2:
            raise UserError(f"{images.path / name}: an image in no class folder; give --labels FILE, or move it into that of its class")
    return in_order({PurePosixPath(name).parts[0] for name in images.names}, str(images.path))


def _of_folders(images: ImageSet, classes: int | None) -> np.ndarray:
    names = class_folders(images)
    if classes is not None and len(names) != classes:
        raise UserError(
            f"{images.path}: {len(names)} class folders, the judge knows {classes} classes: which label is whose cannot be told; "
            "give --labels FILE"
        )
    place = {name: label for label, name in enumerate(names)}
    return np.array([place[PurePosixPath(name).parts[0]] for name in images.names or ()], dtype=np.int64)


def _of_column(images: ImageSet, column: str) -> np.ndarray:
    if not isinstance(images, DatasetImages):
        raise UserError(f"{images.path}: {images.kind} has no columns; give --labels FILE")
    return whole_numbers(np.asarray(images.values(column)), len(images), f"{images.path}, {COLUMN}{column}")


def _of_file(images: ImageSet, path: Path) -> np.ndarray:
    values = _by_name(images, path, "label") if path.suffix.lower() in READERS else _lines(images, path)
    numbers = []
    for number, value in enumerate(values):
        try:
            numbers.append(int(str(value)))
        except ValueError:
            raise UserError(f"{path}: the label of image {number} is {value!r}; expected a whole number") from None
    return whole_numbers(np.asarray(numbers), len(images), str(path))


def captions_of(images: ImageSet, told: str, labels: np.ndarray | None) -> tuple[list[str], str]:
    """(The caption of each image, where they come from in words). `told`: `column:NAME`, or a file: one a line, or a table with
    `file_name,text` or `class,text`, where a class is a label's number.
    """
    if told.startswith(COLUMN):
        if not isinstance(images, DatasetImages):
            raise UserError(f"{images.path}: {images.kind} has no columns; give --captions FILE")
        texts = [plain_text(value) for value in images.values(told.removeprefix(COLUMN))]
        return _complete(texts, f"{images.path}, {told}"), "the data set's own"
    path = Path(told)
    if path.suffix.lower() not in READERS:
        return _complete([plain_text(line) for line in _lines(images, path)], told), BY_IMAGE
    read = read_texts(_there(path))
    if read.key == "file_name":
        return [str(text) for text in _by_name(images, path, "text")], BY_IMAGE
    if labels is None:
        raise UserError(f"{path}: has a text for each class, and the samples have no labels; give --labels, or the texts by file_name")
    lacking = sorted({str(label) for label in labels} - read.texts.keys())
    if lacking:
        raise UserError(f"{path}: no text for class '{lacking[0]}', a label of the samples; classes are called by their numbers there")
    return [read.texts[str(label)] for label in labels], BY_LABEL


def _complete(texts: Sequence[str | None], where: str) -> list[str]:
    lacking = next((number for number, text in enumerate(texts) if text is None), None)
    if lacking is not None:
        raise UserError(f"{where}: image {lacking} has no text")
    return [text for text in texts if text is not None]


def _lines(images: ImageSet, path: Path) -> list[str]:
    """One for each image. UserError where it could be of another: files have two orders, by letters and by numbers."""
    try:
        lines = _there(path).read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise UserError(f"{path}: not a text in UTF-8: {error}") from None
    if len(lines) != len(images):
        raise UserError(f"{path}: {len(lines)} lines for {len(images)} images; expected one an image")
    if images.names and images.names != sorted(images.names, key=natural):
        raise UserError(
            f"{path}: its lines could be in either order, {images.names[1]} second or by number; give a CSV with the column file_name, or "
            "name the files with as many digits each"
        )
    return lines


def _by_name(images: ImageSet, path: Path, column: str) -> list[object]:
    """The values of a column by the column file_name."""
    if images.names is None:
        raise UserError(f"{path}: names files, and {images.path} is {images.kind}; give one line an image, in a file that ends in .txt")
    rows = read_table(_there(path))
    if not rows or not {"file_name", column} <= rows[0].keys():
        raise UserError(f"{path}: expected the columns file_name,{column}; it has {', '.join(rows[0]) if rows else 'nothing'}")
    values = {str(row["file_name"]): row.get(column) for row in rows}
    if len(values) < len(rows):
        raise UserError(f"{path}: a file_name stands twice; keep one of its rows")
    if lacking := next((name for name in images.names if values.get(name) is None), None):
        raise UserError(f"{path}: no {column} for '{lacking}'; it names others")
    if gone := next((name for name in values if name not in {*images.names}), None):
        raise UserError(f"{path}: there is no image '{gone}' in {images.path}; is the folder complete?")
    return [values[name] for name in images.names]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return path
