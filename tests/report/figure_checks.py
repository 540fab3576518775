"""What every figure must be: not empty, no text on another or cut by the edge, and the same twice."""

from contextlib import contextmanager
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from harness.report.figures import style

TOUCH = 1.0  # pixels by which boxes may meet: a box is as high as its font, not as its letters


def visible_texts(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """(text, corners of its box in pixels (4, 2)) of everything that is written in a figure."""
    figure.draw_without_rendering()
    renderer, hidden, texts = FigureCanvasAgg(figure).get_renderer(), _hidden_labels(figure), []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden and (text.axes is None or text.axes.get_visible()):
            box = text.get_window_extent(renderer)
            texts.append((text.get_text(), np.array([[box.x0, box.y0], [box.x1, box.y1]])))
    return texts


def _hidden_labels(figure: Figure) -> set[Text]:
    """Tick labels that are not drawn: matplotlib keeps those beyond the axis, and those of hidden axes."""
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks() if axis.get_visible() and axes.axison else []
            hidden |= {label for tick in (*axis.majorTicks, *axis.minorTicks) if tick not in drawn for label in (tick.label1, tick.label2)}
    return hidden


def problems(figure: Figure) -> list[str]:
    """Texts that overlap one another or leave the figure; empty axes."""
    width, height = figure.canvas.get_width_height()
    texts = visible_texts(figure)
    complaints = []
    for text, (low, high) in texts:
        if (low < -TOUCH).any() or high[0] > width + TOUCH or high[1] > height + TOUCH:
            complaints.append(f"{text!r} is cut by the edge")
    for (one, (low1, high1)), (two, (low2, high2)) in combinations(texts, 2):
        if (np.minimum(high1, high2) - np.maximum(low1, low2) > TOUCH).all():
            complaints.append(f"{one!r} and {two!r} overlap")
    complaints += [f"axes {number} show nothing" for number, axes in enumerate(figure.axes) if axes.get_visible() and not _artists(axes)]
    return complaints


def _artists(axes: plt.Axes) -> int:
    return len(axes.lines) + len(axes.collections) + len(axes.images) + len(axes.patches) + len(axes.texts)


@contextmanager
def drawn(draw):
    """What `draw` () gives, in the style of the reports; closed at the end."""
    with plt.rc_context(style.STYLE):
        try:
            yield draw()
        finally:
            plt.close("all")


def texts(figure: Figure) -> list[str]:
    """What is written inside of the axes."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def check(draw, folder) -> None:
    """`draw` () -> (figure, data): drawn twice, saved, looked at as it was saved."""
    for name in ("first", "second"):
        with drawn(draw) as (figure, data):
            style.save_figure(figure, data, folder / name)
            if name == "first":
                assert round(figure.get_figwidth(), 2) in (style.ONE_COLUMN, style.TWO_COLUMNS)
                assert not problems(figure)
    for path in sorted(folder.glob("first.*")):
        assert path.read_bytes() == path.with_stem("second").read_bytes()
    assert {path.suffix for path in folder.glob("first.*")} in ({".png", ".pdf", ".csv"}, {".png", ".pdf", ".npz"})
    assert np.asarray(Image.open(folder / "first.png").convert("RGB")).std() > 5
