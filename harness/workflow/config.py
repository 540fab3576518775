"""Snakemake's configuration, checked before any job starts; what is wrong is one line and exit code 2."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from harness.store.assets import ASSETS_FOLDER
from harness.study.fits import check_fits
from harness.study.method import in_order, load_method, method_names
from harness.study.study import load_study
from harness.study.typed import UserError, check_seeds, check_titles, nearest
from harness.study.yaml_file import read_mapping
from harness.workflow.counting import count_family
from harness.workflow.run import Run, say_missing

KEYS = ("study", "seeds", "methods", "assets")


def checked_config(config: dict[str, Any]) -> Run:
    """Snakemake's config, checked; a mistake is one line and exit code 2, before any job starts."""
    try:
        for key in config:
            nearest(key, KEYS, "config key")
        root = config.get("assets") or ASSETS_FOLDER
        if not isinstance(root, str):
            raise UserError(f"assets must be the name of a folder; got {root!r}")
        count_family(str(config.get("study")), Path(root))
        study = load_study(str(config.get("study")))
        seeds = check_seeds(study.seeds if config.get("seeds") is None else _numbers(config["seeds"]))
        methods = next(m for m in (config.get("methods"), study.methods, method_names()) if m is not None)
        if not isinstance(methods, list) or not methods or not all(isinstance(name, str) for name in methods):
            raise UserError(f"methods must be a list of files in baselines/, such as '[baseline,dsr]'; got {methods!r}")
        titles = [(name, load_method(name).title) for name in dict.fromkeys(methods)]
        if "baseline" not in methods:
            raise UserError("methods must contain 'baseline': every difference in the table is to it")
        for name in methods:
            check_fits(study, name)
        check_titles(titles, "methods")
        say_missing(study, root)
        return Run(study, seeds, in_order(methods), root)
    except UserError as error:
        stop(str(error))


def check_files(files: Iterable[str | Path], load: Callable[[str | Path], Mapping[str, object]]) -> None:
    """End Snakemake where a configuration file has a key twice, or `load`, Snakemake's reader, takes a value for another than YAML 1.2."""
    for file in files:
        try:
            values = read_mapping(Path(file), "settings")
        except UserError as error:
            stop(str(error))
        for key, value in load(file).items():
            if value != values[key]:
                stop(f"{file}: {key}: Snakemake reads {value!r} where {values[key]!r} is written; write it so that both read the same")


def _numbers(values: object) -> object:
    """Snakemake reads the items of `--config seeds='[0,1]'` as strings."""
    if not isinstance(values, list):
        return values
    return [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]


def stop(message: str) -> NoReturn:
    """End Snakemake with one line and exit code 2: it would turn an exception into a traceback and exit code 1."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(2)
