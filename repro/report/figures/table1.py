"""Time of one MoE layer against its computation (Table 1)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import paper
from repro.report.statistics import rounded
from repro.report.style import BLACK, COLOURS, FAINT, label, legend, lines_only, panels
from repro.report.tables.table1 import FLOOR, RIVAL, LayerTime, layer_times
from repro.results.bench import BenchCase
from repro.results.published import Published

FILE = "table1"
TITLE = "Time of one MoE layer against its computation, both relative to two experts for every token"
_Looks: TypeAlias = Mapping[str, tuple[str, str]]
"""Implementation -> colour and line."""


def draw(published: Published) -> Figure | None:
    """Draw a panel for each case, two side by side with equal axes; a line for each implementation.

    Time is forward and backward. On the grey line it falls as computation does; stars are the paper's.
    """
    measured = list(layer_times(published))
    if not measured:
        return None
    cases: dict[tuple[str, int, int, str], list[LayerTime]] = {}
    for one in measured:
        cases.setdefault(one.case.key, []).append(one)
    looks = _looks(dict.fromkeys(one.timing.implementation for one in measured))
    times = [rounded(one.time) for one in measured]
    limits = min(0.5, *times) - 0.05, max(1.0, *times) + 0.05
    figure, axes = panels(len(cases), min(2, len(cases)), row_height=1.6, rest=0.9)
    for panel, of_case in zip(axes, cases.values(), strict=True):
        _panel(panel, of_case, looks)
        panel.set_ylim(limits)
    legend(figure, columns=2)
    return figure


def _looks(names: Iterable[str]) -> _Looks:
    """Colour and line of each implementation: ours solid, rivals dashed, the floor black and dotted."""
    looks = {FLOOR: (BLACK, ":")}
    for number, name in enumerate(name for name in names if name != FLOOR):
        looks[name] = (COLOURS[number % len(COLOURS)], "--" if name.startswith(RIVAL) else "-")
    return looks


def _panel(axes: Axes, measured: Sequence[LayerTime], looks: _Looks) -> None:
    axes.plot([0.5, 1], [0.5, 1], color=FAINT, lw=0.6, zorder=0, label="time = computation")
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in measured:
        point = rounded(one.computation), rounded(one.time)
        lines.setdefault(one.timing.implementation, []).append(point)
    for name, points in lines.items():
        colour, line = looks[name]
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, color=colour, ls=line, lw=0.8, marker="o", ms=2, label=name)
    printed = paper.tables()["table1"]
    axes.plot(printed["computation"], printed["layer_time"], "*", color=BLACK, ms=4, label="paper")
    label(axes, _title(measured[0].case), "computation", "time")
    lines_only(axes)


def _title(case: BenchCase) -> str:
    layer = f"{case.d_model}/{case.d_hidden}, {case.experts} experts"
    return f"{layer}\n{case.tokens} tokens, {case.precision}"
