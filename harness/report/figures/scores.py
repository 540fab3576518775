"""Figures of scores: every method at a glance."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures.context import Context, status_text
from harness.report.figures.registry import registered
from harness.report.figures.style import DIVERGING, ONE_COLUMN, PLAIN, SMALL, TWO_COLUMNS, Colour, Data, colour_of, set_title, title_of
from harness.report.statistics import by_seed, difference, estimate
from harness.results.scores import score_info
from harness.study.method import load_method

COMPARED = ("fid", "is", "kid", "precision", "recall", "clip_score", "accuracy", "geneval")  # as many of them as the study has


@registered
def fid(context: Context) -> tuple[Figure, Data]:
    """FID of every seed with mean and interval, and the difference to the baseline, paired by seed.

    A method with a seed that diverged has no mean. With one seed the interval is that within the run.
    """
    study, methods, table = context.study, context.methods, context.table
    figure, (left, right) = plt.subplots(1, 2, figsize=(TWO_COLUMNS, 0.24 * len(methods) + 0.9), sharey=True)
    seeds = table["seed"].nunique()
    without = {method: status_text(table, method, "fid") for method in methods}
    for y, method in enumerate(methods):
        colour, values = colour_of(method), by_seed(table, method, "fid").to_numpy()
        draw_seeds(left, y, colour, values, without[method])
        if method != methods[0] and not {method, methods[0]} & study.denoiser.released.keys():
            deltas = values - by_seed(table, methods[0], "fid").to_numpy()
            draw_seeds(right, y, colour, deltas, without[method] or (without[methods[0]] and f"baseline {without[methods[0]]}"))
        run = table[(table["method"] == method) & (table["score"] == "fid")].iloc[0]
        if seeds == 1 and not np.isnan(run["low"]):
            left.hlines(y, run["low"], run["high"], color=colour, linewidth=0.8)
    right.axvline(0, color="0.5", linewidth=0.8)
    left.set_yticks(range(len(methods)), [title_of(method) for method in methods])
    left.set_ylim(len(methods) - 0.4, -0.6)
    left.set_xlabel("FID (lower is better)")
    right.set_xlabel("ΔFID to baseline, paired by seed")
    if seeds > 1:
        marks = f"diamonds: mean and 95 % interval over {seeds} seeds; dots: seeds"
    else:
        marks = "one seed; thin bars: 95 % interval within the run, over its samples, not over seeds"
    set_title(figure, f"FID on '{study.name}', N = {study.sampling.count} ({marks})")
    return figure, table.loc[table["score"] == "fid", ["method", "seed", "value", "low", "high", "status"]]


def draw_seeds(axis: Axes, y: float, colour: Colour, values: np.ndarray, why: str) -> None:
    """Values of the seeds (S,), with mean and interval, or with the reason why there is no mean."""
    interval = estimate(values)
    if why:
        box = PLAIN | {"facecolor": "white"}
        axis.text(0.98, y, why, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=SMALL, bbox=box)
    elif interval.n > 1:
        axis.errorbar(interval.mean, y, xerr=interval.half, fmt="D", color=colour, capsize=3, markersize=4)
    axis.plot(values, np.full(len(values), y + 0.25 * (len(values) > 1)), "o", color=colour, markersize=2.5, alpha=0.7)


@registered
def intervals(context: Context) -> tuple[Figure, Data]:
    """Every method's difference to the baseline in several scores, in standard deviations over seeds, signed so that right is better.

    With one seed, which has no such deviation, in per cent of the baseline.
    """
    table, methods = context.table, context.methods
    seeds = table["seed"].nunique()
    scores = [score for score in COMPARED if score in set(table["score"])]
    figure, axes = plt.subplots(1, len(scores), figsize=(TWO_COLUMNS, 0.18 * len(methods) + 1.1), sharex=True, sharey=True, squeeze=False)
    lines = []
    for axis, score in zip(axes[0], scores, strict=True):
        info, without = score_info(score), {method: status_text(table, method, score) for method in methods}
        whole = [by_seed(table, method, score) for method in methods if not without[method]]
        unit = pooled(whole) if seeds > 1 else abs(by_seed(table, methods[0], score).mean()) / 100
        for y, method in enumerate(methods[1:]):
            if without[method] or without[methods[0]]:
                axis.text(0.5, y, "no value", transform=axis.get_yaxis_transform(), ha="center", va="center", fontsize=SMALL)
                continue
            better = difference(table, method, methods[0], score)
            sign = -1 if info.better == "lower" else 1
            middle, half = (sign * better.mean / unit, better.half / unit) if unit else (np.nan, np.nan)
            clear = better.excludes_zero
            axis.errorbar(middle, y, xerr=half if seeds > 1 else None, fmt="o", color=colour_of(method), capsize=2, markersize=4,
                          markerfacecolor=colour_of(method) if clear else "white", linewidth=1)  # fmt: skip
            lines.append(
                {"score": score, "method": method, "difference": sign * better.mean, "half": better.half, "unit": unit, "clear": clear}
            )
        axis.axvline(0, color="0.5", linewidth=0.8, zorder=0)
        for y in range(0, len(methods) - 1, 2):
            axis.axhspan(y - 0.5, y + 0.5, color="0.95", zorder=-1)
        axis.tick_params(axis="y", length=0)
        axis.set_title(info.title, fontsize=SMALL)
    axes[0, 0].set_yticks(range(len(methods) - 1), [title_of(method) for method in methods[1:]])
    axes[0, 0].set_ylim(len(methods) - 1.5, -0.5)
    units, spread = (
        "standard deviations over seeds",
        f"95 % intervals over {seeds} seeds; filled: without zero, not corrected for their number",
    )
    if seeds == 1:
        units, spread = "% of the baseline", "one seed, so no intervals"
    figure.supxlabel(f"difference to the baseline, paired by seed, in {units}; right is better", fontsize=8)
    set_title(figure, f"Every method and score of '{context.study.name}' at a glance: {spread}")
    return figure, pd.DataFrame(lines)


def pooled(groups: list[pd.Series]) -> float:
    """Standard deviation within groups of values over two or more seeds."""
    return float(np.sqrt(np.mean([values.var(ddof=1) for values in groups])))


@registered
def ablation(context: Context) -> tuple[Figure, Data]:
    """FID by number of diffusion registers and block that they start at: mean ± half an interval; colour: difference to the baseline."""
    study, table = context.study, context.table
    registers_by_method = {method: load_method(method).registers(study.denoiser.registers) for method in context.methods}
    placed = {
        method: registers for method, registers in registers_by_method.items() if registers and not load_method(method).encoder.changes
    }
    counts, starts = (sorted({getattr(registers, field) for registers in placed.values()}) for field in ("count", "start"))
    deltas, texts, lines = np.full((len(counts), len(starts)), np.nan), {}, []
    for method, registers in placed.items():
        place = counts.index(registers.count), starts.index(registers.start)
        why = status_text(table, method, "fid")
        value, delta = estimate(by_seed(table, method, "fid").to_numpy()), difference(table, method, context.methods[0], "fid")
        spread = f"\n±{value.half:.3f}" if value.n > 1 else ""
        texts[place] = why.replace(", ", ",\n") or f"{value.mean:.3f}{spread}" + "*" * delta.excludes_zero
        deltas[place] = np.nan if why else delta.mean
        lines.append({"method": method, "count": registers.count, "start": registers.start, "fid": value.mean, "half": value.half,
                      "difference": delta.mean, "difference_half": delta.half, "why": why})  # fmt: skip
    figure, axis = plt.subplots(figsize=(ONE_COLUMN, 0.45 * len(counts) + 1.5))
    top = max(1e-9, np.nanmax(np.abs(deltas))) if np.isfinite(deltas).any() else 1
    drawn = axis.imshow(deltas, vmin=-top, vmax=top, cmap=DIVERGING, aspect="auto")
    axis.set_facecolor("0.9")
    for (y, x), text in texts.items():
        dark = abs(deltas[y, x]) > 0.6 * top
        axis.text(x, y, text, ha="center", va="center", fontsize=SMALL, color="white" if dark else "black")
    axis.set_xticks(range(len(starts)), starts)
    axis.set_yticks(range(len(counts)), counts)
    axis.tick_params(length=0)
    axis.set(xlabel="block that they start at", ylabel="diffusion registers")
    axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axis, label="ΔFID to baseline")
    base = estimate(by_seed(table, context.methods[0], "fid").to_numpy())
    reached = (
        f"{base.mean:.3f}\u00a0±\u00a0{base.half:.3f}; *: 95\u00a0% interval of ΔFID without zero" if base.n > 1 else f"{base.mean:.3f}"
    )
    set_title(figure, f"FID on '{study.name}' by number and start of diffusion registers; baseline {reached}")
    return figure, pd.DataFrame(lines)
