"""The shared look of the figures: half a column wide, colour-blind safe, the same file every time."""

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

WIDTH = 3.3
"""Inches: half a column."""
TEXT, SMALL = 7, 6
"""Sizes of titles and labels, and of ticks, in points."""
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""Okabe and Ito's palette, which is told apart with any common colour blindness."""
COLOURS = (RED, BLUE, GREEN, ORANGE, SKY, PURPLE)
"""For lines without a colour of their own, in this order; yellow is too pale for lines."""
SCHEMES = {"dense": BLACK, "top-2": BLUE, "top-1": GREEN, "adaptive": RED}
MARKERS = {"dense": "s", "top-2": "o", "top-1": "^", "adaptive": "D"}
STACKS = {"encoder": BLUE, "decoder": ORANGE}
SHADES = "cividis"
"""Colour map of heat maps: even in lightness, made for colour-blind readers."""
_SETTINGS: Any = {
    "svg.hashsalt": "repro",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}


def panels(rows: int, columns: int, *, row_height: float = 1.35, rest: float = 0.3) -> tuple[Figure, Any]:
    """A figure of equal panels and its axes as an array (rows, columns).

    Args:
        row_height: inches of a row of panels.
        rest: inches of the legend or the colour bar.
    """
    figure = Figure(figsize=(WIDTH, row_height * rows + rest), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def label(axes: Any, title: str, x: str, y: str) -> None:
    """Title and labelled axes with units, in the sizes of the style."""
    axes.set_title(title, fontsize=TEXT)
    axes.set_xlabel(x, fontsize=TEXT, labelpad=1)
    axes.set_ylabel(y, fontsize=TEXT, labelpad=1)
    axes.tick_params(labelsize=SMALL, length=2, pad=1)


def lines_only(axes: Any) -> None:
    """No frame above and to the right of lines or points."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend(figure: Figure, axes: Sequence[Any], columns: int = 4) -> None:
    """One legend above all panels, of every label that one of them has; four short names fit side by side."""
    found: dict[str, Any] = {}
    for one in axes:
        for handle, name in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside upper center",
            ncols=min(columns, len(found)),
            fontsize=SMALL,
            frameon=False,
            handlelength=1.5,
            columnspacing=1,
        )


def finite(value: Any) -> bool:
    """Whether this is a number that can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)


def as_svg(figure: Figure) -> bytes:
    """The figure as SVG, without dates or random names: equal figures, equal bytes."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None})


def as_png(figure: Figure) -> bytes:
    """The figure in pixels."""
    return _saved(figure, format="png", dpi=200, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    stream = io.BytesIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(stream, **options)
    return stream.getvalue()
