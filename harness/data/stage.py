"""Data sets: images, labels and captions, in the splits `train` and `reference` (held out of all training).

Small sources become a Hugging Face `datasets` folder. A folder of images stays where it is: the data set is an index of its files.
"""

from pathlib import Path
from typing import Any

from harness.data.images import Split
from harness.data.registry import SOURCES, source_of
from harness.store import artifacts
from harness.study.study import Study
from harness.study.typed import UserError


def make_data(study: Study, *, records: list[Path] | None = None, out: Path) -> dict[str, Any]:
    """Stage `data`: build the data set folder `out`; returns its counts and checksum."""
    return source_of(study.data).make(records or [], out) | {"sha256": artifacts.sha256(out)}


def load_data(folder: Path, split: str) -> Split:
    """One split of a data set folder."""
    artifacts.checked(folder)
    source = artifacts.meta(folder).get("source")
    if source not in SOURCES:
        raise UserError(f"{folder}: no data set of this version; delete it and run the same command again")
    return SOURCES[source].load(Path(folder), split)
