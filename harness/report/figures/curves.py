"""Scores against training step and EMA decay."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, PercentFormatter

from harness.report import paper
from harness.report.figures.context import Context
from harness.report.figures.registry import registered
from harness.report.figures.style import SMALL, TWO_COLUMNS, Data, colour_of, set_title, shaded, title_of
from harness.report.speedup import Speedup, speedup
from harness.report.statistics import by_seed, estimate
from harness.results.scores import score_info
from harness.results.views import plain_view
from harness.study.study import Study, study_names

WIDE = 5  # ratio of largest to smallest value from which an axis is logarithmic
COLUMNS = ["method", "seed", "ema", "step", "value", "low", "high", "status"]
APART = 0.12  # share of an axis's length that one of its labels takes
FACTORS = [0.1, 0.2, 0.5, 0.8, 1, 1.25, 1.5, 2, 3, 5, 10, 20, 50]  # ticks
ASIDE = 1.025  # factor between neighbouring methods at the same decay


@registered
def fid_steps(context: Context) -> tuple[Figure, Data]:
    """FID against training step, one line a method, and the paper's where it has one; how much sooner each is where the baseline ends."""
    height = max(3.2, 0.9 + 0.38 * len(context.methods))  # two lines of text a method
    figure, (left, right) = plt.subplots(1, 2, figsize=(TWO_COLUMNS, height), width_ratios=[2.2, 1])
    rows = _curves(context, "fid", left)
    baseline, end, wide = context.methods[0], context.study.steps, _wide(rows["value"])
    speedups = {method: speedup(rows, method, baseline) for method in context.methods[1:]}
    target = _estimate(by_seed(rows[rows["step"] == end], baseline, "fid").to_numpy(), wide).mean
    left.axhline(target, color=colour_of(baseline), linewidth=0.6, linestyle=":")
    for method, faster in speedups.items():
        if faster.known and faster.factor == max(other.factor for other in speedups.values() if other.known) > 1:
            arrow = {"arrowstyle": "->", "color": colour_of(method), "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
            left.annotate("", (end / faster.factor, target), (end, target), arrowprops=arrow)
    _factors(right, baseline, speedups)
    set_title(figure, f"FID against training step on '{context.study.name}', {_over(rows)}")
    return figure, rows[COLUMNS]


def _factors(axis: Axes, baseline: str, speedups: dict[str, Speedup]) -> None:
    """Each method's factor with its interval; the labels, one a method, serve as the legend of the curves."""
    axis.axvline(1, color="0.5", linewidth=0.8, zorder=0)
    axis.plot(1, 0, "o", color=colour_of(baseline), markersize=4)
    for y, (method, faster) in enumerate(speedups.items(), start=1):
        axis.plot(faster.factor, y, "o", color=colour_of(method), markersize=4)
        seeds = list(faster.of_seeds.values())
        axis.plot(
            seeds, [y + 0.25] * len(seeds), "o", color=colour_of(method), markersize=2.5, markerfacecolor="white", markeredgewidth=0.7
        )
        axis.plot(faster.interval, [y, y], "-", color=colour_of(method))
    labels = [title_of(baseline), *(f"{title_of(method)}\n{faster.text}" for method, faster in speedups.items())]
    axis.set_yticks(range(len(labels)), labels)
    for label, method in zip(axis.get_yticklabels(), (baseline, *speedups), strict=True):
        label.set_color(shaded(colour_of(method), -0.3))  # of small letters
    axis.tick_params(axis="y", length=0)
    ends = np.array([1, *(x for faster in speedups.values() for x in (faster.factor, *faster.interval, *faster.of_seeds.values()))])
    low, high = np.nanmin(ends) / 1.2, np.nanmax(ends) * 1.2
    axis.set(xscale="log", xlim=(low, high), ylim=(len(labels) - 0.5, -0.5), xlabel="x (log scale)")
    ticks = apart([tick for tick in FACTORS if low <= tick <= high], 0.2)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_title("the baseline's final FID is reached\nin 1/x of the steps (small: each seed)", fontsize=SMALL, loc="right")


@registered
def geneval_steps(context: Context) -> tuple[Figure, Data]:
    """GenEval-style score against training step."""
    return _against_step(context, "geneval")


@registered
def clip_steps(context: Context) -> tuple[Figure, Data]:
    """CLIP score against training step."""
    return _against_step(context, "clip_score")


def _against_step(context: Context, score: str) -> tuple[Figure, Data]:
    figure, axis = plt.subplots(figsize=(TWO_COLUMNS, 2.6))
    rows = _curves(context, score, axis)
    info = score_info(score)
    if info.unit == "%":
        axis.set_ylabel(_label(score, f", {info.unit}"))
        axis.yaxis.set_major_formatter(PercentFormatter(100 / info.scale, decimals=0, symbol=None))
    figure.legend(loc="outside right center")
    set_title(figure, f"{info.title} against training step on '{context.study.name}', {_over(rows)}")
    return figure, rows[COLUMNS]


def _curves(context: Context, score: str, axis: Axes) -> pd.DataFrame:
    """A line with its band for each method, and the rows that are drawn."""
    study, rows = context.study, of_score(context, score)
    rows = rows[rows["ema"] == study.ema]
    wide = _wide(rows["value"])
    for method in context.methods:
        xs, middle = _by(rows, method, "step", wide)
        axis.plot(xs, [interval.mean for interval in middle], "o-", color=colour_of(method), markersize=3, label=title_of(method))
        axis.fill_between(xs, [i.low for i in middle], [i.high for i in middle], color=colour_of(method), alpha=0.15, linewidth=0)
    for curve in _printed(study):
        steps = [study.denoiser.training.steps_of(epoch, study.data.train_images) for epoch in curve.epochs]
        axis.plot(steps, curve.values, "--", color=colour_of(curve.method), linewidth=0.7)
    if _printed(study):
        axis.legend([Line2D([], [], color="0.3", linestyle="--", linewidth=0.7)], ["paper, digitised"], loc="lower left")
    axis.set(xscale="log", xlabel="training step (log scale)", ylabel=_label(score))
    ticks = apart(sorted(rows["step"].unique()), APART)
    axis.set_xticks(ticks, [f"{step:,}" for step in ticks])
    axis.minorticks_off()
    _log_if(wide, axis, rows["value"])
    return rows


@registered
def fid_ema(context: Context) -> tuple[Figure, Data]:
    """FID against EMA decay at the last step, one line a method, side by side so that intervals can be told apart."""
    study, rows = context.study, of_score(context, "fid")
    rows = rows[rows["step"] == study.steps]
    figure, axis = plt.subplots(figsize=(TWO_COLUMNS, 2.6))
    decays, wide = sorted(rows["ema"].unique()), _wide(rows["value"])
    for place, method in enumerate(context.methods):
        _, middle = _by(rows, method, "ema", wide)
        lengths = (1 - np.array(decays)) * ASIDE ** (place - (len(context.methods) - 1) / 2)
        spread = np.array([(i.mean - i.low, i.high - i.mean) for i in middle]).T if rows["seed"].nunique() > 1 else None
        axis.errorbar(lengths, [interval.mean for interval in middle], yerr=spread, fmt="o-", color=colour_of(method), markersize=3,
                      capsize=2, elinewidth=0.8, label=title_of(method))  # fmt: skip
    axis.set(xscale="log", xlabel="EMA decay (log scale of 1 - decay: longer means to the right)", ylabel=_label("fid"))
    axis.set_xticks([1 - decay for decay in decays], [f"{decay:g}" for decay in decays])
    axis.minorticks_off()
    axis.invert_xaxis()
    _log_if(wide, axis, rows["value"])
    figure.legend(loc="outside right center")
    set_title(figure, f"FID against EMA decay on '{study.name}', {_over(rows)}; all other scores are at {study.ema:g}")
    return figure, rows[COLUMNS]


def of_score(context: Context, score: str) -> pd.DataFrame:
    """Rows of a score at every step and EMA decay, sampled with the study's own guidance."""
    rows = context.rows
    return rows[(rows["score"] == score) & (rows["guidance"] == plain_view(context.study).guidance)]


def _printed(study: Study) -> list[paper.Curve]:
    """The curves that the paper prints for a study of it."""
    return list(paper.curves(study.name).values()) if study.name in study_names() else []


def apart(values: list[float], share: float) -> list[float]:
    """Of rising values on a log scale those that are further apart than a share of the axis; the last always."""
    kept = values[-1:]
    for value in reversed(values):
        if np.log(kept[0] / value) > share * np.log(values[-1] / values[0]):
            kept.insert(0, value)
    return kept


@dataclass(frozen=True)
class Middle:
    """Mean over seeds, and the ends of its interval."""

    mean: float
    low: float
    high: float


def _by(rows: pd.DataFrame, method: str, column: str, wide: bool) -> tuple[list[float], list[Middle]]:
    """Values of `column`, and the mean over seeds at each: NaN where a seed has no value."""
    rows = rows[rows["method"] == method]
    return sorted(rows[column].unique()), [_estimate(values.to_numpy(), wide) for _, values in rows.groupby(column)["value"]]


def _estimate(values: np.ndarray, wide: bool) -> Middle:
    """On a log axis the geometric mean, with Student's interval of the logarithms: that of the values can reach below zero."""
    over_seeds = estimate(np.log(values) if wide else values)
    ends = np.array([over_seeds.mean, over_seeds.low, over_seeds.high])
    return Middle(*(np.exp(ends) if wide else ends))


def _label(score: str, unit: str = "") -> str:
    info = score_info(score)
    return f"{info.title}{unit} ({info.better} is better)"


def _over(rows: pd.DataFrame) -> str:
    seeds, kind = rows["seed"].nunique(), "geometric mean" if _wide(rows["value"]) else "mean"
    return f"{kind} and 95 % interval over {seeds} seeds" if seeds > 1 else "one seed, so no interval"


def _wide(values: pd.Series) -> bool:
    """Whether values, all of them positive, differ by more than WIDE times: they get a log axis."""
    return bool(values.min() > 0 and values.max() > WIDE * values.min())


def _log_if(wide: bool, axis: Axes, values: pd.Series) -> None:
    """A log scale about the values of the seeds: an interval that ends far from all of them leaves the frame, as one does below zero."""
    if not wide:
        axis.set_ylim(bottom=max(axis.get_ylim()[0], 0.0))
    else:
        axis.set_ylim(values.min() / 1.5, values.max() * 1.5)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.tick_params(axis="y", which="minor", left=False, labelleft=False)
