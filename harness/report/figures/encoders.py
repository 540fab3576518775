"""Figures of the encoder: norms of its tokens."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from safetensors import safe_open

from harness.report.figures.context import Context
from harness.report.figures.registry import registered
from harness.report.figures.style import OUTLINE, SEQUENTIAL, SMALL, TWO_COLUMNS, Data, set_title
from harness.results.outlier_rule import median_norm, outlier_norm
from harness.study.method import load_method

LAYERS_SHOWN = 8  # of a deep encoder, evenly spaced, first and last among them
NORMS = {"pre_ln": "of the residual stream, before the final norm", "post_ln": "after the final norm", "whitened": "of the whitened latent"}
BINS = 80
CHOSEN = {"s": 14, "color": OUTLINE, "linewidths": 0, "label": "chosen", "zorder": 3}
TRUTH = {"s": 40, "facecolors": "none", "edgecolors": "#0072B2", "linewidths": 1, "label": "planted", "zorder": 4}


@registered
def encoder_norms(context: Context) -> tuple[Figure, Data]:
    """Token-norm maps by layer for the encoder variants without trained registers; outliers outlined."""
    study, variants = context.study, untrained_variants(context.methods)
    maps, factor, rows = {}, study.outlier_statistics.factor, study.outlier_rows
    for key in variants:
        with safe_open(context.latents(key), "numpy") as file:
            norms = file.get_tensor("reference.norms")[rows]
        maps[key] = norms.reshape(*norms.shape[:2], study.latent_side, study.latent_side)
    medians = {key: median_norm(norms, axis=(0, 2, 3))[0, :, 0, 0] for key, norms in maps.items()}
    limits = {key: outlier_norm(norms, factor, axis=(0, 2, 3)) for key, norms in maps.items()}
    outliers = {key: (norms > limits[key]).sum(axis=(1, 2, 3)) for key, norms in maps.items()}
    chosen = int(sum(counts / max(1, counts.max()) for counts in outliers.values()).argmax())  # outliers in as many variants as possible
    depth = maps[next(iter(variants))].shape[1]
    layers = np.unique(np.linspace(0, depth - 1, min(depth, LAYERS_SHOWN)).round().astype(int))
    scale = LogNorm(min(m[chosen].min() for m in maps.values()), max(m[chosen].max() for m in maps.values()))
    image = context.reference()[rows[chosen]]
    figure, axes = plt.subplots(len(variants), len(layers) + 1, figsize=(TWO_COLUMNS, max(1.6, 0.8 * len(variants) + 0.6)), squeeze=False)
    for row, (key, name) in enumerate(variants.items()):
        axes[row, 0].imshow(image)
        axes[row, 0].set_ylabel(name, fontsize=SMALL)
        for place, layer in enumerate(layers, start=1):
            axis, values = axes[row, place], maps[key][chosen, layer]
            drawn = axis.imshow(values, norm=scale, cmap=SEQUENTIAL)
            outline(axis, values > limits[key][0, layer])
            if row == 0:
                axis.set_title("embedding" if layer == 0 else f"layer {layer - 1}", fontsize=SMALL)
    axes[0, 0].set_title("image", fontsize=SMALL)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="token norm (L2, log)", fraction=0.03, pad=0.01)
    set_title(
        figure,
        f"Token norms in the encoder of '{study.name}', the held-out image with most outliers; "
        f"outlined: above {factor:g}\u00a0×\u00a0the layer's median",
    )
    return figure, {key: norms[chosen] for key, norms in maps.items()} | {f"{key}.median": medians[key] for key in maps} | {"image": image}


def untrained_variants(methods: list[str]) -> dict[str, str]:
    """Keys of the encoder variants without trained registers, with what they are called in a figure."""
    variants: dict[str, str] = {}
    for method in methods:
        encoder = load_method(method).encoder
        if not encoder.trained:
            rounds = "until clean" if encoder.rounds == "until_clean" else f"{encoder.rounds} round" + "s" * (encoder.rounds > 1)
            variants.setdefault(encoder.key, f"TTR,\n{rounds}" if encoder.changes else "baseline")
    return variants


def outline(axis: Axes, marked: np.ndarray) -> None:
    """A frame around each marked token of a map (rows, columns)."""
    width = min(1.2, 9.6 / marked.shape[1])  # points: narrow enough to leave a small token its colour
    for y, x in np.argwhere(marked):
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=OUTLINE, linewidth=width, clip_on=False, zorder=3))


@registered
def register_neurons(context: Context) -> tuple[Figure, Data]:
    """Score of every neuron by layer, a panel for each round of the recursive search; the round's choice and the planted truth marked."""
    keys = [method.encoder.key for method in map(load_method, context.methods) if method.encoder.searched]
    search = max((context.registers(key) for key in dict.fromkeys(keys)), key=lambda search: len(search["rounds"]))
    rounds, truth = search["rounds"], {tuple(pair) for pair in search["planted"]}
    figure, axes = plt.subplots(1, len(rounds), figsize=(TWO_COLUMNS, 2.3), sharey=True, squeeze=False)
    lines = []
    for number, (axis, drawn) in enumerate(zip(axes[0], rounds, strict=True), start=1):
        scores = np.array(drawn["scores"])
        layers, neurons = scores.shape
        chosen = {(one["layer"], one["neuron"]) for one in drawn["found"]}
        places = np.arange(layers)[:, None] + (np.arange(neurons) + 0.5) / neurons
        for layer in range(layers):
            axis.scatter(places[layer], scores[layer], s=3, color="0.35" if layer % 2 else "0.6", linewidths=0, rasterized=neurons > 500)
        for marked, style in ((chosen, CHOSEN), (truth, TRUTH)):
            inside = sorted(pair for pair in marked if pair[0] < layers)
            if inside:
                axis.scatter([places[pair] for pair in inside], [scores[pair] for pair in inside], **style, clip_on=False)
        every = -(-layers // 12)
        axis.set_xticks(np.arange(0, layers, every) + 0.5, [str(layer) for layer in range(0, layers, every)])
        axis.tick_params(axis="x", length=0)
        axis.set(xlabel="encoder layer, its neurons side by side", xlim=(0, layers))
        axis.set_title(f"round {number}: {100 * drawn['outlier_share_before']:.2g} % outliers before", fontsize=SMALL)
        lines += [
            {"round": number, "layer": at[0], "neuron": at[1], "score": score, "chosen": at in chosen, "planted": at in truth}
            for at, score in np.ndenumerate(scores)
        ]  # fmt: skip
    axes[0, 0].set_ylabel("score: mean |activation|\nat outlier tokens")
    axes[0, 0].set_ylim(bottom=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    set_title(figure, f"Search for register neurons in the encoder of '{context.study.name}': score of every neuron in each round")
    return figure, pd.DataFrame(lines)


@registered
def masking_norms(context: Context) -> tuple[Figure, Data]:
    """Histograms of the three norms that a loss mask could mean, of the training tokens, with what share several thresholds leave out."""
    statistics, key = context.study.outlier_statistics, load_method(context.methods[0]).encoder.key
    figure, axes = plt.subplots(len(NORMS), 1, figsize=(TWO_COLUMNS, 3.6), sharex=True, sharey=True)
    data: dict[str, np.ndarray] = {}
    with safe_open(context.latents(key), "numpy") as file:
        norms = {name: file.get_tensor(f"train.norm.{name}").ravel() for name in NORMS}
    medians = {name: float(median_norm(values)) for name, values in norms.items()}
    ratios = {name: values / medians[name] for name, values in norms.items()}
    highest = max([*statistics.multiples, *(norm / median for norm in statistics.norms for median in medians.values())])
    low = min(values.min() for values in ratios.values()) / 1.2
    edges = np.geomspace(low, 1.4 * max(highest, *(values.max() for values in ratios.values())), BINS + 1)
    for axis, (name, title) in zip(axes, NORMS.items(), strict=True):
        shares = np.histogram(ratios[name], edges)[0] / norms[name].size
        axis.stairs(shares, edges, fill=True, color="0.7", baseline=0.5 / norms[name].size)
        limits = [(multiple, "right", "-", "#0072B2", "") for multiple in statistics.multiples]
        limits += [(norm / medians[name], "left", "--", OUTLINE, f"{norm:g}: ") for norm in statistics.norms]
        for limit, side, line, colour, text in limits:
            left_out = f"{text}{100 * float((ratios[name] > limit).mean()):.3g} %"
            axis.axvline(limit, color=colour, linestyle=line, linewidth=0.8)
            place = {"transform": axis.get_xaxis_transform(), "rotation": 90, "ha": side, "va": "top"}
            axis.text(limit, 0.97, left_out, fontsize=SMALL, color=colour, **place)
        axis.set_title(f"norm {title}, median {medians[name]:.3g}", fontsize=SMALL, loc="left")
        data |= {f"{name}.share": shares, f"{name}.median": np.array(medians[name])}
    axes[0].set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.5 / max(values.size for values in norms.values()), 300))
    axes[0].set_yticks([1e-4, 1e-2, 1], ["0.01 %", "1 %", "100 %"])
    axes[0].minorticks_off()
    axes[-1].set_xticks([1, *statistics.multiples], [f"{multiple:g}" for multiple in (1, *statistics.multiples)])
    axes[-1].set_xlabel("norm ÷ its median (log scale); at each threshold the share of tokens above it, which a mask would leave out")
    figure.supylabel("share of training tokens (log scale)", fontsize=8)
    set_title(
        figure,
        f"Which norm does a loss mask threshold? The three that the paper leaves open, of the training tokens of '{context.study.name}'",
    )
    return figure, data | {"edges": edges}
