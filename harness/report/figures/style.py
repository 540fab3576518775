"""One style for every figure: palette, sizes in print, and how a figure and its data are saved."""

import colorsys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from harness.store.files import atomic, save_npz, write_text

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from harness.study.method import load_method, method_file, method_names

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Okabe and Ito's colour-blind-safe palette; a method keeps its colour in every figure.
PALETTE = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#8C6D31"]
SHADES = (0.35, -0.25, 0.2, -0.4, 0.5)  # of the base method's colour, for its variants: towards white above 0, towards black below
SEQUENTIAL = "cividis"  # readable in grey and with every kind of colour vision
DIVERGING = "RdBu_r"
OUTLINE = "#D55E00"  # of outlier tokens
ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9  # inches
SMALL = 7  # points, of all but titles and axis labels
CHARACTERS = 15  # of a title, per inch
STYLE: dict["RcKeyType", Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "figure.titlesize": 8,
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "axes.linewidth": 0.6,
}
PLAIN = {"edgecolor": "none", "pad": 2}  # box of a text that stands on lines
Colour = str | tuple[float, float, float]  # by name, or red, green, blue
Data = pd.DataFrame | dict[str, np.ndarray]


def save_figure(figure: Figure, data: Data, path: Path) -> None:
    """`path` as PNG and PDF, without dates or versions so that two runs give the same bytes, and its data beside it: CSV or NPZ."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None, "Creator": None, "Producer": None})):
        with atomic(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        figure.set_layout_engine("none")  # the PDF is laid out as the PNG is
    plt.close(figure)
    if isinstance(data, pd.DataFrame):
        write_text(path.with_suffix(".csv"), data.to_csv(index=False, lineterminator="\n"))
    else:
        with atomic(path.with_suffix(".npz")) as temporary:
            save_npz(temporary, data, compressed=True)


def colour_of(method: str) -> Colour:
    """A method's own colour; of a variant, a lighter or darker one of the method that it varies."""
    base = method_file(method).stem
    variant = method.removeprefix(base).removeprefix("-")
    colour = PALETTE[method_names().index(base) % len(PALETTE)]
    return shaded(colour, SHADES[sum(variant.encode()) % len(SHADES)]) if variant else colour


def shaded(colour: Colour, by: float) -> tuple[float, float, float]:
    """`colour`, moved by a share of the way to white (above 0) or black (below)."""
    hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return colorsys.hls_to_rgb(hue, light + by * (1 - light if by > 0 else light), saturation)


def title_of(method: str) -> str:
    """A method's title."""
    return load_method(method).title


def set_title(figure: Figure, text: str) -> None:
    """A title above the whole figure, in as many lines of about the same length as fit its width."""
    most = int(figure.get_figwidth() * CHARACTERS)
    lines = len(_wrapped(text, most))
    shortest = next(width for width in range(len(text) // lines, most + 1) if len(_wrapped(text, width)) == lines)
    figure.suptitle("\n".join(_wrapped(text, shortest)))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
