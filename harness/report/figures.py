"""Stage `figures`: one function a figure, each from files of the results folder, written as PNG and PDF."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from safetensors import safe_open

from harness import artifacts, data
from harness.config import load_method, method_names
from harness.dag import figures_of
from harness.report import rows as row_files
from harness.report.statistics import by_seed, estimate
from harness.study import Study

# Okabe and Ito's colour-blind-safe palette; a method keeps its colour in every figure.
PALETTE = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#8C6D31"]
SEQUENTIAL = "cividis"  # readable in grey and with every kind of colour vision
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PLAIN = {"edgecolor": "none", "pad": 2}  # box of a text that stands on lines
TWO_COLUMNS = 6.9  # inches, a full page width
CLASSES_SHOWN, SAMPLES_PER_CLASS = 10, 2
LAYERS_SHOWN = 8  # of a deep encoder, evenly spaced, first and last among them
BLOCKS_LABELLED = 12  # a deeper denoiser gets a taller map, with fewer ticks and no numbers in it


def render(study: Study, *, methods: list[str], seeds: list[int], results: Path, out: Path) -> dict:
    """Every figure of the study into the folder `out`."""
    table = row_files.of_average(row_files.collect(study, methods, seeds, results), study.ema)
    with plt.rc_context(STYLE):
        drawn = {
            "samples": lambda: samples(study, methods, seeds[0], results),
            "encoder_norms": lambda: encoder_norms(study, methods, results),
            "denoiser_outliers": lambda: denoiser_outliers(study, methods, seeds, table, results),
            "fid": lambda: fid(study, methods, table),
        }
        for name in figures_of(study):
            save(drawn[name](), out / name)
    return {"figures": sorted(figures_of(study))}


def save(figure: Figure, path: Path) -> None:
    """PNG and PDF without dates or versions, so that two runs give the same bytes."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None, "Creator": None, "Producer": None})):
        with artifacts.atomic(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
    plt.close(figure)


def colour_of(method: str) -> str:
    return PALETTE[method_names().index(method) % len(PALETTE)]


def title_of(method: str) -> str:
    return load_method(method).title


def lacking(table: pd.DataFrame, method: str, score: str) -> str:
    """What stands in the place of a method that has a seed without a value, such as `diverged, 1 of 3 seeds`; nothing for any other."""
    rows = table[(table["method"] == method) & (table["score"] == score)]
    bad = rows[rows["status"] != "ok"]
    if bad.empty:
        return ""
    return ", ".join(dict.fromkeys(bad["status"])) + (f", {len(bad)} of {len(rows)} seeds" if len(rows) > 1 else "")


def samples(study: Study, methods: list[str], seed: int, results: Path) -> Figure:
    """One row a method, the same noise and label in the same column; grey where sampling diverged."""
    columns = None
    figure, axes = plt.subplots(len(methods), 1, figsize=(TWO_COLUMNS, 0.3 * len(methods) + 0.5), squeeze=False)
    for axis, method in zip(axes[:, 0], methods, strict=True):
        path = results / "runs" / method / f"seed{seed}" / "samples.npz"
        artifacts.checked(path)
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
        status = artifacts.meta(path).get("status", "ok")
        if columns is None:
            present = np.unique(labels)
            shown = present[np.linspace(0, len(present), min(CLASSES_SHOWN, len(present)), endpoint=False).astype(int)]
            columns = np.concatenate([np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS] for label in shown])
        shown_images = images[columns] if status == "ok" else np.full_like(images[columns], 200)
        strip = np.pad(shown_images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=110)
        axis.imshow(np.concatenate(list(strip), axis=1), interpolation="nearest")
        if status != "ok":
            axis.text(0.5, 0.5, status, transform=axis.transAxes, ha="center", va="center", fontsize=8, bbox=PLAIN | {"facecolor": "0.78"})
        axis.set_ylabel(title_of(method), rotation=0, ha="right", va="center", fontsize=7)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    width = strip.shape[2]
    some = f", {len(shown)} of {len(present)} classes" if len(shown) < len(present) else ""
    axes[-1, 0].set_xticks(np.arange(len(columns)) * width + width / 2, [str(labels[i]) for i in columns], fontsize=7)
    axes[-1, 0].tick_params(length=0)
    axes[-1, 0].set_xlabel("label that the sample was drawn with")
    axes[0, 0].set_title(
        f"Samples of '{study.name}', seed {seed}: the same noise in every column (first {SAMPLES_PER_CLASS} of each class{some})"
    )
    figure.subplots_adjust(hspace=0.08)
    return figure


def encoder_norms(study: Study, methods: list[str], results: Path) -> Figure:
    """Token-norm maps by layer for the encoder variants without trained registers; outliers outlined."""
    variants: dict[str, str] = {}
    for method in methods:
        encoder = load_method(method).encoder
        if encoder.kind != "trained":
            rounds = "until clean" if encoder.rounds == "until_clean" else f"{encoder.rounds} round"
            variants.setdefault(encoder.key, "baseline" if encoder.kind == "none" else f"TTR, {rounds}")
    maps, factor = {}, study.outlier_statistics.factor
    for key in variants:
        path = results / "encoders" / key / "latents.safetensors"
        artifacts.checked(path)
        with safe_open(path, "numpy") as file:
            norms = file.get_slice("reference.norms")[: study.outlier_statistics.images]
        maps[key] = norms.reshape(*norms.shape[:2], study.grid, study.grid)
    medians = {key: np.median(norms, axis=(0, 2, 3)) for key, norms in maps.items()}
    outliers = {key: (norms > factor * medians[key][:, None, None]).sum(axis=(1, 2, 3)) for key, norms in maps.items()}
    chosen = int(sum(counts / max(1, counts.max()) for counts in outliers.values()).argmax())  # outliers in as many variants as possible
    depth = maps[next(iter(variants))].shape[1]
    layers = np.unique(np.linspace(0, depth - 1, min(depth, LAYERS_SHOWN)).round().astype(int))
    scale = LogNorm(min(m[chosen].min() for m in maps.values()), max(m[chosen].max() for m in maps.values()))
    image = data.load(results / "data", "reference")[chosen]
    figure, axes = plt.subplots(
        len(variants), len(layers) + 1, figsize=(TWO_COLUMNS, 0.95 * len(variants) + 0.5), squeeze=False, layout="constrained"
    )
    for row, (key, name) in enumerate(variants.items()):
        axes[row, 0].imshow(image)
        axes[row, 0].set_ylabel(name)
        for place, layer in enumerate(layers, start=1):
            axis, values = axes[row, place], maps[key][chosen, layer]
            drawn = axis.imshow(values, norm=scale, cmap=SEQUENTIAL)
            for y, x in np.argwhere(values > factor * medians[key][layer]):
                axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.6, clip_on=False, zorder=3))
            if row == 0:
                axis.set_title("embedding" if layer == 0 else f"layer {layer - 1}")
    axes[0, 0].set_title("image")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, label="token norm (L2, log scale)", shrink=0.85)
    figure.suptitle(f"Token norms in the encoder of '{study.name}'; outlined: above {factor:g} × the layer's median", fontsize=9)
    return figure


def denoiser_outliers(study: Study, methods: list[str], seeds: list[int], table: pd.DataFrame, results: Path) -> Figure:
    """Share of outliers, block x noise level, one panel a method, mean over seeds; empty where a seed diverged."""
    blocks, times = study.denoiser.depth, sorted(study.outlier_statistics.times)
    grids = {}
    for method in methods:
        tables = []
        for seed in seeds:
            path = results / "runs" / method / f"seed{seed}" / "outliers.parquet"
            artifacts.checked(path)
            tables.append(pd.read_parquet(path))
        lines = pd.concat(tables).query("part == 'denoiser'")
        empty = pd.DataFrame(np.nan, index=range(blocks), columns=times)
        whole = 100 * lines.pivot_table(index="layer", columns="t", values="share", aggfunc="mean")
        grids[method] = empty if lacking(table, method, "denoiser_outlier_share") else whole
    top = np.nanmax([0.1, *(grid.to_numpy().max() for grid in grids.values())])
    wide = min(4, len(methods))
    tall = -(-len(methods) // wide)
    height = 1.55 if blocks <= BLOCKS_LABELLED else 2.6
    figure, axes = plt.subplots(
        tall, wide, figsize=(TWO_COLUMNS, height * tall + 0.5), squeeze=False, layout="constrained", sharex=True, sharey=True
    )
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis, (method, grid) in zip(axes.flat, grids.items(), strict=False):
        drawn = axis.imshow(grid, vmin=0, vmax=top, cmap=SEQUENTIAL, aspect="auto")
        why = lacking(table, method, "denoiser_outlier_share")
        if why:
            axis.set_facecolor("0.85")
            axis.text(0.5, 0.5, why.replace(", ", ",\n"), transform=axis.transAxes, ha="center", va="center", fontsize=7)
        for (y, x), value in np.ndenumerate(grid.to_numpy() if blocks <= BLOCKS_LABELLED and not why else np.empty((0, 0))):
            axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=6, color="black" if value > 0.6 * top else "white")
        axis.set_xticks(range(grid.shape[1]), [f"{t:g}" for t in grid.columns])
        every = 1 if blocks <= BLOCKS_LABELLED else 4
        axis.set_yticks(range(0, blocks, every), [str(b) for b in grid.index[::every]])
        axis.set_title(title_of(method), fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("noise level t")
    for axis in axes[:, 0]:
        axis.set_ylabel("denoiser block")
    figure.colorbar(drawn, ax=axes, label="outlier tokens, %", shrink=0.85)
    seeds_text = f"mean over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    figure.suptitle(f"Outlier tokens in the denoiser of '{study.name}', {seeds_text}", fontsize=9)
    return figure


def fid(study: Study, methods: list[str], table: pd.DataFrame) -> Figure:
    """FID of every seed with mean and interval, and the difference to the baseline, paired by seed; a method with a seed that diverged has no mean.

    With one seed the interval is that within the run.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(TWO_COLUMNS, 0.28 * len(methods) + 1.0), sharey=True, layout="constrained", gridspec_kw={"width_ratios": [1, 1]}
    )
    seeds = table["seed"].nunique()
    without = {method: lacking(table, method, "fid") for method in methods}
    for y, method in enumerate(methods):
        colour, values = colour_of(method), by_seed(table, method, "fid").to_numpy()
        draw(left, y, colour, values, without[method])
        if method != methods[0]:
            deltas = values - by_seed(table, methods[0], "fid").to_numpy()
            draw(right, y, colour, deltas, without[method] or (without[methods[0]] and f"baseline {without[methods[0]]}"))
        run = table[(table["method"] == method) & (table["score"] == "fid")].iloc[0]
        if seeds == 1 and not np.isnan(run["low"]):
            left.hlines(y, run["low"], run["high"], color=colour, linewidth=0.8)
    right.axvline(0, color="0.5", linewidth=0.8)
    left.set_yticks(range(len(methods)), [title_of(method) for method in methods])
    left.set_ylim(len(methods) - 0.4, -0.6)
    left.set_xlabel("FID (lower is better)")
    right.set_xlabel("ΔFID to baseline, paired by seed")
    if seeds > 1:
        what = f"diamonds: mean and 95 % interval over {seeds} seeds; dots: seeds"
    else:
        what = "one seed; thin bars: 95 % interval within the run, over its samples, not over seeds"
    figure.suptitle(f"FID on '{study.name}', N = {study.sampling.count} ({what})", fontsize=9)
    return figure


def draw(axis: Axes, y: float, colour: str, values: np.ndarray, why: str) -> None:
    """Values of the seeds, with mean and interval, or with the reason why there is no mean."""
    interval = estimate(values)
    if why:
        axis.text(
            0.98, y, why, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=7, bbox=PLAIN | {"facecolor": "white"}
        )
    elif interval.n > 1:
        axis.errorbar(interval.mean, y, xerr=interval.half, fmt="D", color=colour, capsize=3, markersize=4)
    axis.plot(values, np.full(len(values), y + 0.25 * (len(values) > 1)), "o", color=colour, markersize=2.5, alpha=0.7)
