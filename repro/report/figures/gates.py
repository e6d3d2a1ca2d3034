"""Quality against routed FLOPs for every gate of the study of gates, with the Pareto front."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.fronts import STUDY, misses_budget, on_front
from repro.report.schemes import SchemeRow, flops, performance, scheme_rows
from repro.report.statistics import interval
from repro.report.style import (
    BLACK,
    COLOURS,
    FAINT,
    WIDE,
    WIDTH,
    count_operations,
    label,
    legend,
    lines_only,
    panels,
)
from repro.results.published import Published

FILE = "gates"
TITLE = "Quality against forward FLOPs per token, every gate at several budgets"
SEE = (
    "Gates on the grey line, the Pareto front, are beaten by none at their cost; open marks at the edge lie"
    " beyond it, pale ones miss their budget and are on no front."
)

_PALE = 0.35
_REACH = 3
_FEW = 8
"""Fewer points are all shown."""
_MARKS = ("D", "v", "P")
_ANCHORS = {"dense": "s", "top-2": "o", "top-1": "^", "hash": "x"}
_Looks: TypeAlias = Mapping[str, tuple[str, str]]
"""Gate -> colour and marker."""


class _Point(NamedTuple):
    """A gate at one budget."""

    row: SchemeRow
    flops: float
    quality: float

    @property
    def gate(self) -> str:
        """The scheme without its budget."""
        return self.row.scheme.partition(" ")[0]


def draw(published: Published) -> Figure | None:
    """Draw a panel for each task; bars are 95 % intervals over seeds, where there are several."""
    tasks: dict[str, list[_Point]] = {}
    for row in scheme_rows(published, STUDY):
        cost, quality = row.mean(flops), row.mean(performance)
        if cost is not None and quality is not None:
            tasks.setdefault(row.task, []).append(_Point(row, cost, quality))
    if not tasks:
        return None
    looks = _looks([point.gate for points in tasks.values() for point in points])
    several = len(tasks) > 1
    figure, axes = panels(
        len(tasks), min(3, len(tasks)), row_height=1.9, rest=0.9, width=WIDE if several else WIDTH
    )
    for panel, points in zip(axes, tasks.values(), strict=True):
        _panel(panel, points, looks)
    legend(figure, columns=7 if several else 3)
    return figure


def _looks(gates: Sequence[str]) -> _Looks:
    """Colour and marker of each gate; the anchors are black."""
    others = [gate for gate in dict.fromkeys(gates) if gate not in _ANCHORS]
    looks = {gate: (BLACK, mark) for gate, mark in _ANCHORS.items()}
    for number, gate in enumerate(others):
        looks[gate] = (COLOURS[number % len(COLOURS)], _MARKS[number // len(COLOURS) % len(_MARKS)])
    return looks


def _panel(axes: Axes, points: Sequence[_Point], looks: _Looks) -> None:
    # The legend shows the first mark of a gate.
    ordered = sorted(points, key=lambda point: misses_budget(point.row))
    for gate, missed in dict.fromkeys((point.gate, misses_budget(point.row)) for point in ordered):
        same = [point for point in points if (point.gate, misses_budget(point.row)) == (gate, missed)]
        colour, mark = looks[gate]
        halves = [interval(point.row.values(performance)) or 0.0 for point in same]
        axes.errorbar(
            [point.flops for point in same],
            [point.quality for point in same],
            yerr=halves if any(halves) else None,
            color=colour,
            marker=mark,
            alpha=_PALE if missed else None,
            ms=3,
            lw=0,
            elinewidth=0.6,
            label=gate,
        )
    _cut(axes, points, looks)
    rows = [point.row for point in points]
    front = sorted((point.flops, point.quality) for point in points if on_front(point.row, rows))
    axes.plot([x for x, _ in front], [y for _, y in front], color=FAINT, lw=0.8, zorder=0)
    better = "" if rows[0].runs[0].metric.higher_is_better else " (lower is better)"
    label(axes, rows[0].title, "FLOPs per token", f"{rows[0].metric}{better}")
    count_operations(axes)
    lines_only(axes)


def _cut(axes: Axes, points: Sequence[_Point], looks: _Looks) -> None:
    """Leave out what is worse than the quartiles by three times their distance: its mark is at the edge."""
    values = [point.quality for point in points]
    if len(values) < _FEW:
        return
    first, _, third = statistics.quantiles(values, n=4)
    reach = _REACH * (third - first)
    low, high = min(values), max(values)
    if points[0].row.runs[0].metric.higher_is_better:
        low = min(value for value in values if value >= first - reach)
    else:
        high = max(value for value in values if value <= third + reach)
    beyond = [point for point in points if not low <= point.quality <= high]
    if not beyond:
        return
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    for point in beyond:
        colour, mark = looks[point.gate]
        edge = low - margin if point.quality < low else high + margin
        axes.plot(point.flops, edge, color=colour, marker=mark, ms=3, mfc="none", lw=0, clip_on=False)
