"""Counts the classes and images that a study leaves out, and records them, before the study is read."""

from contextlib import suppress
from pathlib import Path

from harness.store.files import write_json
from harness.study.counts import RECORDS, key, recorded, uncounted
from harness.study.study import family, read_study, study_names
from harness.study.typed import UserError


def count_left_out(name: str, root: Path) -> None:
    """Of the study `name`, in the assets folder `root`, unless it is recorded. UserError where that cannot be counted."""
    if name in study_names():  # else whoever loads it says so
        _count(name, root, again=False)


def count_family(name: str, root: Path) -> None:
    """Of the study `name`, whatever is recorded; and of those that tables set beside it, as far as they can be counted."""
    if name in study_names():
        _count(name, root, again=True)
        for other in study_names():
            if other != name and family(other) == family(name):
                with suppress(UserError):  # it is told where that study is asked for
                    _count(other, root, again=False)


def _count(name: str, root: Path, again: bool) -> None:
    section = uncounted(read_study(name))
    if section is None or (key(section) in recorded() and not again):
        return
    from harness.data.registry import source_of

    try:
        counts = source_of(section).count(root)
        record = counts | {"train": section.train.path, "held_out": section.held_out.path}
        if recorded().get(key(section)) != record:
            write_json(RECORDS, recorded() | {key(section): record})
    except (UserError, OSError) as error:
        raise UserError(f"study '{name}' leaves its images to be counted: {error}") from None
