"""Time of one MoE layer against its computation (Table 1)."""

from typing import Any

from matplotlib.figure import Figure

from repro import paper
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
from repro.tables import table1

FILE = "table1"
TITLE = "Time of one MoE layer against its computation, both relative to two experts for every token"

Row = dict[str, Any]


def draw(published: Published) -> Figure | None:
    """A panel for each case, two side by side with equal axes; a line for each implementation.

    Time is forward and backward. On the grey line it falls as computation does; stars are the paper's.
    """
    rows = [row for row in table1.rows(published) if finite(row["Time"])]
    if not rows:
        return None
    cases: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        case = (row["Layer"], row["Experts"], row["Tokens"], row["Precision"])
        cases.setdefault(case, []).append(row)
    looks = _looks(list(dict.fromkeys(row["Implementation"] for row in rows)))
    times = [row["Time"] for row in rows]
    limits = min(0.5, *times) - 0.05, max(1.0, *times) + 0.05
    columns = min(2, len(cases))
    figure, axes = panels(-(-len(cases) // columns), columns, row_height=1.6, rest=0.9)
    for one, found in zip(axes.flat, cases.values(), strict=False):
        _panel(one, found, looks)
        one.set_ylim(limits)
    for one in list(axes.flat)[len(cases) :]:
        one.set_axis_off()
    legend(figure, list(axes.flat), columns=2)
    return figure


def _looks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and line of each implementation: ours solid, rivals dashed, the floor black and dotted."""
    looks = {table1.FLOOR: (BLACK, ":")}
    for number, name in enumerate(name for name in names if name != table1.FLOOR):
        line = "--" if name.startswith(table1.RIVAL) else "-"
        looks[name] = (COLOURS[number % len(COLOURS)], line)
    return looks


def _panel(axes: Any, rows: list[Row], looks: dict[str, tuple[str, str]]) -> None:
    axes.plot([0.5, 1], [0.5, 1], color="#999999", lw=0.6, zorder=0, label="time = computation")
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lines.setdefault(row["Implementation"], []).append((row["Computation"], row["Time"]))
    for name, points in lines.items():
        colour, line = looks[name]
        points.sort()
        x, y = [computation for computation, _ in points], [time for _, time in points]
        axes.plot(x, y, color=colour, ls=line, lw=0.8, marker="o", ms=2, label=name)
    printed = paper.tables()["table1"]
    axes.plot(printed["computation"], printed["layer_time"], "*", color=BLACK, ms=4, label="paper")
    first = rows[0]
    title = f"{first['Layer']}, {first['Experts']} experts\n{first['Tokens']} tokens, {first['Precision']}"
    label(axes, title, "computation", "time")
    lines_only(axes)
