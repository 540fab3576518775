"""What a folder of images holds: its files by class, and what a metadata file beside them says of each."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from harness.data.class_words import class_name, plain_text, read_table
from harness.data.classes import check_filled
from harness.data.listing import list_images, subfolders
from harness.study.typed import UserError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's `imagefolder`


class Listed(NamedTuple):
    """Files relative to the folder, sorted, by class; and the text of each, where metadata has one.

    `order`: of the classes, where it is not the natural one; `others`: files that are no image.
    """

    classes: dict[str, list[str]]
    texts: dict[str, str]
    order: list[str] | None = None
    others: Sequence[str] = ()


def listed(root: Path) -> Listed:
    """The images below `root`: a class is a sub-folder, or what the column `label` of metadata says.

    UserError for an image of no class, a class without images, and metadata that do not fit the files.
    """
    images, others = list_images(root)
    facts = _metadata(root, others, images)
    if any("label" in row for row in facts.values()):
        classes: dict[str, list[str]] = {}
        for file in images:
            classes.setdefault(_label(root, file, facts[file].get("label")), []).append(file)
    else:
        classes = {folder.name: [] for folder in subfolders(root)}
        for file in images:
            first, *below = PurePosixPath(file).parts
            if not below:
                raise UserError(f"{root / file}: an image in no class folder; move it into that of its class, or out of {root}")
            classes[first].append(file)
    if not classes:
        raise UserError(f"{root}: no class folders; expected one sub-folder a class, or a metadata file with the column label")
    check_filled(classes, str(root))
    texts = {file: text for file, row in facts.items() if (text := plain_text(row.get("text")))}
    return Listed(classes, texts, others=[file for file in others if PurePosixPath(file).name not in METADATA])


def _metadata(root: Path, others: list[str], images: list[str]) -> dict[str, dict[str, Any]]:
    """What metadata files say of every image, by its file; empty where there is no such file."""
    tables = [file for file in others if PurePosixPath(file).name in METADATA]
    facts: dict[str, dict[str, Any]] = {}
    for table in tables:
        rows, folder = read_table(root / table), PurePosixPath(table).parent
        if rows and not ({"file_name"} < rows[0].keys() and {"text", "label"} & rows[0].keys()):
            raise UserError(f"{root / table}: expected the column file_name with text, label or both; it has {', '.join(rows[0])}")
        for row in rows:
            file = os.path.normpath(folder / str(row.get("file_name")))
            if file in facts:
                raise UserError(f"{root / table}: file_name '{row['file_name']}' stands twice; keep one of its rows")
            if "text" in row and plain_text(row["text"]) is None:
                raise UserError(f"{root / table}: '{row['file_name']}' has no text")
            facts[file] = row
    if tables:
        known = set(images)
        if gone := next((file for file in facts if file not in known), None):
            raise UserError(f"{root}: {tables[0]} names '{gone}', which is no image there; is the folder complete?")
        if lacking := next((file for file in images if file not in facts), None):
            raise UserError(f"{root / lacking}: no metadata file names it; {tables[0]} names others")
        if len({("text" in row, "label" in row) for row in facts.values()}) > 1:
            raise UserError(f"{root}: some rows of its metadata have a text or a label, others have not")
    return facts


def _label(root: Path, file: str, label: object) -> str:
    name = class_name(label)
    if name is None:
        raise UserError(f"{root / file}: its label in the metadata is {label!r}; expected a text or a whole number")
    return name
