"""Figures of who gets the attention and who carries the norm: outlier patches, other patches, registers (harness.evaluation.maps)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from harness.report.figures.context import Context
from harness.report.figures.map_data import Maps, four, maps_of
from harness.report.figures.registry import registered
from harness.report.figures.style import OUTLINE, SMALL, TWO_COLUMNS, Data, set_title, title_of
from harness.results.outlier_rule import outlier_norm

OUTLIERS, OTHERS, REGISTERS, CONTEXT = "outlier patches", "other patches", "registers", "tokens in context"
KINDS = {OTHERS: ("#56B4E9", "o"), OUTLIERS: (OUTLINE, "D"), REGISTERS: ("#009E73", "s"), CONTEXT: ("#CC79A7", "^")}
COLUMNS = 4  # of panels
BLOCKS_MARKED = 12  # a deeper denoiser has a marker at some blocks only


def tokens_of(maps_by_name: dict[str, Maps], column: str = "method") -> pd.DataFrame:
    """A line a key of `maps_by_name` (its name in the column `column`), noise level, block and kind of token.

    `tokens`: of that kind, per image; `attention`: that each of them receives in the block, mean; `uniform`: what each would receive if all
    tokens got the same; `norm`: of each after the block, mean. For attention, a patch is an outlier if it enters the block as one.
    """
    lines = []
    for key, maps in maps_by_name.items():
        if maps.why:
            continue
        entering = maps.arrays["entering"]
        after = slice(maps.arrays["norms"].shape[1] - 1 - entering.shape[1], -1)  # an encoder's first are embeddings, the last the output
        outlying = {
            "attention": entering > outlier_norm(entering, maps.factor, axis=(2, 3)),
            "norm": maps.relative[:, after] > maps.factor,
        }
        values = {"attention": maps.arrays["attention"], "norm": maps.arrays["norms"][:, after]}
        others = {
            kind: {"attention": maps.arrays[f"{name}_attention"], "norm": maps.arrays[f"{name}_norms"]}
            for kind, name in ((REGISTERS, "register"), (CONTEXT, "context"))
        }
        for level, block in np.ndindex(entering.shape[:2]):
            kinds = {
                OTHERS: {name: values[name][level, block][~outlying[name][level, block]] for name in values},
                OUTLIERS: {name: values[name][level, block][outlying[name][level, block]] for name in values},
            }
            for kind, arrays in others.items():
                kinds[kind] = {name: array[level, block][~np.isnan(array[level, block])] for name, array in arrays.items()}
            images = entering.shape[2]
            whole = sum(part["attention"].size for part in kinds.values()) / images
            for kind, part in kinds.items():
                line = {column: key, "t": maps.arrays["times"][level], "block": block, "kind": kind, "uniform": 1 / whole}
                for name, array in part.items():
                    line |= {f"{name}_tokens": array.size / images, name: array.mean(dtype=float) if array.size else np.nan}
                lines.append(line)
    return pd.DataFrame(lines)


@registered
def attention(context: Context) -> tuple[Figure, Data]:
    """Attention that a token receives, by kind of token and block, as a multiple of the uniform share, at one noise level."""
    maps_by_method = {method: maps_of(context, method) for method in context.methods}
    table = tokens_of(maps_by_method)
    shown = {
        title_of(method): (maps, pd.DataFrame() if maps.why else lines_at_level(table, method, maps))
        for method, maps in maps_by_method.items()
    }
    title = (
        f"Attention that tokens receive in the denoiser of '{context.study.name}', {level_text(maps_by_method)} "
        f"(outlier: it enters the block with a norm above {context.study.outlier_statistics.factor:g}\u00a0×\u00a0the median)"
    )
    return attention_panels(shown, "denoiser block", title), table


def attention_panels(panels: dict[str, tuple[Maps, pd.DataFrame]], blocks: str, title: str) -> Figure:
    """Title of a panel -> its maps, and its lines of `tokens_of`."""
    wide = min(COLUMNS, len(panels))
    tall = -(-len(panels) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(TWO_COLUMNS, 1.5 * tall + 0.85), squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    shown: set[str] = set()
    for axis, (name, (maps, lines)) in zip(axes.flat, panels.items(), strict=False):
        axis.set_title(name, fontsize=SMALL)
        if maps.why:
            greyed(axis, maps.why)
            continue
        axis.axhline(1, color="0.4", linewidth=0.8, linestyle="--")
        shown |= drawn(axis, lines.assign(value=lines["attention"] / lines["uniform"]))
    logarithmic(axes[0, 0])
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(min(low, 0.5), max(high, 2))
    for axis in axes[-1]:
        axis.set_xlabel(blocks)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axis in axes[:, 0]:
        axis.set_ylabel("attention received,\n× uniform share (log)")
    figure.legend(handles=[*handles(shown), Line2D([], [], color="0.4", linestyle="--", linewidth=0.8, label="uniform share")],
                  loc="outside lower center", ncols=5)  # fmt: skip
    set_title(figure, title)
    return figure


@registered
def norm_flow(context: Context) -> tuple[Figure, Data]:
    """Where the norm went: what patches and registers carry after each block, all tokens of a kind together and each on its own."""
    maps_by_method = {method: maps_of(context, method) for method in four(context.methods)}
    table = tokens_of(maps_by_method)
    figure, axes = plt.subplots(2, len(maps_by_method), figsize=(TWO_COLUMNS, 3.8), squeeze=False, sharex=True, sharey="row")
    shown: set[str] = set()
    for (top, bottom), (method, maps) in zip(axes.T, maps_by_method.items(), strict=True):
        top.set_title(title_of(method), fontsize=SMALL)
        if maps.why:
            greyed(top, maps.why)
            greyed(bottom, maps.why)
            continue
        lines = lines_at_level(table, method, maps)
        below = np.zeros(lines["block"].nunique())
        for kind, (colour, _) in KINDS.items():
            part = lines[lines["kind"] == kind]
            carried = (part["norm"].fillna(0) * part["norm_tokens"]).to_numpy()
            edge = 0.4 if len(part) <= BLOCKS_MARKED else 0
            top.bar(part["block"], carried, bottom=below, width=1, color=colour, edgecolor="white", linewidth=edge)
            below += carried
        shown |= drawn(bottom, lines.assign(value=lines["norm"]))
    logarithmic(axes[1, 0])
    axes[0, 0].set_ylabel("norms (L2), sum\nper image")
    axes[1, 0].set_ylabel("norm (L2)\nper token (log)")
    for axis in axes[1]:
        axis.set_xlabel("denoiser block")
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    figure.legend(handles=handles(shown), loc="outside lower center", ncols=4)
    set_title(
        figure,
        f"Where the norm goes in the denoiser of '{context.study.name}', {level_text(maps_by_method)} "
        f"(outlier: norm after the block above {context.study.outlier_statistics.factor:g}\u00a0×\u00a0the median)",
    )
    return figure, table


def lines_at_level(table: pd.DataFrame, method: str, maps: Maps) -> pd.DataFrame:
    """Lines of a method at the noise level that figures show."""
    return table[(table["method"] == method) & (table["t"] == maps.arrays["times"][maps.level])]


def level_text(maps_by_method: dict[str, Maps]) -> str:
    """Noise level and number of images of the maps."""
    maps = next(iter(maps_by_method.values()))
    return f"t\u00a0=\u00a0{maps.arrays['times'][maps.level]:g}, mean over {len(maps.arrays['rows'])} held-out images"


def drawn(axis: Axes, lines: pd.DataFrame) -> set[str]:
    """`value` by block, a line a kind of token; a gap where a block has none. Returns the kinds that there are."""
    shown = set()
    for kind, (colour, marker) in KINDS.items():
        part = lines[lines["kind"] == kind]
        if part["value"].notna().any():
            every = 1 if len(part) <= BLOCKS_MARKED else BLOCKS_MARKED // 3
            axis.plot(part["block"], part["value"], color=colour, marker=marker, markersize=3, markevery=every)
            shown.add(kind)
    return shown


def handles(shown: set[str]) -> list[Line2D]:
    """A legend's entries for these kinds of token."""
    return [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=kind) for kind, (colour, marker) in KINDS.items() if kind in shown
    ]


def logarithmic(axis: Axes) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 of each decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def greyed(axis: Axes, why: str) -> None:
    """The reason why there are no lines, on grey."""
    axis.set_facecolor("0.85")
    axis.text(0.5, 0.5, why.replace(": ", ":\n"), transform=axis.transAxes, ha="center", va="center", fontsize=SMALL)
