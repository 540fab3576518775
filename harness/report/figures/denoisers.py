"""Figures of the denoiser: where its outliers are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.figures.context import Context, status_text
from harness.report.figures.registry import registered
from harness.report.figures.style import SEQUENTIAL, SMALL, TWO_COLUMNS, Data, set_title, title_of
from harness.results.scores import blocks_of

BLOCKS_LABELLED = 12  # a deeper denoiser gets a taller map, with fewer ticks and no numbers in it


@registered
def denoiser_outliers(context: Context) -> tuple[Figure, Data]:
    """Share of outliers, block x noise level, one panel a method, mean over seeds; empty where a seed diverged."""
    study, methods = context.study, context.methods
    blocks, times = len(blocks_of(study)) - 1, sorted(study.outlier_statistics.times)
    whys = {method: status_text(context.table, method, "denoiser_outlier_share") for method in methods}
    shares = {}
    for method in methods:
        lines = context.outliers(method).query("part == 'denoiser'")
        empty = pd.DataFrame(np.nan, index=range(blocks), columns=times)
        shares[method] = empty if whys[method] else 100 * lines.pivot_table(index="layer", columns="t", values="share", aggfunc="mean")
    top = np.nanmax([0.1, *(share.to_numpy().max() for share in shares.values())])
    wide = min(4, len(methods))
    tall = -(-len(methods) // wide)
    height = 1.3 if blocks <= BLOCKS_LABELLED else 2.4
    figure, axes = plt.subplots(tall, wide, figsize=(TWO_COLUMNS, height * tall + 0.6), squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis, (method, share) in zip(axes.flat, shares.items(), strict=False):
        drawn = axis.imshow(share, vmin=0, vmax=top, cmap=SEQUENTIAL, aspect="auto")
        if whys[method]:
            axis.set_facecolor("0.85")
            axis.text(0.5, 0.5, whys[method].replace(", ", ",\n"), transform=axis.transAxes, ha="center", va="center", fontsize=SMALL)
        for (y, x), value in np.ndenumerate(share.to_numpy() if blocks <= BLOCKS_LABELLED and not whys[method] else np.empty((0, 0))):
            axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=SMALL, color="black" if value > 0.6 * top else "white")
        axis.set_xticks(range(share.shape[1]), [f"{t:g}" for t in share.columns])
        every = 1 if blocks <= BLOCKS_LABELLED else 4
        axis.set_yticks(range(0, blocks, every), [str(b) for b in share.index[::every]])
        axis.set_title(title_of(method), fontsize=SMALL)
    for axis in axes[-1]:
        axis.set_xlabel("noise level t")
    for axis in axes[:, 0]:
        axis.set_ylabel("denoiser block")
    figure.colorbar(drawn, ax=axes, label="outlier tokens, %", shrink=0.85, pad=0.01)
    seeds = f"mean over {len(context.seeds)} seeds" if len(context.seeds) > 1 else "one seed"
    set_title(figure, f"Outlier tokens in the denoiser of '{study.name}', {seeds}")
    points = [
        {"block": block, "t": t, "percent": percent, "method": method}
        for method, share in shares.items()
        for block, of_block in share.iterrows()
        for t, percent in of_block.items()
    ]
    return figure, pd.DataFrame(points)
