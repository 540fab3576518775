"""Where the code lies, and where the project does: in a checkout one folder, two where the code is installed."""

import os
from collections.abc import Mapping
from pathlib import Path

# What a project consists of before its first run: `dsr init` lays it down, and a wheel carries it (pyproject.toml).
FILES = (
    "Snakefile",
    "profiles/default/*.yaml",
    "baselines/*.py",
    "reports/*.yaml",
    "reports/tables/*.yaml",
    "envs/constraints.txt",
    "envs/harness.yaml",
)
VARIABLE = "DSR_PROJECT"  # the Snakefile sets it, for itself and for its jobs

CODE = Path(__file__).resolve().parents[2]  # what `harness/` lies in: modules, rules, studies, the paper's values


def original(code: Path = CODE) -> Path:
    """The folder of FILES as they came with the code: in the package of a wheel, else the checkout."""
    packed = code / "harness" / "project"
    return packed if packed.is_dir() else code


def project(here: Path, environment: Mapping[str, str], code: Path = CODE) -> Path:
    """The Snakefile's folder where Snakemake runs, else the working folder `here` if it is a project, else what came with the code."""
    if named := environment.get(VARIABLE):
        return Path(named).resolve()
    own = (here / "Snakefile").is_file() and (here / "baselines").is_dir() and (here / "reports" / "tables").is_dir()
    return here if own else original(code)


PROJECT = project(Path.cwd().resolve(), os.environ)  # what `baselines/` and the specifications in `reports/` lie in


def from_here(path: Path) -> str:
    """A path as the rules write it: relative where it is below the working folder."""
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.as_posix()
