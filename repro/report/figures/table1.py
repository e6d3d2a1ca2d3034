"""Time of one MoE layer against its computation (Table 1)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import paper
from repro.report.statistics import rounded
from repro.report.style import BLACK, COLOURS, FAINT, WIDE, WIDTH, label, legend, lines_only, panels
from repro.report.tables.table1 import FLOOR, RIVAL, LayerTime, layer_times
from repro.results.bench import BenchCase
from repro.results.published import Published

FILE = "table1"
TITLE = "Time of one MoE layer against its computation, both relative to two experts for every token"
SEE = (
    "On the grey diagonal all of the computation saved is time saved, above it part of that is lost;"
    " the stars are what the paper measured."
)
_FEW = 2
"""Numbers of tokens that fit into half a page."""
_Looks: TypeAlias = Mapping[str, tuple[str, str]]
"""Implementation -> colour and line."""


class Kind(NamedTuple):
    """A row of panels."""

    d_model: int
    d_hidden: int
    experts: int
    precision: str


def draw(published: Published) -> Figure | None:
    """Draw a grid with equal axes: a row for each layer and precision, a column for each number of tokens.

    A line is an implementation. Time is forward and backward. On the grey line it falls as computation does;
    stars are the paper's. What was not measured is an empty place.
    """
    cases: dict[tuple[Kind, int], list[LayerTime]] = {}
    for one in layer_times(published):
        cases.setdefault((_kind(one.case), one.case.tokens), []).append(one)
    if not cases:
        return None
    measured = [one for of_case in cases.values() for one in of_case]
    looks = _looks(dict.fromkeys(one.timing.implementation for one in measured))
    times = [rounded(one.time) for one in measured]
    limits = min(0.5, *times) - 0.05, max(1.0, *times) + 0.05
    kinds, sizes = sorted({kind for kind, _ in cases}), sorted({tokens for _, tokens in cases})
    is_wide = len(sizes) > _FEW
    figure, axes = panels(
        len(kinds) * len(sizes), len(sizes), row_height=1.15, rest=0.7, width=WIDE if is_wide else WIDTH
    )
    places = [(kind, tokens) for kind in kinds for tokens in sizes]
    several = len({kind.experts for kind in kinds}) > 1
    for panel, (kind, tokens) in zip(axes, places, strict=True):
        if (kind, tokens) not in cases:
            panel.set_axis_off()
            continue
        _panel(panel, cases[kind, tokens], looks)
        is_last = not any((other, tokens) in cases for other in kinds[kinds.index(kind) + 1 :])
        is_first = not any((kind, fewer) in cases for fewer in sizes[: sizes.index(tokens)])
        title = f"{kind.d_model}/{kind.d_hidden}{f' x {kind.experts}' if several else ''}, {kind.precision}"
        label(
            panel,
            f"{title}\n{tokens} tokens",
            "computation" if is_last else "",
            "time" if is_first else "",
        )
        panel.set_ylim(limits)
        lines_only(panel)
    legend(figure, columns=5 if is_wide else 2)
    return figure


def _kind(case: BenchCase) -> Kind:
    return Kind(case.d_model, case.d_hidden, case.experts, case.precision)


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
