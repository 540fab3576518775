"""The lines under a table: how its numbers were made, and what they cannot say."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from harness.report import rows as row_files
from harness.report.cells import BOLD_FROM, empty, named
from harness.report.specs import Column, Part
from harness.report.statistics import by_seed
from harness.results.scores import CAPTIONED, REFERENCE_BIAS, TRAINED_ON, of_outliers, score_info, scores_of
from harness.results.views import CHOSEN, OF_FILE
from harness.study.seeds import PUBLISHED, run_name
from harness.study.study import Study

STRAIGHT_FROM = 16  # samples a feature: with fewer, FID-infinity takes off too much of the bias (up to 7 % at 4, less than 2 % at 16)
WITHIN = " Brackets: 95 % interval within the run, over its images; it does not know the spread over seeds, which is often larger."
RUNS_NAMED = 3  # of those that differ in library versions or device


def notes(parts: list[Part], rows: pd.DataFrame, seeds: list[int], columns: list[Column]) -> list[str]:
    """Of the parts of a table whose panels have `columns`; `rows`: those of the parts and seeds, in every view."""
    scores = [column.score for column in columns if column.score]
    methods = {method for part in parts for method in part.methods}
    lines = spread(rows, seeds, grouped=len(parts) > 1, differences=any(column.difference for column in columns))
    if methods & {"dsr", "dsr_trained"}:
        lines.append(
            "DSR: recursive TTR in the encoder and diffusion registers in the denoiser; "
            "DSR (trained): trained encoder registers instead of TTR."
        )
    of_samples = any(not of_outliers(score) for score in scores)
    if of_samples:
        lines += by_part(parts, lambda part: measured(part.study, plain(part, rows)))
    if "fid" in scores:
        lines += by_part(parts, lambda part: between_seeds(part.study))
    valued = set(rows.loc[rows["status"] == "ok", "score"])
    for score in dict.fromkeys(scores):
        if score in valued and (note := score_info(score).note):
            lines.append(" ".join([note, *(bias(parts, rows) if score == "fid_infinity" else [])]))
    if "clip_score" in scores:
        lines += by_part(parts, lambda part: captioned(plain(part, rows)))
    lines += by_part(parts, lambda part: sampled(part.study, part.methods) if of_samples else averaged(part.study, part.methods))
    lines += [line for part in parts for line in published(part, rows)]
    if any(column.guided for column in columns):
        lines += by_part(parts, lambda part: chosen(part, rows))
    if places := {"@" in score for score in scores if score_info(score).of in ("encoder tokens", "denoiser tokens")}:
        lines += by_part(parts, lambda part: outliers(part.study, worst=False in places))
    lines += by_part(parts, lambda part: planted(part.study, alone=len(parts) == 1))
    if len({key for key, _ in rows.groupby(["precision", "tf32", "compile"])}) > 1:
        lines += by_part(parts, lambda part: arithmetic_note(plain(part, rows)))
    commits = ", ".join(sorted({commit + "+dirty" * dirty for commit, dirty in zip(rows["commit"], rows["dirty"], strict=True)}))
    return [*lines, f"{alike(rows, 'device')} {alike(rows, 'versions')} Commit {commits}."]


def plain(part: Part, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a part, of the weights and samples that every score is of."""
    own = rows[(rows["study"] == part.study.name) & rows["method"].isin(part.methods)]
    return row_files.of_view(own, part.study)


def by_part(parts: list[Part], text: Callable[[Part], str]) -> list[str]:
    """What is said of the parts: once where it is the same for all, otherwise with the titles of those that it is of."""
    titles_of: dict[str, list[str]] = {}
    for part in parts:
        titles_of.setdefault(text(part), []).append(part.title or part.study.name)
    if len(titles_of) == 1:
        return [line for line in titles_of if line]
    return [
        f"{', '.join(dict.fromkeys(titles))}: {line[0].lower() + line[1:] if line[1].islower() else line}"
        for line, titles in titles_of.items()
        if line
    ]


def spread(table: pd.DataFrame, seeds: list[int], *, grouped: bool, differences: bool) -> list[str]:
    """What the intervals are, and what is bold."""
    runs = set(table["seed"])
    if runs == {PUBLISHED}:
        one = "Published weights, trained elsewhere: each has one run, paired with none, so no interval over seeds, and nothing is bold."
        return [one + WITHIN * bool(table["low"].notna().any())]
    if PUBLISHED in runs:
        published = "Published weights, trained elsewhere, have one run: no interval over seeds, nothing paired with it, never bold."
        return [*spread(table[table["seed"] != PUBLISHED], seeds, grouped=grouped, differences=differences), published]
    if len(seeds) > 1:
        paired = "; ΔFID is paired by seed" * differences
        column, whose = ("group in a column", "of the group in the column") if grouped else ("column", "of the column")
        bold = (
            f"Bold: best value of a {column} whose difference to the baseline, paired by seed, is not zero at 95 % after Holm's correction "
            f"over the methods {whose}. Columns are not corrected for one another: by chance each has a bold in at most 1 of 40 tables."
        )
        return [
            f"Mean ± half-width of the 95 % Student-t interval over {len(seeds)} seeds ({', '.join(map(str, seeds))}){paired}. "
            + (bold if len(seeds) >= BOLD_FROM else f"Nothing is bold with fewer than {BOLD_FROM} seeds."),
            "Values without an interval are the same for every seed: encoder and decoder are trained once per study, and cost does not "
            "vary.",
        ]
    one = f"n = 1 seed ({seeds[0]}): no interval over seeds, and nothing is bold."
    if table["low"].notna().any():
        one += WITHIN
    return [one]


def bias(parts: list[Part], rows: pd.DataFrame) -> list[str]:
    """How far FID at this N is above FID∞; nothing where no method has both."""
    gaps = []
    for part in parts:
        table = plain(part, rows)
        lacking = {method for score in ("fid", "fid_infinity") for method in empty(table[table["score"] == score], part.methods)}
        chosen = [method for method in part.methods if method not in lacking and len(by_seed(table, method, "fid_infinity"))]
        gaps += [(by_seed(table, method, "fid") - by_seed(table, method, "fid_infinity")).mean() for method in chosen]
    if not gaps:
        return []
    span = f" over {len(gaps)} methods, from {min(gaps):.3g} to {max(gaps):.3g}" if len(gaps) > 1 else ""
    study = parts[0].study
    lines = [f"FID is {sum(gaps) / len(gaps):.3g} above it at N = {study.sampling.count}: its bias (mean{span})."]
    if study.sampling.count < STRAIGHT_FROM * study.features:
        lines.append(
            f"At fewer than {STRAIGHT_FROM} samples a feature the line bends: FID∞ is then itself too low, by up to 7 % of that bias."
        )
    told = [str(how).partition(REFERENCE_BIAS)[2] for how in rows.loc[(rows["score"] == "fid_infinity") & (rows["status"] == "ok"), "how"]]
    biases, images = zip(*(one.removesuffix(")").split(" (") for one in told if one), strict=True) if any(told) else ((), ())
    its = (
        f": its {', '.join(dict.fromkeys(images))} put it about {np.mean([*map(float, biases)]):.2g} too high (by halves)" if biases else ""
    )
    return [*lines, f"Its interval is about the distance to this reference, not to what the reference was drawn from{its}."]


def measured(study: Study, table: pd.DataFrame) -> str:
    """How many samples, and what they are compared with."""
    fid = table[table["score"] == "fid"].sort_values("status", key=lambda status: status != "ok", kind="stable").iloc[0]
    return f"N = {study.sampling.count} samples a run, {study.sampling.labels} labels; {judged(study, fid)}"


def between_seeds(study: Study) -> str:
    """At the scale of the paper, where most have one seed: what others measured of the spread over seeds."""
    if not study.evaluation.judge.comparable:
        return ""
    return (
        "Between seeds, FID of trainings at ImageNet's scale spreads by about 1.3 % (several hundred of them, arXiv 2606.20536): between "
        "single runs, published ones too, a smaller gap decides nothing. Intervals within a run do not hold that."
    )


def judged(study: Study, fid: pd.Series) -> str:
    """What the samples are compared with, and by which network."""
    section, trained_on = study.evaluation, str(fid["how"]).partition(TRAINED_ON)[2]
    held_out = f"{study.data.reference} held-out images" + f", of which {trained_on} are trained on, too" * bool(trained_on)
    judge = f"judge: {section.judge.note} (weights {fid['extractor'][:12]})"
    if section.judge.comparable:
        first = f"'{section.references[0].name}'" if section.references else held_out
        return f"reference: {first} (sha256 {fid['reference'][:12]}); {judge}."
    clip, scores = (
        (", and a small open_clip model in ViT-L/14's", "FID, IS, KID and CLIP score") if section.clip else ("", "FID, IS and KID")
    )
    return (
        f"reference: {held_out} (data {fid['reference'][:12]}); {judge} in Inception's place{clip}, "
        f"so {scores} cannot be compared with other papers'."
    )


def captioned(table: pd.DataFrame) -> str:
    """Where the captions come from, unless the study says it."""
    told = [str(how).partition(CAPTIONED)[2] for how in table.loc[table["score"] == "clip_score", "how"]]
    sources = "; ".join(dict.fromkeys(source for source in told if source))
    return f"Captions of the CLIP score: {sources}." if sources else ""


def averaged(study: Study, methods: list[str]) -> str:
    """The average of the weights that are trained here."""
    return "" if set(methods) <= study.denoiser.released.keys() else f"Weights of EMA {study.ema:g}."


def published(part: Part, rows: pd.DataFrame) -> list[str]:
    """Of each method with published weights: which file, by the rows, its convention, and what is known of its average."""
    lines = []
    for method in part.methods:
        released = part.study.denoiser.released.get(method)
        if released is None:
            continue
        own = rows[(rows["study"] == part.study.name) & (rows["method"] == method) & rows["sampled"].str.contains(OF_FILE, regex=False)]
        file = f"{own['sampled'].iloc[0].partition(OF_FILE)[2]}" if len(own) else released.path
        average = "unknown" if released.average is None else f"{released.average:g}"
        whose = f"{part.title}, {named(method)}" if part.title else named(method)
        facts = f"convention {released.convention}, decay of the average {average}"
        lines.append(f"{whose}: published weights {file}, {released.source}; {facts}.")
    return lines


def sampled(study: Study, methods: list[str]) -> str:
    """Sampler, NFE, guidance, average of the weights."""
    section = study.sampling
    weak = section.guidance.weak if section.guidance.scale != 1 else None
    unstated = " The order of the weaker model's classes is not stated: only their number is checked." if weak and not weak.classes else ""
    same = "clean-fid" if "fid_clean" in scores_of(study) else "an eigen-decomposition in double precision"
    ema = "" if set(methods) <= study.denoiser.released.keys() else f", EMA {study.ema:g}"
    return (
        f"Sampler: {section.title}, NFE {section.nfe}, guidance {section.guidance.text}{ema}. "
        f"FID agrees with {same} on the same features.{unstated}"
    )


def chosen(part: Part, rows: pd.DataFrame) -> str:
    """The guidance of each method, as it was searched for."""
    guidance, search = row_files.choices(rows[rows["study"] == part.study.name]), part.study.sampling.guidance_search
    if not guidance or search is None:
        return ""
    told = "; ".join(f"{named(method)} {guidance[method]}" for method in part.methods if method in guidance)
    return f"Guidance of the guided FID, the best of {len(search.candidates)} candidates{CHOSEN}{search.seed}: {told}."


def outliers(study: Study, *, worst: bool) -> str:
    """What an outlier is, and where its share is taken, unless each column says that."""
    factor, times = study.outlier_statistics.factor, ", ".join(f"{t:g}" for t in study.outlier_statistics.times)
    looked = len(study.outlier_rows)
    fewer = f" There are {looked} held-out images, and all are looked at." if looked < study.outlier_statistics.images else ""
    if not worst:
        return (
            f"Outlier: patch token with L2 norm above {factor:g} × the median of its block and noise level, t in {times}; "
            f"registers excluded.{fewer}"
        )
    return (
        f"Outlier: patch token with L2 norm above {factor:g} × the median of its layer; shares and max/median are those "
        f"of the worst layer (denoiser: worst block at t in {times}); registers excluded.{fewer}"
    )


def planted(study: Study, *, alone: bool) -> str:
    """Where the outliers of an embedded study come from."""
    this = f"This is the embedded study '{study.name}': its outliers" if alone else "Outliers"
    if study.outliers == "planted":
        populations = f"{len(study.planted)} population{'s' * (len(study.planted) > 1)} of register neurons"
        return (
            f"{this} are planted, {populations} written into the encoder after training. "
            "The encoder with trained registers is not planted: as in DINOv2, such training is what keeps outliers away."
        )
    if study.outliers == "none" and study.encoder.has_tokens:
        return f"This is the embedded negative control '{study.name}': no outliers are planted, so no method may show an effect on them."
    return ""


def arithmetic_note(table: pd.DataFrame) -> str:
    """In what precision the runs of a part were made."""
    texts = {
        f"{precision}{', TF32' * bool(tf32)}{', compiled' * bool(compiled)}"
        for precision, tf32, compiled in zip(table["precision"], table["tf32"], table["compile"], strict=True)
    }
    return f"Precision: {'; '.join(sorted(texts))}."


def alike(table: pd.DataFrame, field: str) -> str:
    """Device or versions of the rows: they may differ, but not in silence."""
    title = {"device": "Device", "versions": "Libraries"}[field]
    parts, only = [], table["study"].iloc[0] if table["study"].nunique() == 1 else None
    for value, rows in table.groupby(field, sort=False):
        names = zip(rows["study"], rows["method"], rows["seed"], strict=True)
        runs = list(dict.fromkeys(f"{study}/{method}/{run_name(seed)}".removeprefix(f"{only}/") for study, method, seed in names))
        more = f" and {len(runs) - RUNS_NAMED} more" if len(runs) > RUNS_NAMED else ""
        parts.append((str(value), f"{', '.join(runs[:RUNS_NAMED])}{more}"))
    if len(parts) == 1:
        return f"{title}: {parts[0][0]}."
    return f"{title} differ{'s' * (field == 'device')} between rows: " + "; ".join(f"{value} ({runs})" for value, runs in parts) + "."
