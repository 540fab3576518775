"""Collect the rows of a study from its results folder. A score whose protocol differs between rows is refused."""

from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from harness import artifacts
from harness.config import UserError
from harness.schema import Row, ScoreFile, rows_of
from harness.study import Study

PROTOCOL = ("n", "reference", "extractor", "config", "precision", "tf32", "compile")  # what must not differ within a column
OWN_REFERENCE = ("denoiser_", "encoder_")  # outlier statistics are of the run's own models and latents


def collect(study: Study, methods: list[str], seeds: list[int], results: Path) -> pd.DataFrame:
    """The long table: one line per method, seed, sampled average and score, in the order of `methods` and `seeds`, with the columns of Row.

    A further column, `seconds`, is what computing the scores of the line took.
    """
    lines: list[dict] = []
    for method in methods:
        for seed in seeds:
            run = results / "runs" / method / f"seed{seed}"
            paths = [study.average_file(run / "scores.json", decay) for decay in study.sampled]
            for path in [*paths, run / "outliers.json"]:
                file, seconds = _read(path), artifacts.meta(path)["seconds"]
                if file.study != study.name:
                    raise UserError(f"{path}: results of study '{file.study}' in the folder of '{study.name}'; delete them and run again")
                lines += [row.model_dump() | {"seconds": seconds} for row in rows_of(file)]
    table = typed(pd.DataFrame(lines))
    check_protocol(table)
    return table


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as floats: a score without a value, and an interval that there is not, are NaN."""
    return table.astype(dict.fromkeys(("value", "low", "high", "ema"), float))


def of_average(table: pd.DataFrame, decay: float) -> pd.DataFrame:
    """The rows of one EMA decay."""
    return table[table["ema"] == decay]


def to_csv(table: pd.DataFrame) -> str:
    """The long table as text; the same runs give the same bytes, so without `seconds`."""
    return table.drop(columns="seconds", errors="ignore").to_csv(index=False, lineterminator="\n")


def from_csv(path: Path) -> pd.DataFrame:
    """Rows that `to_csv` wrote, each checked against the schema. UserError that names file, line and field."""
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: not a table of rows ({str(error).splitlines()[0]})") from None
    lines = []
    for number, line in enumerate(table.to_dict("records"), start=2):
        values = {field: None if text == "" and field in ("value", "low", "high") else text for field, text in line.items()}
        try:
            lines.append(Row.model_validate(values | {"schema_version": int(values.get("schema_version") or 0)}, strict=False).model_dump())
        except (ValidationError, ValueError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ["schema_version"], "msg": str(error)}
            raise UserError(f"{path}, line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not lines:
        raise UserError(f"{path}: has no rows")
    return typed(pd.DataFrame(lines))


def check_protocol(table: pd.DataFrame) -> None:
    """UserError that names two rows of one score that were measured differently."""
    for (score, _), group in table.groupby(["score", "ema"], sort=False):
        fields = [f for f in PROTOCOL if not (score.startswith(OWN_REFERENCE) and f in ("reference", "extractor"))]
        first = group.iloc[0]
        for field in fields:
            other = group[group[field] != first[field]]
            if len(other):
                row = other.iloc[0]
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
            artifact = path.with_name(path.name.removesuffix(artifacts.META))
            record = artifacts.meta(artifact)
            lines.append(
                {
                    "stage": record["stage"],
                    "artifact": artifact.relative_to(results).as_posix(),
                    "seconds": record["seconds"],
                    "device": record["provenance"]["device"],
                }
            )
    return pd.DataFrame(lines)
