"""Grids of samples."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from harness.data.captions import captions
from harness.report.figures.context import Context
from harness.report.figures.registry import registered
from harness.report.figures.style import PLAIN, SEQUENTIAL, SMALL, TWO_COLUMNS, Data, set_title, title_of
from harness.study.method import load_method
from harness.study.study import Study

CLASSES_SHOWN, SAMPLES_PER_CLASS = 10, 2
COMPARED = 10_000  # samples, at most, from which the most different pairs are taken
PAIRS, MEDIANS = 6, 3


@registered
def samples(context: Context) -> tuple[Figure, Data]:
    """One row a method, the same noise and label in the same column; grey where sampling diverged."""
    study, methods, seed, kind = context.study, context.methods, context.seeds[0], context.study.data.label
    runs = {method: context.samples(method, seed) for method in methods}
    labels = runs[methods[0]].labels  # the same in all of them
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present), min(CLASSES_SHOWN, len(present)), endpoint=False).astype(int)]
    columns = np.concatenate([np.flatnonzero(labels == label)[:SAMPLES_PER_CLASS] for label in shown])
    data = {}
    height = 0.3 * len(methods) + (1.8 if kind == "prompt" else 0.7)
    figure, axes = plt.subplots(len(methods), 1, figsize=(TWO_COLUMNS, height), squeeze=False, layout="compressed")
    for axis, (method, drawn) in zip(axes[:, 0], runs.items(), strict=True):
        status = drawn.status
        images = drawn.first(columns.max() + 1)[columns]
        data[method] = images if status == "ok" else np.full_like(images, 200)
        strip = np.pad(data[method], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=110)
        axis.imshow(np.concatenate(list(strip), axis=1), interpolation="nearest")
        if status != "ok":
            axis.text(0.5, 0.5, status, transform=axis.transAxes, ha="center", va="center", bbox=PLAIN | {"facecolor": "0.78"})
        axis.set_ylabel(title_of(method), rotation=0, ha="right", va="center", fontsize=SMALL)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    width = strip.shape[2]
    some = f", {len(shown)} of {len(present)}" if len(shown) < len(present) else ""
    named = label_texts(study, labels[columns], 24)
    axes[-1, 0].set_xticks(np.arange(len(columns)) * width + width / 2, named, rotation=90 if kind == "prompt" else 0)
    axes[-1, 0].tick_params(length=0)
    axes[-1, 0].set_xlabel(f"{kind} that the sample was drawn with")
    shown_of = f"first {SAMPLES_PER_CLASS} of each {kind}{some}"
    set_title(figure, f"Samples of '{study.name}', seed {context.noise_seed}: the same noise in every column ({shown_of})")
    figure.set_layout_engine("compressed", h_pad=0.015, hspace=0)
    return figure, data | {"labels": labels[columns]}


@registered
def largest_difference(context: Context) -> tuple[Figure, Data]:
    """Samples of the baseline above another method's, same noise and label: the most different pairs, and those of median difference."""
    study, seed, kind = context.study, context.seeds[0], context.study.data.label
    baseline, method = context.methods[0], compared(context.methods)
    pair = [context.samples(name, seed) for name in (baseline, method)]
    above, below = (drawn.first(COMPARED) for drawn in pair)
    labels = pair[0].labels[: len(above)]
    distances = np.array([np.sqrt(np.square(a.astype(float) - b).mean()) / 255 for a, b in zip(above, below, strict=True)])
    order = np.argsort(-distances, kind="stable")
    middle = len(order) // 2
    parts = order[:PAIRS], order[middle - MEDIANS // 2 :][:MEDIANS]
    ratios = {"width_ratios": [1] * PAIRS + [0.2] + [1] * MEDIANS}
    figure, axes = plt.subplots(3, PAIRS + MEDIANS + 1, figsize=(TWO_COLUMNS, 3 if kind == "prompt" else 2.5), gridspec_kw=ratios)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis in axes[:, PAIRS]:
        axis.set_visible(False)
    status = next((drawn.status for drawn in pair if drawn.status != "ok"), "")
    for start, chosen in zip((0, PAIRS + 1), parts, strict=True):
        for column, (number, named) in enumerate(zip(chosen, label_texts(study, labels[chosen], 11), strict=True), start=start):
            for row, images in enumerate((above, below)):
                axes[row, column].imshow(images[number] if not status else np.full_like(images[number], 200), interpolation="nearest")
            difference = np.abs(above[number].astype(float) - below[number]).mean(axis=-1) / 255
            axes[2, column].imshow(difference, vmin=0, vmax=1, cmap=SEQUENTIAL, interpolation="nearest")
            axes[2, column].set_xlabel(f"{distances[number]:.2f}", fontsize=SMALL, labelpad=2)
            axes[0, column].set_title(named if kind == "prompt" else f"{kind} {named}", fontsize=SMALL, pad=2)
    for axis, text in zip(axes[:, 0], (title_of(baseline), title_of(method), "|difference|,\n0 to 1"), strict=True):
        axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=SMALL)
    rule = f"left the {PAIRS} pairs of {len(above):,} that differ most, right {MEDIANS} about the median"
    unit = "below: root mean square difference of the pixels, 1 = black to white"
    set_title(figure, f"Same noise, same {kind} on '{study.name}', seed {seed}: {rule} ({unit})" + f"; {status}" * bool(status))
    figure.set_layout_engine("constrained", h_pad=0.015, w_pad=0.02, hspace=0, wspace=0)
    chosen = np.concatenate(parts)
    arrays = {"numbers": chosen, "labels": labels[chosen], "distances": distances, baseline: above[chosen], method: below[chosen]}
    return figure, arrays


@registered
def prompt_differences(context: Context) -> tuple[Figure, Data]:
    """The same, of the text-to-image study."""
    return largest_difference(context)


def compared(methods: list[str]) -> str:
    """The method shown beside the baseline: the last one, if possible on the baseline's own encoder weights; DSR where it is there."""
    backbones = {method: load_method(method).encoder.backbone for method in methods}
    return ([method for method in methods[1:] if backbones[method] == backbones[methods[0]]] or methods[1:])[-1]


def label_texts(study: Study, labels: np.ndarray, width: int) -> list[str]:
    """What labels (N,) are called: prompts, in lines of `width` characters, or their numbers."""
    if not study.data.prompts:
        return [str(label) for label in labels]
    return [textwrap.fill(text, width) for text in captions(study.data, labels.tolist())]
