"""Collect the rows of a study from its results folder. A score whose protocol differs between rows is refused."""

import json
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from harness import artifacts
from harness.config import UserError
from harness.schema import Row, ScoreFile, rows_of

PROTOCOL = ("n", "reference", "extractor", "config", "precision")  # what must not differ within a column
OWN_REFERENCE = ("denoiser_", "encoder_")  # outlier statistics are of the run's own models and latents


def collect(study: str, methods: list[str], seeds: list[int], results: Path) -> pd.DataFrame:
    """The long table: one line per method, seed and score, in the order of `methods` and `seeds`."""
    rows: list[Row] = []
    for method in methods:
        for seed in seeds:
            run = results / "runs" / method / f"seed{seed}"
            files = [_read(run / f"{name}.json") for name in ("scores", "outliers")]
            for file in files:
                if file.study != study:
                    raise UserError(f"{run}: results of study '{file.study}' in the folder of '{study}'; delete them and run again")
                rows += rows_of(file)
    table = pd.DataFrame([row.model_dump() for row in rows])
    check_protocol(table)
    return table


def check_protocol(table: pd.DataFrame) -> None:
    """UserError that names two rows of one score that were measured differently."""
    for score, group in table.groupby("score", sort=False):
        fields = [f for f in PROTOCOL if not (score.startswith(OWN_REFERENCE) and f in ("reference", "extractor"))]
        first = group.iloc[0]
        for _, row in group.iterrows():
            for field in fields:
                if row[field] != first[field]:
                    raise UserError(
                        f"score '{score}' of {row['method']}/seed{row['seed']} and {first['method']}/seed{first['seed']} cannot share a column: "
                        f"{field} is {row[field]} and {first[field]}; run the whole line again so that both are measured alike"
                    )


def _read(path: Path) -> ScoreFile:
    try:
        return ScoreFile.model_validate(artifacts.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}; delete it and run the same command again") from None


def times(results: Path) -> pd.DataFrame:
    """Seconds of every stage, from the records; kept apart from the rows because they differ from run to run."""
    lines = []
    for path in sorted(results.rglob(f"*{artifacts.META}")):
        if "state" not in path.relative_to(results).parts:
            record = json.loads(path.read_text())
            artifact_path = path.relative_to(results).as_posix().removesuffix(artifacts.META)
            lines.append(
                {
                    "stage": record["stage"],
                    "artifact": artifact_path,
                    "seconds": record["seconds"],
                    "device": record["provenance"]["device"],
                }
            )
    return pd.DataFrame(lines)
