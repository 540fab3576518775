"""The classes of a study: one list in natural order, which training and held-out images share. A label is a place in it."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path

from harness.study.typed import UserError

NAMED = 5  # class folders in a message


def natural(name: str) -> tuple[str | int, ...]:
    """Sorts numbers by value: `2 < 10`, `class 9 < class 10`, however many zeros they begin with. Texts and numbers alternate."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def in_order(names: Iterable[str], where: str) -> list[str]:
    """The class names, sorted; UserError where two of them are the same number, or one cannot be written down. `where`: of a message."""
    ordered = sorted(names, key=lambda name: (natural(name), name))
    for name in ordered:
        if not name.isprintable():
            raise UserError(f"{where}: class {name!a} has a name that cannot be printed; rename it")
    for one, other in pairwise(ordered):
        if natural(one) == natural(other):
            raise UserError(f"{where}: classes '{one}' and '{other}' are the same number; rename one, or put their images together")
    return ordered


def check_held_out(classes: Sequence[str], held_out: Sequence[str], *, train: str, where: str, some: bool) -> None:
    """UserError names the first class that only one of both splits has. `some`: the held-out images need not be of every class."""
    theirs = set(held_out)
    for name in sorted(set(classes) ^ theirs, key=lambda name: (natural(name), name)):
        if name in theirs:
            near = [own for own in classes if _alike(own) == _alike(name)]
            same = bool(near) and unicodedata.normalize("NFC", near[0]) == unicodedata.normalize("NFC", name)
            hint = f" (there it is {near[0]!a}, here {name!a})" if same else f" (there it is '{near[0]}')" if near else ""
            raise UserError(
                f"{where}: class '{name}' is not among the {len(classes)} of {train}{hint}: label by label both must be the same; "
                "rename it, or take it out"
            )
        if not some:
            raise UserError(
                f"{train}: class '{name}' is not among the {len(held_out)} of {where}: label by label both must be the same; rename it, "
                "or say data.held_out_classes: some where the held-out images are not of every class"
            )


def _alike(name: str) -> tuple[str | int, ...]:
    """The same for names that differ in case, in zeros before a number, or in how accents are composed."""
    return natural(unicodedata.normalize("NFC", name).casefold())


def check_filled(images: Mapping[str, Sequence[object]], where: str) -> None:
    """UserError names the classes that have no image."""
    empty = in_order((name for name, files in images.items() if not files), where)
    if empty:
        more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
        named = ", ".join(f"'{name}'" for name in empty[:NAMED])
        raise UserError(
            f"{where}: no image in the class folder{'s' * (len(empty) > 1)} {named}{more}; put images there, or remove it from every split"
        )


def read_stated(path: Path) -> list[str]:
    """The order of classes that a file states, a name a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable list of classes, a name a line in UTF-8: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def check_stated(stated: Sequence[str], classes: Sequence[str] | None, of: Path | str) -> None:
    """UserError names the first label that stands for one class in a model from elsewhere and for another in the study's data set."""
    if classes is None:
        raise UserError(f"{of}: its order of classes is stated, and the study's data set names none to compare it with; leave it out")
    for label, (theirs, ours) in enumerate(zip_longest(stated, classes)):
        if theirs != ours:
            there, here = (f"'{name}'" if name is not None else "none" for name in (theirs, ours))
            raise UserError(
                f"{of}: label {label} is class {there} there and {here} in the study's data set; "
                "name the class folders so that their natural order is the model's"
            )
