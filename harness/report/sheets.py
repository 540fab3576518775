"""Where a number of the page comes from: of each score of a method, and each difference to the baseline, its rows, seed by seed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from harness.report.cells import named
from harness.report.rows import Line
from harness.report.specs import Part
from harness.report.statistics import Estimate, by_seed, difference, estimate
from harness.results.schema import NONE
from harness.results.scores import of_outliers, score_info
from harness.results.views import CHOSEN
from harness.study.seeds import seed_text
from harness.study.study import Study

DIGITS = 16  # of a hash; all of them are in table1.csv


@dataclass(frozen=True)
class Sheet:
    """Where a number comes from. `facts`: label and value of each seed, or one value that all of them share."""

    id: str
    title: str
    about: str
    summary: str
    seeds: list[str]
    facts: list[tuple[str, list[str]]]
    commands: list[str]
    links: list[tuple[str, str]]


def sheet_id(
    score: str,
    method: str,
    *,
    baseline: str | None = None,
    ema: float | None = None,
    guided: bool = False,
    study: str | None = None,
) -> str:
    """`baseline`: of the difference to it.

    `ema`: of another average than the one that every score is of; `study`: of another than the page's.
    """
    view = ("" if ema is None else f"-ema{ema:g}") + "-guided" * guided
    of = "" if baseline is None else "difference-" if baseline == "baseline" else f"difference-to-{baseline}-"
    return f"{f'of-{study}-' if study else ''}{of}{score}-{method}{view}".replace("@", "-at-")


def short_hash(sha256: str) -> str:
    """The first DIGITS of a hash."""
    return "–" if sha256 == NONE else sha256[:DIGITS]


def _interval(row: Line) -> str:
    return "–" if pd.isna(row["low"]) else f"{row['low']:.6g} to {row['high']:.6g}"


ROW_FACTS: dict[str, Callable[[Line], str]] = {
    "value": lambda row: repr(float(row["value"])) if row["status"] == "ok" else f"{row['status']}: {row['reason']}",
    "95 % interval within the run": _interval,
    "how that was made": lambda row: row["how"],
    "images scored": lambda row: str(row["n"]),
    "samples": lambda row: short_hash(row["samples"]),
    "denoiser": lambda row: short_hash(row["denoiser"]),
    "decoder": lambda row: short_hash(row["decoder"]),
    "latents": lambda row: short_hash(row["latents"]),
    "register neurons": lambda row: short_hash(row["registers"]),
    "encoder": lambda row: short_hash(row["encoder"]),
    "reference": lambda row: short_hash(row["reference"]),
    "extractor": lambda row: short_hash(row["extractor"]),
    "commit": lambda row: row["commit"] + "+dirty" * bool(row["dirty"]),
    "code": lambda row: row["code"],
    "config": lambda row: row["config"],
    "precision": lambda row: row["precision"] + ", TF32" * bool(row["tf32"]) + ", compiled" * bool(row["compile"]),
    "device": lambda row: row["device"],
    "libraries": lambda row: row["versions"],
}


def score_sheets(study: Study, rows: pd.DataFrame, *, page: str, table: str) -> list[Sheet]:
    """One for each score, method and view of `rows`, which are of `study`; `page` is the study of the page, `table` the file's name."""
    groups: dict[tuple[str, str, float, bool], list[Line]] = {}
    for line in rows.to_dict("records"):
        groups.setdefault((line["score"], line["method"], line["ema"], CHOSEN in line["guidance"]), []).append(line)
    sheets = []
    for (score, method, ema, guided), lines in groups.items():
        info, foreign = score_info(score), study.name != page
        other = ema != study.ema and method not in study.denoiser.released
        about = f", EMA {ema:g}" * other + ", guided" * guided + f", study {study.name}" * foreign
        facts = [(label, shared_value([text(line) for line in lines])) for label, text in ROW_FACTS.items()]
        command = f"dsr trace reports/{page}/{table}.csv" + f" --study {study.name}" * (table != "table1")
        command += f" --method {method} --score {score}" + f" --ema {ema:g}" * other + " --guided" * guided
        sheets.append(
            Sheet(
                id=sheet_id(score, method, ema=ema if other else None, guided=guided, study=study.name if foreign else None),
                title=f"{info.title}: {named(method)}{about}",
                about=info.about,
                summary=over_seeds([line["value"] for line in lines], shared=info.shared),
                seeds=[seed_text(line["seed"]) for line in lines],
                facts=facts,
                commands=[command],
                links=[],
            )
        )
    return sheets


def difference_sheets(part: Part, rows: pd.DataFrame, scores: list[str], *, page: str) -> list[Sheet]:
    """One for each cell of a part that is a difference to its baseline; `rows`: those that every score is of."""
    sheets, study, base = [], part.study.name if part.study.name != page else None, part.baseline
    for score in dict.fromkeys(scores):
        theirs, info = by_seed(rows, base, score), score_info(score)
        for method in part.methods:
            if method == base or {method, base} & part.study.denoiser.released.keys():  # nothing is paired with published weights
                continue
            ours = by_seed(rows, method, score)
            facts = [(named(method), _values(ours)), (named(base), _values(theirs)), ("difference", _values(ours - theirs))]
            pair = difference(rows, method, base, score) if (ours - theirs).notna().any() else None
            sheets.append(
                Sheet(
                    id=sheet_id(score, method, baseline=base, study=study),
                    title=f"{info.title}: {named(method)} minus {named(base)}" + f", study {study}" * bool(study),
                    about=f"{info.about}; paired by seed: both had the same first weights, data order and noise",
                    summary=_paired(pair) if pair else "No seed has both values.",
                    seeds=[str(seed) for seed in ours.index],
                    facts=facts,
                    commands=[],
                    links=[(sheet_id(score, m, study=study), f"{info.title} of {named(m)}") for m in (method, base)],
                )
            )
    return sheets


def _values(values: pd.Series) -> list[str]:
    return ["–" if pd.isna(value) else repr(float(value)) for value in values]


def shared_value(values: list[str]) -> list[str]:
    """One value where all seeds share it."""
    return values[:1] if len(set(values)) == 1 else values


def over_seeds(values: list[float], *, shared: bool) -> str:
    """In words: mean and interval over seeds."""
    if any(map(math.isnan, values)):
        return "Not every seed has a value, so the table shows none."
    if shared:
        return "The same for every seed."
    return _summary(estimate(values))


def _paired(estimated: Estimate) -> str:
    return _summary(estimated) + (f"; p = {estimated.p:.3g}, two-sided, before any correction" if estimated.n > 1 else "")


def _summary(estimated: Estimate) -> str:
    if estimated.n < 2:
        return "One seed: no interval over seeds."
    interval = f"95 % interval {estimated.low:.6g} to {estimated.high:.6g} (Student's t)"
    return f"Mean over {estimated.n} seeds {estimated.mean:.6g}, standard deviation {estimated.sd:.3g}, {interval}"


def environment_facts(rows: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """What the rows were made with; more than one value where they differ."""
    lines = rows.to_dict("records")
    texts = {label: sorted({ROW_FACTS[label](line) for line in lines}) for label in ("commit", "precision", "device", "libraries")}
    codes = sorted({f"{kind} {code}" for kind, code in zip(rows["score"].map(_kind), rows["code"], strict=True)})
    return [(label.capitalize(), values) for label, values in texts.items()] + [("Code of", codes)]


def _kind(score: str) -> str:
    return "outlier statistics" if of_outliers(score) else "scores"
