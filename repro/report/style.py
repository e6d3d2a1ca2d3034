"""The shared look of the figures: half a page wide, colour-blind safe, the same file every time."""

import io
import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import EngFormatter
from matplotlib.typing import RcKeyType

WIDTH = 3.3
"""Inches: half of a page, or a telephone."""
WIDE = 7.0
"""Inches: the whole page."""
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
UNNAMED = "#777777"
"""Colour of other schemes."""
FAINT = "#999999"
"""Colour of lines to compare with."""
SHADES = "cividis"
"""Colour map of heat maps: even in lightness, made for colour-blind readers."""
_SETTINGS: dict[RcKeyType, object] = {
    "svg.hashsalt": "repro",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
}
_PNG_DPI = 200


def panels(
    count: int, columns: int, *, row_height: float = 1.35, rest: float = 0.3, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `count` equal panels, row by row; places left over in the last row stay empty.

    Args:
        row_height: inches of a row of panels.
        rest: inches of the legend or the colour bar.
        width: inches.
    """
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, row_height * rows + rest), layout="constrained")
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Set the title and the axes' labels, with units, in the sizes of the style."""
    # A title at a fixed height: to place it freely, all tick labels are measured once more at each drawing.
    # So the axis under it must not end in an offset or a power of ten, which would stand in its way.
    axes.set_title(literal(title), fontsize=TEXT, y=1.0)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.set_xlabel(literal(x), fontsize=TEXT, labelpad=1)
    axes.set_ylabel(literal(y), fontsize=TEXT, labelpad=1)
    axes.tick_params(labelsize=SMALL, length=2, pad=1)


def count_operations(axes: Axes) -> None:
    """Set metric prefixes on a horizontal axis of FLOPs (1.2M): a power of ten would stand apart."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def literal(text: str) -> str:
    """Return a text that is drawn as it is: no formula between dollar signs, no control characters."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return shown.replace("$", r"\$")


def lines_only(axes: Axes) -> None:
    """Take away the frame above and to the right of lines or points."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend(figure: Figure, columns: int = 4) -> None:
    """Set one legend above all panels, of every label that one of them has; four short names fit in a row."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if handles:
        figure.legend(
            list(handles.values()),
            list(map(literal, handles)),
            loc="outside upper center" if figure.get_layout_engine() else "upper center",
            ncols=min(columns, len(handles)),
            fontsize=SMALL,
            frameon=False,
            handlelength=1.5,
            columnspacing=1,
        )


def colour_bar(
    figure: Figure, image: AxesImage, name: str, extend: Literal["neither", "max"] = "neither"
) -> None:
    """Set one colour bar below all panels, for heat maps on one scale."""
    bar = figure.colorbar(image, ax=figure.axes, location="bottom", shrink=0.8, aspect=40, extend=extend)
    bar.set_label(name, fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL, length=2)


def reach(anchors: Iterable[float], ends: Iterable[float]) -> tuple[float, float]:
    """Choose limits of an axis: all of the anchors, and of the ends of intervals what is not far off.

    Few seeds have intervals that would leave nothing of the rest to see; an end is shown up to as far
    beyond the anchors as these are apart.
    """
    anchors = list(anchors)
    low, high = min(anchors), max(anchors)
    span = (high - low) or abs(high) or 1.0
    shown = [min(max(end, low - span), high + span) for end in ends]
    low, high = min([low, *shown]), max([high, *shown])
    margin = 0.06 * ((high - low) or span)
    return low - margin, high + margin


def mean_line(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Sequence[float]],
    *,
    name: str,
    colour: str,
    marker: str = "",
) -> None:
    """Draw a line of means over seeds, on a band from the lowest seed to the highest.

    Args:
        values: the seeds' values at each place.
    """
    means = [fmean(seeds) for seeds in values]
    axes.plot(x, means, color=colour, marker=marker, ms=3, lw=1, label=name)
    lows, highs = [min(seeds) for seeds in values], [max(seeds) for seeds in values]
    axes.fill_between(x, lows, highs, color=colour, alpha=0.2, lw=0)


def as_svg(figure: Figure) -> bytes:
    """Render as SVG, without dates or random names: equal figures, equal bytes.

    The layout that is worked out here is kept: the other format has it too.
    """
    with mpl.rc_context(_SETTINGS):
        engine = figure.get_layout_engine()
        if engine is not None:
            # With an engine, `savefig` draws everything twice, the first time for the layout alone.
            FigureCanvasSVG(figure)
            figure.set_dpi(FigureCanvasSVG.fixed_dpi)
            engine.execute(figure)
            figure.set_layout_engine(None)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def as_png(figure: Figure) -> bytes:
    """Render in pixels."""
    with mpl.rc_context(_SETTINGS):
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return stream.getvalue()
