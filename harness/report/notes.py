"""The lines under a table: how its numbers were made, and what they cannot say."""

import pandas as pd

from harness.report.cells import empty
from harness.report.statistics import by_seed
from harness.schema import scores_of
from harness.sections import Sampling, TrainedJudge
from harness.study import Study

RUNS_NAMED = 3  # of those that differ in library versions or device


def notes(study: Study, table: pd.DataFrame, methods: list[str], seeds: list[int]) -> list[str]:
    """`table`: the rows of one EMA decay."""
    fid = table[table["score"] == "fid"].sort_values("status", key=lambda status: status != "ok", kind="stable").iloc[0]
    commits = ", ".join(sorted({commit + "+dirty" * dirty for commit, dirty in zip(table["commit"], table["dirty"], strict=True)}))
    lines = [
        *spread(table, seeds),
        "DSR: recursive TTR in the encoder and diffusion registers in the denoiser; DSR (trained): trained encoder registers instead of TTR.",
        f"N = {study.sampling.count} samples a run, {study.sampling.labels} labels; {judged(study, fid)}",
        *bias(study, table, methods),
        f"{sampled(study)} FID agrees with {'clean-fid' if 'fid_clean' in scores_of(study) else 'an eigen-decomposition in double precision'} "
        "on the same features.",
        f"Outlier: patch token with L2 norm above {study.outlier_statistics.factor:g} × the median of its layer; shares and max/median are those "
        f"of the worst layer (denoiser: worst block at t in {', '.join(f'{t:g}' for t in study.outlier_statistics.times)}); registers excluded.",
    ]
    if study.outliers == "planted":
        lines.append(
            f"This is the embedded study '{study.name}': its outliers are planted, {len(study.planted)} populations of register neurons written into "
            "the encoder after training. The encoder with trained registers is not planted: as in DINOv2, such training is what keeps outliers away."
        )
    elif study.outliers == "none":
        lines.append(
            f"This is the embedded negative control '{study.name}': no outliers are planted, so no method may show an effect on them."
        )
    return [*lines, f"{alike(table, 'device')} {alike(table, 'versions')} Commit {commits}."]


def spread(table: pd.DataFrame, seeds: list[int]) -> list[str]:
    """What the intervals are, and what is bold."""
    if len(seeds) > 1:
        return [
            f"Mean ± half-width of the 95 % Student-t interval over {len(seeds)} seeds ({', '.join(map(str, seeds))}); ΔFID is paired by seed. "
            "Bold: best value of a column whose difference to the baseline, paired by seed, is not zero at 95 % after Holm's correction over the "
            "methods of the column.",
            "Values without an interval are the same for every seed: encoder and decoder are trained once per study, and cost does not vary.",
        ]
    one = f"n = 1 seed ({seeds[0]}): no interval over seeds, and nothing is bold."
    if table["low"].notna().any():
        one += " Brackets: 95 % interval within the run, over its images; it does not know the spread over seeds, which is often larger."
    return [one]


def bias(study: Study, table: pd.DataFrame, methods: list[str]) -> list[str]:
    """How far FID at this N is above FID∞; nothing where no method has both."""
    lacking = {method for score in ("fid", "fid_infinity") for method in empty(table[table["score"] == score], methods)}
    chosen = [method for method in methods if method not in lacking and len(by_seed(table, method, "fid_infinity"))]
    gaps = [(by_seed(table, method, "fid") - by_seed(table, method, "fid_infinity")).mean() for method in chosen]
    if not gaps:
        return []
    span = f" over {len(gaps)} methods, from {min(gaps):.3g} to {max(gaps):.3g}" if len(gaps) > 1 else ""
    return [f"FID∞ is FID extrapolated to infinitely many samples. FID is {sum(gaps) / len(gaps):.3g} above it at N = {study.sampling.count}: its bias (mean{span})."]  # fmt: skip


def judged(study: Study, fid: pd.Series) -> str:
    """What the samples are compared with, and by which network."""
    section, weights = study.evaluation, fid["extractor"][:12]
    if isinstance(section.judge, TrainedJudge):
        return (
            f"reference: {study.data.reference} held-out images (data {fid['reference'][:12]}); "
            f"judge: a classifier trained in this DAG, {section.judge.width} standardised features (weights {weights}) "
            "in Inception's place, and a small open_clip model in ViT-L/14's, so FID, IS, KID and CLIP score cannot be compared with other papers'."
        )
    first = f"'{section.references[0].name}'" if section.references else f"{study.data.reference} held-out images"
    return f"reference: {first} (sha256 {fid['reference'][:12]}); judge: Inception of torch-fidelity, layer {section.judge.features} (weights {weights})."


def sampled(study: Study) -> str:
    """Sampler, NFE, guidance, average of the weights."""
    section = study.sampling
    name = {"euler": "Euler", "heun": "Heun", "euler_maruyama": "Euler-Maruyama (SDE)"}[section.sampler]
    return f"Sampler: {name}, NFE {section.nfe}, guidance {guidance(section)}, EMA {study.ema:g}."


def guidance(section: Sampling) -> str:
    """In words: `none`, or kind, scale and interval."""
    chosen = section.guidance
    if chosen.scale == 1:
        return "none"
    interval = "" if chosen.interval == (0.0, 1.0) else f" for t in [{chosen.interval[0]:g}, {chosen.interval[1]:g}]"
    return f"{'autoguidance' if chosen.weak else 'classifier-free'}, scale {chosen.scale:g}{interval}"


def alike(table: pd.DataFrame, field: str) -> str:
    """Device or versions of the rows: they may differ, but not in silence."""
    title = {"device": "Device", "versions": "Libraries"}[field]
    parts = []
    for value, rows in table.groupby(field, sort=False):
        runs = list(dict.fromkeys(f"{method}/seed{seed}" for method, seed in zip(rows["method"], rows["seed"], strict=True)))
        more = f" and {len(runs) - RUNS_NAMED} more" if len(runs) > RUNS_NAMED else ""
        parts.append((str(value), f"{', '.join(runs[:RUNS_NAMED])}{more}"))
    if len(parts) == 1:
        return f"{title}: {parts[0][0]}."
    return f"{title} differ{'s' * (field == 'device')} between rows: " + "; ".join(f"{value} ({runs})" for value, runs in parts) + "."
