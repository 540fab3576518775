"""What a method, a study, a table, a figure or a claim may be called: what is safe in paths, in shells and in Snakemake's wildcards."""

import os
import re
from contextlib import suppress
from pathlib import Path

from harness.study.typed import UserError
from harness.study.yaml_file import mapping

NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
OF_STUDY = "study:"  # before a name, where an option takes a path, too


def check_name(name: object, what: str, where: str) -> str:
    """`name`; UserError for one that is none, and for a study's that Snakemake's configuration would take for another value than a text."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise UserError(f"{where}: '{name}' cannot name a {what}; rename it: a to z, A to Z, digits, _, . and -, and neither . nor - first")
    if what == "study" and (read := _as_value(name)) != name:
        raise UserError(f"{where}: '{name}' cannot name a study: in Snakemake's configuration it is {read!r}, not a text; rename it")
    return name


def _as_value(name: str) -> object:
    """What a name is as a value: in the order of Snakemake's `--config` a number or a truth, then as in its configuration files."""
    for number in (int, float):
        with suppress(ValueError):
            return number(name)
    return mapping(f"name: {name}", name)["name"]


def names_in(folder: Path, suffix: str, what: str) -> list[str]:
    """Names of the files with this suffix, sorted; hidden ones (`._x`, `.#x`) are nobody's. UserError for a name that is none."""
    entries = os.scandir(folder) if folder.is_dir() else ()
    files = [entry.name for entry in entries if entry.name.endswith(suffix) and not entry.name.startswith(".") and not entry.is_dir()]
    return [check_name(file.removesuffix(suffix), what, f"{folder / file}") for file in sorted(files)]


def either(names: list[str]) -> str:
    """A regular expression for one of the names and nothing else; of no names, for what no file is called."""
    return "|".join(map(re.escape, names)) or "none"
