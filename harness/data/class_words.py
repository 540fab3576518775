"""What classes are called in captions: ImageNet's words where they are WordNet ids, else their own names, or a file's texts."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.classes import NAMED
from harness.study.typed import UserError, did_you_mean

WORDNET_ID = re.compile(r"n[0-9]{8}")
TEMPLATE = "a photo of a {}"
BY_NAME, BY_ID = "from the names of the classes", "ImageNet's words for the classes' WordNet ids"
BY_CLASS, BY_IMAGE = "the file's, one a class", "the file's, those of a class's held-out images in turn"
FEW = 10_000  # names that are searched for a similar one
KEYS = ("class", "file_name")  # what a text is of


class Captions(NamedTuple):
    """`texts`: of each class, one or several; None where none is known, and `source` says why. `source`: where they come from, in words."""

    texts: list[list[str]] | None
    source: str


class Texts(NamedTuple):
    """What a file of captions says: `key`, one of KEYS, and the text of each."""

    key: str
    texts: dict[str, str]


def captions_of(classes: Sequence[str]) -> Captions:
    """A caption of each class, from its name alone."""
    ids = [name for name in classes if WORDNET_ID.fullmatch(name)]
    if not ids:
        return Captions([[TEMPLATE.format(readable(name))] for name in classes], BY_NAME)
    words = imagenet_words()
    unknown = [name for name in classes if name not in words]
    if unknown:
        return Captions(None, f"class '{unknown[0]}' is beside WordNet ids, and none of ImageNet's {len(words)} itself")
    return Captions([[TEMPLATE.format(words[name])] for name in classes], BY_ID)


def readable(name: str) -> str:
    """`golden_retriever` -> `golden retriever`."""
    return " ".join(name.replace("_", " ").split()) or name


def imagenet_words() -> dict[str, str]:
    """WordNet id -> the name of the class in open_clip, of ImageNet's 1,000; both lists are in the order of the ids."""
    from harness.machine.device import ensure_torchvision

    ensure_torchvision()  # both import it
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CLASSNAMES, strict=True))


# ------------------------------------------------------------------------------------------------------------------- files


def plain_text(value: object) -> str | None:
    """A text from a table, with single spaces; None for what is no text or an empty one."""
    return (" ".join(value.split()) or None) if isinstance(value, str) else None


def class_name(value: object) -> str | None:
    """The name of the class that a label from a table says, a text or a whole number; None for what is neither."""
    return str(value).strip() or None if isinstance(value, str | int) and not isinstance(value, bool) else None


def read_texts(path: Path) -> Texts:
    """Of a CSV or JSONL file with the columns `class,text` or `file_name,text`. UserError names the line that is not so."""
    rows = read_table(path)
    keys = [key for key in KEYS if rows and key in rows[0]]
    if len(keys) != 1 or "text" not in rows[0]:
        have = ", ".join(rows[0]) if rows else "nothing"
        raise UserError(f"{path}: expected the columns class,text or file_name,text; it has {have}")
    texts: dict[str, str] = {}
    for line, row in enumerate(rows, start=1):
        name, text = row.get(keys[0]), plain_text(row.get("text"))
        if not isinstance(name, str) or not name or text is None:
            raise UserError(f"{path}: row {line} lacks its {keys[0]} or its text")
        if name in texts:
            raise UserError(f"{path}: {keys[0]} '{name}' stands twice; keep one of them")
        texts[name] = text
    return Texts(keys[0], texts)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV (the first line names the columns), JSONL or parquet file, values as they stand there."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    try:
        rows = reader(path)
    except (ValueError, csv.Error, RecursionError) as error:  # Arrow's errors are ValueErrors
        raise UserError(f"{path}: not readable as {path.suffix[1:]}: {error}") from None
    if not all(isinstance(row, dict) and None not in row for row in rows):
        raise UserError(f"{path}: a row has more values than the first line has columns, or is no mapping")
    return rows


def _csv(path: Path) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True))


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def class_captions(texts: Mapping[str, str], classes: Sequence[str], where: str) -> Captions:
    """Of a file that has a text for every class; UserError names one that it lacks, or one that there is not."""
    for name in texts:
        if name not in classes:
            raise UserError(f"{where}: there is no class '{name}'{did_you_mean(name, classes)}")
    if lacking := [name for name in classes if name not in texts]:
        named = ", ".join(f"'{name}'" for name in lacking[:NAMED])
        raise UserError(f"{where}: no text for {len(lacking)} of {len(classes)} classes, first {named}")
    return Captions([[texts[name]] for name in classes], BY_CLASS)


def add_texts(texts: Mapping[str, str], index: Mapping[str, dict[str, list[Any]]], where: str) -> None:
    """Give every image of `index` its text; UserError names one that lacks it, is not there, or could be of two splits."""
    splits = {split: set(part["files"]) for split, part in index.items()}
    if both := set.intersection(*splits.values()):
        raise UserError(
            f"{where}: '{min(both)}' is a training and a held-out image; give each folder a metadata.csv with file_name,text instead"
        )
    known = set.union(*splits.values())
    if gone := next((name for name in texts if name not in known), None):
        raise UserError(f"{where}: there is no image '{gone}'{did_you_mean(gone, known) if len(known) < FEW else ''}")
    if lacking := next((name for part in index.values() for name in part["files"] if name not in texts), None):
        raise UserError(f"{where}: no text for {len(known - texts.keys())} of {len(known)} images, first '{lacking}'")
    for part in index.values():
        part["texts"] = [texts[name] for name in part["files"]]


def image_captions(index: Mapping[str, dict[str, list[Any]]], classes: Sequence[str]) -> Captions:
    """Of an index with `texts`, one an image: those of a class's held-out images; of its training images where it has none."""
    of_class: list[dict[str, None]] = [{} for _ in classes]
    for split in ("reference", "train"):
        lacking = [not texts for texts in of_class]
        for text, label in zip(index[split]["texts"], index[split]["labels"], strict=True):
            if lacking[label]:
                of_class[label][text] = None
    return Captions([list(texts) for texts in of_class], BY_IMAGE)
