"""Token maps in strips, a row a run: norms and first principal components of one held-out image."""

import math
import textwrap
from dataclasses import dataclass
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from harness.report.figures.context import Context
from harness.report.figures.encoders import outline
from harness.report.figures.map_data import Maps
from harness.report.figures.style import CHARACTERS, DIVERGING, OUTLINE, SEQUENTIAL, SMALL, TWO_COLUMNS, Data, set_title

DEVIATIONS = 3  # at which the colours of components end
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
SIDE, GAP = 0.8, 0.17  # inches: of a map, at most, and below it


@dataclass(frozen=True)
class Strip:
    """One row of the figure: a run's maps at a noise level (its place among the run's)."""

    label: str
    maps: Maps
    level: int | None
    kind: Literal["norms", "components"]

    @property
    def values(self) -> np.ndarray:
        """(L + 1, B, P): norms over their median, or components over their standard deviation within the image."""
        if self.kind == "norms":
            return self.maps.relative[self.level]
        components = self.maps.arrays["components"][self.level]
        return components / (components.std(axis=-1, keepdims=True) + np.finfo(np.float32).tiny)

    @property
    def decoded(self) -> np.ndarray | None:
        """(B, H, W, 3) uint8: the images that a denoiser predicts."""
        return self.maps.arrays["decoded"][self.level] if "decoded" in self.maps.arrays else None

    def note(self, column: int, chosen: int) -> str:
        """What stands below a map: the median norm, or the component's share of the variance."""
        if self.kind == "norms":
            return f"{self.maps.median[self.level, column]:.3g}"
        return f"{100 * self.maps.arrays['explained'][self.level, column, chosen]:.0f} %"


def draw_strips(
    context: Context, strips: list[Strip], chosen_in: Maps, title: str, names: list[str], columns: list[int]
) -> tuple[Figure, Data]:
    """One row a strip, one column a block or layer: `columns`, of all that `names` are of.

    Outliers are framed. Grey where a run has no maps. Left, the image: that with most outliers in `chosen_in`. Right, of a denoiser, the
    image that it predicts.
    """
    drawn = [strip for strip in strips if not strip.maps.why]
    counts = np.zeros(1) if chosen_in.why else chosen_in.counts
    chosen = int(counts.argmax())
    scales = scales_of([(strip, strip.values[columns, chosen]) for strip in drawn])
    wide = len(columns) + any(strip.decoded is not None for strip in drawn)
    side = min(SIDE, (TWO_COLUMNS - 1.4) / (wide + 1))
    figure = plt.figure(figsize=(TWO_COLUMNS, (side + GAP) * len(strips) + 0.65))
    cells = figure.add_gridspec(len(strips), wide + 1)
    axes: dict[str, list[Axes]] = {}
    for row, strip in enumerate(strips):
        panels = [figure.add_subplot(cells[row, place]) for place in range(1, wide + 1)]
        axes.setdefault(strip.kind, []).extend(panels)
        for axis in panels:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if strip.maps.why:
                axis.imshow(np.full((1, 1, 3), 0.85))
        if row == 0:
            for axis, name in zip(panels, [*(names[column] for column in columns), "decoded"], strict=False):
                axis.set_title(name, fontsize=SMALL)
        if not strip.maps.why:
            for axis, column in zip(panels, columns, strict=False):
                draw_map(axis, strip, column, chosen, scales[strip.kind])
            if strip.decoded is not None:
                panels[-1].imshow(strip.decoded[chosen], interpolation="nearest")
        panels[0].set_ylabel(textwrap.fill(strip.label, 13), fontsize=SMALL)
        if strip.maps.why:
            middle = panels[len(panels) // 2]
            text = middle.text(0.5, 0.5, strip.maps.why, transform=middle.transAxes, ha="center", va="center", fontsize=SMALL)
            text.set_in_layout(False)  # it reaches over several panels, and stands on top of them
            middle.set_zorder(1)
    number = int(chosen_in.arrays["rows"][chosen])
    image = context.reference()[number]
    left = figure.add_subplot(cells[:, 0])
    left.imshow(image, interpolation="nearest")
    left.set_title("image", fontsize=SMALL)
    left.set_axis_off()
    for kind, scale in scales.items():
        bar_of(figure, axes[kind], kind, scale, chosen_in.factor, (side + GAP) * len(axes[kind]) / wide)
    set_title(
        figure,
        f"{title}; held-out image {number}, {'that with most' if counts.any() else 'the first, for want of'} outliers in the baseline",
    )
    return figure, {"image": image, "columns": np.array([names[column] for column in columns])} | arrays_of(drawn, columns, chosen)


def draw_map(axis: Axes, strip: Strip, column: int, chosen: int, scale: Normalize) -> None:
    """The map of one block."""
    values = strip.values[column, chosen]
    side = math.isqrt(values.size)
    axis.imshow(values.reshape(side, side), norm=scale, cmap=SEQUENTIAL if strip.kind == "norms" else DIVERGING, interpolation="nearest")
    outline(axis, strip.maps.outliers[strip.level, column, chosen].reshape(side, side))
    axis.set_xlabel(strip.note(column, chosen), fontsize=SMALL - 1, labelpad=1.5)


def arrays_of(strips: list[Strip], columns: list[int], chosen: int) -> dict[str, np.ndarray]:
    """What is drawn, before it was scaled: of each kind, (strips, columns, P), with the strips' labels and noise levels."""
    arrays: dict[str, np.ndarray] = {}
    for kind in dict.fromkeys(strip.kind for strip in strips):
        mine = [strip for strip in strips if strip.kind == kind]
        arrays[kind] = np.array([strip.maps.arrays[kind][strip.level][columns, chosen] for strip in mine])
        arrays[f"{kind}.rows"] = np.array([strip.label for strip in mine])
        arrays[f"{kind}.t"] = np.array([strip.maps.arrays["times"][strip.level] for strip in mine])
        if kind == "norms":
            arrays["norms.median"] = np.array([strip.maps.median[strip.level, columns] for strip in mine])
        else:
            arrays["components.explained"] = np.array([strip.maps.arrays["explained"][strip.level][columns, chosen] for strip in mine])
        if decoded := [images[chosen] for strip in mine if (images := strip.decoded) is not None]:
            arrays[f"{kind}.decoded"] = np.array(decoded)
    return arrays


def scales_of(drawn: list[tuple[Strip, np.ndarray]]) -> dict[str, Normalize]:
    """One colour scale for all maps of a kind, from values (columns, P) of each strip: logarithmic for norms, around 0 for components."""
    scales: dict[str, Normalize] = {}
    norms = [values for strip, values in drawn if strip.kind == "norms"]
    if norms:
        low, high = min(values.min() for values in norms), max(values.max() for values in norms)
        scales["norms"] = LogNorm(min(low, 0.5), max(high, 2 * drawn[0][0].maps.factor))
    if any(strip.kind == "components" for strip, _ in drawn):
        scales["components"] = Normalize(-DEVIATIONS, DEVIATIONS)
    return scales


def bar_of(figure: Figure, axes: list[Axes], kind: str, scale: Normalize, factor: float, tall: float) -> None:
    """The colour bar of all maps of a kind, `tall` inches; on that of norms, a line where outliers begin."""
    norms = kind == "norms"
    bar = figure.colorbar(
        ScalarMappable(scale, SEQUENTIAL if norms else DIVERGING),
        ax=axes,
        fraction=0.025,
        pad=0.01,
        aspect=30,
        extend="neither" if norms else "both",
    )
    if norms and scale.vmin is not None and scale.vmax is not None:
        bar.ax.axhline(factor, color=OUTLINE, linewidth=1.5)
        ticks = [tick for tick in TICKS if scale.vmin <= tick <= scale.vmax]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    label = "token norm (L2) / median of its block (below), log" if norms else "PC 1, std. dev. (below: share of variance)"
    bar.set_label(textwrap.fill(label, int(tall * CHARACTERS)), fontsize=SMALL)
    bar.outline.set_linewidth(0.4)


def framed(maps: Maps) -> str:
    """What a title says of outlined tokens."""
    return f"framed: norm above {maps.factor:g}\u00a0×\u00a0the median"
