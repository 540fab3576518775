"""What the Snakefile needs to know, computed without torch: the checked configuration, and what makes a rule run again."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic_core import to_jsonable_python

from harness.artifacts import code_hash, sha256
from harness.config import (
    EncoderRegisters,
    Study,
    UserError,
    check_seeds,
    digest,
    load_method,
    load_study,
    method_file,
    method_names,
    nearest,
)

__all__ = ["FIGURES", "Run", "checked_config", "code_hash", "put_own_python_first"]

FIGURES = ("samples", "encoder_norms", "denoiser_outliers", "fid")  # one function each in harness/report/figures.py
KEYS = ("study", "seeds", "methods")


def put_own_python_first() -> None:
    """Rules run `python -m harness`: let that be the interpreter of Snakemake (a rule's conda environment still comes before it)."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@dataclass(frozen=True)
class Run:
    """The configured study, seeds and methods."""

    study: Study
    seeds: list[int]
    methods: list[str]

    @property
    def encoders(self) -> list[str]:
        """Encoder variants that the methods need."""
        return sorted({self.encoder(name) for name in self.methods})

    def encoder(self, method: str) -> str:
        return load_method(method).encoder.key

    def backbone(self, encoder: str) -> str:
        return EncoderRegisters.from_key(encoder).backbone

    def config(self, *sections: str) -> str:
        """Hash of the parts of the study that a rule reads (`decoder`, `outlier_statistics.factor`; none named: all of it).

        A param of the rule: Snakemake runs it again when they change.
        """

        def part(name: str) -> object:
            value = self.study
            for field in name.split("."):
                value = getattr(value, field)
            return value

        return digest({name: to_jsonable_python(part(name)) for name in sections or type(self.study).model_fields})

    def method(self, name: str) -> str:
        """Hash of a method's file."""
        return sha256(method_file(name))[:16]


def checked_config(config: dict) -> Run:
    """Snakemake's config, checked; a mistake is one line and exit code 2, before any job starts."""
    try:
        for key in config:
            nearest(key, KEYS, "config key")
        study = load_study(str(config.get("study")))
        seeds = check_seeds(study.seeds if config.get("seeds") is None else _numbers(config["seeds"]))
        known = method_names()
        methods = next(m for m in (config.get("methods"), study.methods, known) if m is not None)
        if not isinstance(methods, list) or not methods:
            raise UserError(f"methods must be a list of files in baselines/, such as '[baseline,dsr]'; got {methods!r}")
        for name in methods:
            nearest(name, known, "method")
        if "baseline" not in methods:
            raise UserError("methods must contain 'baseline': every difference in the table is to it")
        return Run(study, seeds, [name for name in known if name in methods])
    except UserError as error:
        _stop(str(error))


def _numbers(values: object) -> object:
    """Snakemake reads the items of `--config seeds='[0,1]'` as strings."""
    if not isinstance(values, list):
        return values
    return [int(value) if isinstance(value, str) and value.isdecimal() else value for value in values]


def _stop(message: str) -> NoReturn:
    """Snakemake would turn an exception into a traceback and exit code 1."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(2)
