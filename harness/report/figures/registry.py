"""Every figure's function by its name.

To add a figure: write its function, with @registered above it, into a file of this folder (a new file: name it in __init__.py), and say in
reports/figures.yaml, under the function's name, what it is drawn from and shown with.
"""

from collections.abc import Callable

from matplotlib.figure import Figure

from harness.report.figures.context import Context
from harness.report.figures.style import Data

Draw = Callable[[Context], tuple[Figure, Data]]
FIGURES: dict[str, Draw] = {}


def registered(draw: Draw) -> Draw:
    """A figure function: takes what it is drawn from; returns the figure and what it shows, as a table (saved as CSV) or arrays (NPZ)."""
    FIGURES[draw.__name__] = draw
    return draw
