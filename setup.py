"""A wheel carries what `dsr init` lays down as the package `harness.project`, read from where it lies here; the rest is pyproject.toml."""

from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

FOLDERS = run_path(str(Path(__file__).parent / "harness" / "study" / "folders.py"))

setup(
    packages=[*find_packages(include=["harness*"]), "harness.project"],
    package_dir={"harness.project": "."},
    package_data={
        "harness": ["rules/*", "studies/*.yaml", "encoder/register_neurons/*.json", "report/paper.yaml", "report/*.j2"],
        "harness.project": [*FOLDERS["FILES"]],
    },
    include_package_data=False,
)
