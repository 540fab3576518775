"""The long table of a study: collected from its results folder, read from its CSV, and checked. What differs in protocol is refused."""

import csv
import math
from collections.abc import Collection, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from harness.results.schema import OLDEST, SCHEMA, SINCE, Row, Score, ScoreFile, rows_of
from harness.results.scores import of_outliers, score_info
from harness.results.views import CHOSEN, View, plain_view
from harness.store import artifacts
from harness.store.files import atomic
from harness.study.seeds import PUBLISHED, run_name, seed_text
from harness.study.study import Study
from harness.study.typed import UserError

PROTOCOL = ("n", "reference", "content", "extractor", "config", "precision", "tf32", "compile")  # what must not differ within a column
ONE_TABLE = ("code",)  # nor these within the rows of a study. (Versions, device and commit may, and the table says so.)
OWN = ("reference", "content", "extractor")  # outlier statistics are of the run's own models and latents
OF_METHOD = ("encoder", "registers", "latents", "decoder")  # hashes that all seeds of a method share
KEY = ["study", "method", "seed", "score", "ema", "step", "guidance"]
Line = dict[Hashable, Any]  # of the table: a row, by column
EMPTY_IS_NONE = ("value", "low", "high", "seed", "ema", "step")
ANEW = "render the table again (snakemake --cores all reports/table1.md)"


def collect(study: Study, methods: list[str], seeds: list[int], results: Path, views: Collection[str] = ()) -> pd.DataFrame:
    """The long table: one line per method, seed, view and score, in the order of `methods` and `seeds`, with the columns of Row.

    The views are those of the averages that the study samples, and of `views`, where the study has them: `steps`, the snapshots of the
    training; `guided`, the guidance that was searched for. A further column, `seconds`, is what computing the scores of the line took.
    UserError for a file that is missing, spoiled, of another run or without its provenance, and for rows that cannot share a column.
    """
    lines: list[dict[str, Any]] = []
    for method in methods:
        for seed in study.seeds_of(method, seeds):
            run = results / "runs" / method / run_name(seed)
            for path, view in _files(study, method, run, views):
                file, seconds = _read(path), artifacts.meta(path)["seconds"]
                for field, wanted in ({"study": study.name, "method": method, "seed": seed} | view._asdict()).items():
                    if getattr(file, field) != wanted:
                        raise UserError(
                            f"{path}: {field} is {getattr(file, field)}, not {wanted}; delete it and run the same command again"
                        )
                lines += [one_line(row) | {"seconds": seconds} for row in rows_of(file)]
    return checked(typed(pd.DataFrame(lines)))


def _files(study: Study, method: str, run: Path, views: Collection[str]) -> Iterator[tuple[Path, View]]:
    """The score files of a run, each with what it is of."""
    plain, scores = plain_view(study, method), run / "scores.json"
    if method in study.denoiser.released:
        yield from ((path, plain) for path in (scores, run / "outliers.json"))
        return
    for decay in study.sampled:
        yield study.average_file(scores, decay), plain._replace(ema=decay)
    yield run / "outliers.json", plain
    if "steps" in views:
        for step in study.snapshots:
            yield study.snapshot_file(scores, step), plain._replace(step=step)
    if "guided" in views and study.sampling.guidance_search:
        choice = artifacts.read_json(run.parent / "guidance.json")
        yield run / "guided" / scores.name, plain._replace(guidance=choice["guidance"])


def one_line(row: Row) -> dict[str, Any]:
    """Its values, with texts that may come from elsewhere on one line, as a CSV and a footnote need them."""
    values = row.model_dump()
    return values | {field: " ".join(values[field].split()) for field in ("how", "reason")}


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as floats: a score without a value, and an interval that there is not, are NaN."""
    return table.astype(dict.fromkeys(("value", "low", "high", "ema"), float))


def of_view(table: pd.DataFrame, study: Study, *, ema: float | None = None, step: int | None = None, guided: bool = False) -> pd.DataFrame:
    """Of the rows of `study`, those of one view: an EMA decay (None: the one that every score is of), a training step (None: the last).

    `guided`: of the guidance that was searched for, which is each method's own. Published weights have one view, the first of these.
    """
    plain = plain_view(study)
    same = (table["ema"] == (plain.ema if ema is None else ema)) & (table["step"] == (plain.step if step is None else step))
    if ema is None and step is None:
        same |= table["seed"] == PUBLISHED
    searched = table["guidance"].str.contains(CHOSEN, regex=False)
    return table[same & (searched if guided else table["guidance"] == plain.guidance)]


def choices(table: pd.DataFrame) -> dict[str, str]:
    """By method: the guidance that was chosen for it, in words; of methods that have rows of it."""
    searched = table[table["guidance"].str.contains(CHOSEN, regex=False)]
    return {str(method): guidance.partition(CHOSEN)[0] for method, guidance in zip(searched["method"], searched["guidance"], strict=True)}


def _read(path: Path) -> ScoreFile:
    try:
        return ScoreFile.model_validate(artifacts.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}; delete it and run the same command again") from None


# ------------------------------------------------------------------------------------------------------------------- files


def to_csv(table: pd.DataFrame) -> str:
    """The long table as text; the same runs give the same bytes, so without `seconds`. Rows of an older version get no newer columns."""
    version = table["schema_version"].max() if len(table) else SCHEMA
    newer = [field for field, since in SINCE.items() if since > version]
    if (table["seed"] == PUBLISHED).any():
        table = table.assign(seed=["" if pd.isna(seed) else seed_text(int(seed)) for seed in table["seed"]])
    return table.drop(columns=["seconds", *newer], errors="ignore").to_csv(index=False, lineterminator="\n")


def to_parquet(table: pd.DataFrame, path: Path) -> None:
    """The long table with `seconds`; published weights have -1 in the place of a seed, so that a column has one type."""
    with atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def from_csv(path: Path, *, empty: bool = False) -> pd.DataFrame:
    """Rows that `to_csv` wrote, each checked against the schema; of an older version too, whose rows lack the fields of SINCE.

    UserError that names file, line and field; and for no rows, unless `empty`.
    """
    lines = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # a spreadsheet puts a mark before the first column
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            fields = [field for field in Row.model_fields if field in header or field not in SINCE]  # an older version's, too
            if header != fields:
                odd = next((f"no column '{field}'" for field in fields if field not in header), None)
                odd = odd or next((f"an unknown column '{name}'" for name in header if name not in fields), "columns in another order")
                raise UserError(f"{path}: not rows of this schema: it has {odd}; {ANEW}")
            for values in reader:
                if len(values) != len(fields):
                    raise UserError(f"{path}, line {reader.line_num}: has {len(values)} values for {len(fields)} columns")
                if (version := values[fields.index("schema_version")]) not in map(str, range(OLDEST, SCHEMA + 1)):
                    where, wanted = f"{path}, line {reader.line_num}", f"{OLDEST} to {SCHEMA}"
                    raise UserError(f"{where}: not rows of this schema: schema_version is {version or 'missing'}, not {wanted}; {ANEW}")
                try:
                    lines.append(_row(dict(zip(fields, values, strict=True))))
                except ValidationError as error:
                    first = error.errors()[0]
                    field = ".".join(map(str, first["loc"])) or "value"
                    raise UserError(f"{path}, line {reader.line_num}: {field}: {first['msg']}") from None
                except (ValueError, UserError) as error:
                    raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of rows ({' '.join(str(error).split())})") from None
    if not lines and not empty:
        raise UserError(f"{path}: has no rows")
    try:
        return checked(typed(pd.DataFrame(lines, columns=list(Row.model_fields))))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def trained(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows of seeds. UserError where there are none: published weights have one run, and no other to tell chance by."""
    kept = table[table["seed"] != PUBLISHED]
    if kept.empty:
        raise UserError(f"{path}: rows of published weights alone, which are of no seed: nothing tells how they vary by chance")
    return kept


def _row(values: dict[str, str]) -> dict[str, Any]:
    """A line of the CSV as the values of a Row. ValueError for what a row cannot be."""
    texts = {field: None if text == "" and field in EMPTY_IS_NONE else text for field, text in values.items()}
    version = int(values["schema_version"])  # pydantic converts no literal
    for field, since in SINCE.items():
        if version >= since and field not in values:
            raise ValueError(f"no '{field}', which rows have from version {since} on; render the table again")
    row = Row.model_validate(texts | {"schema_version": version}, strict=False)
    Score.model_validate({field: getattr(row, field) for field in Score.model_fields})
    info = score_info(row.score)
    if (row.better, row.shared) != (info.better, info.shared):
        raise ValueError(f"better, shared: {row.better}, {row.shared} are not those of score '{row.score}', {info.better}, {info.shared}")
    if (row.step == 0) != (row.seed == PUBLISHED) or (row.seed or 0) < PUBLISHED:
        raise ValueError(
            f"seed, step: {values['seed']}, {row.step}: a seed is 0 or more and its step 1 or more, or `published` with step 0"
        )
    if row.ema is not None and not (math.isfinite(row.ema) and 0 <= row.ema < 1):
        raise ValueError(f"ema: {row.ema} is not a decay, which is at least 0 and less than 1")
    return row.model_dump()


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


# ------------------------------------------------------------------------------------------------------------------ checks


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """`table`, if no row is there twice and all rows of a score were measured alike; UserError otherwise."""
    for row in table[table.duplicated(KEY)].to_dict("records")[:1]:
        raise UserError(f"score '{row['score']}' of {_run(row)} is there twice (EMA {row['ema']:g}); keep one of the rows")
    check_protocol(table)
    return table


def check_protocol(table: pd.DataFrame) -> None:
    """UserError that names two rows of one study, score and view that were measured differently. Rows without a value were not measured."""
    firsts: dict[tuple[Any, ...], Line] = {}
    for row in table[table["status"] == "ok"].to_dict("records"):
        column = (row["study"], row["score"], View(row["ema"], row["step"], row["guidance"]).protocol)
        own = OWN if of_outliers(row["score"]) else ()
        _check_alike(row, firsts.setdefault(column, row), [f for f in (*PROTOCOL, *ONE_TABLE) if f not in own], "cannot share a column")
        of_seeds = (*OF_METHOD, "guidance", "sampled", *["value"] * row["shared"])
        _check_alike(row, firsts.setdefault((*column, row["method"]), row), of_seeds, "are not seeds of one method")


def _check_alike(row: Line, first: Line, fields: Iterable[str], problem: str) -> None:
    for field in fields:
        if row[field] != first[field]:
            raise UserError(
                f"score '{row['score']}' of {_run(row)} and {_run(first)} {problem}: "
                f"{field} is {row[field]} and {first[field]}; run the whole line again so that both are measured alike"
            )


def _run(row: Line) -> str:
    return f"{row['method']}/{run_name(row['seed'])}"
