"""Table 3 as a picture: time to equal loss and quality of every scheme against top-2, the paper's beside."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.schemes import SchemeRow, performance, scheme_rows
from repro.report.statistics import interval, mean
from repro.report.style import (
    FAINT,
    MARKERS,
    SCHEMES,
    SMALL,
    UNNAMED,
    label,
    legend,
    lines_only,
    panels,
    reach,
)
from repro.results.published import Published

FILE = "table3"
TITLE = "Time to top-2's loss, and quality against top-2's, with 95 % intervals; hollow: the paper's"
SEE = (
    "Left of the line a scheme is faster than top-2, on the second axis right of it better; arrows go on."
    " In the paper adaptive gating is faster on every task, at about equal quality."
)
FARTHEST = {"time": (0.3, 2.2), "quality": (-30.0, 30.0)}
"""Limits of the axes, ratio and percent: what lies beyond is drawn at the edge, as an arrow."""
_GAP = 0.7
"""Between tasks, in rows."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where a scheme stands on an axis."""

    value: float | None
    low: float | None = None
    high: float | None = None
    is_bound: bool = False
    """Whether the true number is larger."""
    paper: float | None = None


def draw(published: Published) -> Figure | None:
    """Draw a row for each scheme of each task but top-2, times on the left, qualities on the right."""
    rows = [row for row in scheme_rows(published) if row.scheme != row.baseline]
    times, qualities = [time(row) for row in rows], [quality(row) for row in rows]
    if all(mark.value is None for mark in (*times, *qualities)):
        return None
    tasks = list(dict.fromkeys(row.title for row in rows))
    heights = [number + _GAP * tasks.index(row.title) for number, row in enumerate(rows)]
    figure, (left, right) = panels(2, 2, row_height=0.14 * heights[-1] + 0.75, rest=0.2)
    names = [row.scheme for row in rows]
    _panel(left, names, heights, times, 1.0, FARTHEST["time"])
    _panel(right, names, heights, qualities, 0.0, FARTHEST["quality"])
    label(left, "", "time, ratio to top-2", "")
    label(right, "", "quality, % better", "")
    centres = [
        sum(y for y, row in zip(heights, rows, strict=True) if row.title == task)
        / sum(row.title == task for row in rows)
        for task in tasks
    ]
    left.set_yticks(centres, [textwrap.fill(task, 13) for task in tasks], fontsize=SMALL)
    right.set_yticks([])
    for axes in (left, right):
        axes.set_ylim(heights[-1] + 0.8, -0.8)
        axes.tick_params(axis="y", length=0)
        lines_only(axes)
    legend(figure)
    return figure


def time(row: SchemeRow) -> Mark:
    """Return the ratio of times to top-2's loss; its bound where a seed missed it."""
    paper = row.paper.get("time")
    if row.time_to_target is None:
        return Mark(value=None, paper=paper)
    low, high = row.time_to_target.interval or (None, None)
    return Mark(
        value=row.time_to_target.time, low=low, high=high, is_bound=row.time_to_target.is_bound, paper=paper
    )


def quality(row: SchemeRow) -> Mark:
    """Return by how many percent of top-2's the metric is better, paired by seed; positive is better."""
    base, differences = row.baseline_mean(performance), row.paired(performance)
    sign = 1.0
    if row.runs and not row.runs[0].metric.higher_is_better:
        sign = -1.0
    printed, printed_base = row.paper.get("performance"), row.paper_baseline.get("performance")
    paper = None
    if printed is not None and printed_base:
        paper = 100 * sign * (printed - printed_base) / printed_base
    centre = mean(differences)
    if centre is None or not base:
        return Mark(value=None, paper=paper)
    half = interval(differences)
    value, scale = 100 * sign * centre / base, 100 / abs(base)
    if half is None:
        return Mark(value=value, paper=paper)
    return Mark(value=value, low=value - scale * half, high=value + scale * half, paper=paper)


def _panel(
    axes: Axes,
    names: Sequence[str],
    heights: Sequence[float],
    marks: Sequence[Mark],
    equal: float,
    farthest: tuple[float, float],
) -> None:
    def inside(value: float) -> float:
        return min(max(value, farthest[0]), farthest[1])

    values = [value for mark in marks for value in (mark.value, mark.paper) if value is not None]
    ends = [end for mark in marks for end in (mark.low, mark.high) if end is not None and math.isfinite(end)]
    limits = reach([inside(value) for value in (*values, equal)], map(inside, ends))
    axes.axvline(equal, color=FAINT, lw=0.6, zorder=0)
    for name, y, mark in zip(names, heights, marks, strict=True):
        _mark(axes, name, y, mark, inside)
    axes.set_xlim(limits)


def _mark(axes: Axes, name: str, y: float, mark: Mark, inside: Callable[[float], float]) -> None:
    colour, marker = SCHEMES.get(name, UNNAMED), MARKERS.get(name, "v")
    if mark.paper is not None:
        axes.plot(inside(mark.paper), y + 0.2, marker, color=colour, mfc="white", mew=0.6, ms=3, zorder=2)
    if mark.value is None:
        return
    if mark.low is not None and mark.high is not None:
        axes.plot([mark.low, mark.high], [y, y], color=colour, lw=1.0)
    shown = inside(mark.value)
    axes.plot(shown, y, marker, color=colour, ms=3.5, label=name, zorder=3, clip_on=False)
    if mark.is_bound or shown != mark.value:
        side = -1 if shown > mark.value else 1
        axes.annotate(
            "←" if side < 0 else "→",
            (shown, y),
            xytext=(3 * side, 0),
            textcoords="offset points",
            color=colour,
            fontsize=SMALL,
            va="center_baseline",
            ha="right" if side < 0 else "left",
        )
