"""Quality against routed FLOPs for every gate of the study of gates, with the Pareto front."""

import statistics
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from repro.figures._style import (
    BLACK,
    COLOURS,
    finite,
    label,
    legend,
    lines_only,
    panels,
)
from repro.records import Published
from repro.tables._fronts import STUDY, on_front
from repro.tables._schemes import SchemeRow, flops, performance, scheme_rows
from repro.tables._statistics import interval

FILE = "gates"
TITLE = (
    "Quality against forward FLOPs per token, every gate at several budgets; the line is the Pareto front; "
    "open marks at the edge lie beyond it"
)

_REACH = 3
_FEW = 8
"""Fewer points are all shown."""
_MARKS = ("D", "v", "P")
_ANCHORS = {"dense": "s", "top-2": "o", "top-1": "^", "hash": "x"}


def draw(published: Published) -> Figure | None:
    """A panel for each task; bars are 95 % intervals over seeds, where there are several."""
    tasks: dict[str, list[SchemeRow]] = {}
    for row in scheme_rows(published, STUDY):
        if finite(row.mean(performance)) and finite(row.mean(flops)):
            tasks.setdefault(row.task, []).append(row)
    if not tasks:
        return None
    looks = _looks([row.scheme.partition(" ")[0] for rows in tasks.values() for row in rows])
    figure, axes = panels(len(tasks), 1, row_height=1.9, rest=0.9)
    for place, rows in enumerate(tasks.values()):
        _panel(axes[place, 0], rows, looks)
    legend(figure, list(axes.flat), columns=3)
    return figure


def _looks(gates: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each gate; the anchors are black."""
    others = [gate for gate in dict.fromkeys(gates) if gate not in _ANCHORS]
    looks = {gate: (BLACK, mark) for gate, mark in _ANCHORS.items()}
    for number, gate in enumerate(others):
        looks[gate] = (COLOURS[number % len(COLOURS)], _MARKS[number // len(COLOURS) % len(_MARKS)])
    return looks


def _panel(axes: Any, rows: list[SchemeRow], looks: dict[str, tuple[str, str]]) -> None:
    gates: dict[str, list[SchemeRow]] = {}
    for row in rows:
        gates.setdefault(row.scheme.partition(" ")[0], []).append(row)
    for gate, found in gates.items():
        colour, mark = looks[gate]
        halves = [interval(row.values(performance)) or 0.0 for row in found]
        axes.errorbar(
            [row.mean(flops) for row in found],
            [row.mean(performance) for row in found],
            yerr=halves if any(halves) else None,
            color=colour,
            marker=mark,
            ms=3,
            lw=0,
            elinewidth=0.6,
            label=gate,
        )
    _cut(axes, gates, looks)
    front = sorted((row.mean(flops), row.mean(performance)) for row in rows if on_front(row, rows))
    axes.plot([x for x, _ in front], [y for _, y in front], color="#999999", lw=0.8, zorder=0)
    better = "" if rows[0].runs[0]["metric"]["higher_is_better"] else " (lower is better)"
    label(axes, rows[0].title, "FLOPs per token", f"{rows[0].metric}{better}")
    axes.xaxis.get_offset_text().set_fontsize(6)
    lines_only(axes)


def _cut(axes: Any, gates: Mapping[str, list[SchemeRow]], looks: Mapping[str, tuple[str, str]]) -> None:
    """Leave out what is worse than the quartiles by three times their distance: its mark is at the edge."""
    points = [(gate, row.mean(flops), row.mean(performance) or 0.0) for gate in gates for row in gates[gate]]
    values = [value for _, _, value in points]
    if len(values) < _FEW:
        return
    first, _, third = statistics.quantiles(values, n=4)
    reach = _REACH * (third - first)
    low, high = min(values), max(values)
    if next(iter(gates.values()))[0].runs[0]["metric"]["higher_is_better"]:
        low = min(value for value in values if value >= first - reach)
    else:
        high = max(value for value in values if value <= third + reach)
    beyond = [point for point in points if not low <= point[2] <= high]
    if not beyond:
        return
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    for gate, x, value in beyond:
        colour, mark = looks[gate]
        edge = low - margin if value < low else high + margin
        axes.plot(x, edge, color=colour, marker=mark, ms=3, mfc="none", lw=0, clip_on=False)
