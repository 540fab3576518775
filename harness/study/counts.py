"""Classes and images that a study leaves to be counted: the section `data` is complete before it is read, from what was recorded.

Snakemake counts when it starts (harness/workflow/counting.py); the stages that it runs, and `dsr`, find the numbers in RECORDS.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.study.sections.data import SOURCES, OwnImages
from harness.study.typed import UserError

RECORDS = Path("results/counted.json")  # where the run is
FIELDS = ("classes", "train_images", "reference")
NOT_COUNTED = ("image_size", "flip", "captions")  # fields that no number of images depends on


def uncounted(values: dict[str, Any]) -> OwnImages | None:
    """The section `data` of a study's raw values with 1 in the place of what it leaves to be counted; None where that is nothing.

    None, too, for a section with another mistake, which whoever reads the study is told.
    """
    data = values.get("data")
    if not isinstance(data, dict):
        return None
    kind = SOURCES.get(str(data.get("source")))
    if kind is None or not issubclass(kind, OwnImages) or not _left_out(data):
        return None
    try:
        return kind.model_validate(data | dict.fromkeys(_left_out(data), 1))
    except ValidationError:
        return None


def filled(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """A study's raw values with what was counted; UserError where it was not."""
    section = uncounted(values)
    if section is None:
        return values
    counted = recorded().get(key(section))
    if counted is None:
        places = " and ".join(asset.path for asset in (section.train, section.held_out))
        raise UserError(
            f"study '{name}': data.{_left_out(values['data'])[0]} is left out, and the images in {places} are not counted yet: "
            f"snakemake -n --config study={name} counts them; or write it into the study"
        )
    return values | {"data": values["data"] | {field: counted[field] for field in _left_out(values["data"])}}


def key(section: OwnImages) -> str:
    """What the numbers belong to: the settings that decide them."""
    settings = section.model_dump(mode="json", exclude={*FIELDS, *NOT_COUNTED})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def recorded() -> dict[str, dict[str, Any]]:
    """Every record, by `key`; none where the file is not there, or not as it was written."""
    try:
        records = json.loads(RECORDS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(records, dict) and all(
        isinstance(one, dict) and all(isinstance(one.get(field), int) for field in FIELDS) for one in records.values()
    )
    return records if whole else {}


def _left_out(data: dict[str, Any]) -> list[str]:
    return [field for field in FIELDS if data.get(field) is None]
