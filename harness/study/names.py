"""What a method, a study, a table, a figure or a claim may be called: what is safe in paths, in shells and in Snakemake's wildcards."""

import os
import re
from pathlib import Path

from harness.study.typed import UserError

NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"


def check_name(name: object, what: str, where: str) -> str:
    """`name`; UserError for one that is none."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise UserError(f"{where}: '{name}' cannot name a {what}; rename it: a to z, A to Z, digits, _, . and -, and neither . nor - first")
    return name


def names_in(folder: Path, suffix: str, what: str) -> list[str]:
    """Names of the files with this suffix, sorted; hidden ones (`._x`, `.#x`) are nobody's. UserError for a name that is none."""
    entries = os.scandir(folder) if folder.is_dir() else ()
    files = [entry.name for entry in entries if entry.name.endswith(suffix) and not entry.name.startswith(".") and not entry.is_dir()]
    return [check_name(file.removesuffix(suffix), what, f"{folder / file}") for file in sorted(files)]


def either(names: list[str]) -> str:
    """A regular expression for one of the names and nothing else; of no names, for what no file is called."""
    return "|".join(map(re.escape, names)) or "none"
