"""Quality against FLOPs per token, for the schemes of Table 3."""

from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from repro.figures._style import (
    MARKERS,
    SCHEMES,
    finite,
    label,
    legend,
    lines_only,
    panels,
)
from repro.records import Published
from repro.tables._schemes import METRIC_TITLES, tasks_in_order, title
from repro.tables._statistics import interval

FILE = "pareto"
TITLE = "Quality against forward FLOPs per token, by scheme"

Point = tuple[float, float, float | None]
"""FLOPs per token, quality, half width of its 95 % interval over seeds."""


def draw(published: Published) -> Figure | None:
    """A panel for each task, a point for each scheme; bars are 95 % intervals over seeds."""
    tasks: dict[str, dict[str, Point]] = {}
    metrics: dict[str, dict[str, Any]] = {}
    for task, schemes in published.of_study("schemes").items():
        for scheme, runs in schemes.items():
            measured = [
                run for run in runs if finite(run["metric"]["value"]) and finite(run["flops"]["per_token"])
            ]
            if measured:
                tasks.setdefault(task, {})[scheme] = point(measured)
                metrics[task] = measured[0]["metric"]
    if not tasks:
        return None
    rows = (len(tasks) + 1) // 2
    figure, axes = panels(rows, 2)
    for place, task in enumerate(tasks_in_order(tasks)):
        _panel(axes[place // 2, place % 2], task, tasks[task], metrics[task])
    for place in range(len(tasks), 2 * rows):
        axes[place // 2, place % 2].set_axis_off()
    legend(figure, list(axes.flat))
    return figure


def point(runs: list[dict[str, Any]]) -> Point:
    """Means over the runs of one scheme."""
    qualities = [run["metric"]["value"] for run in runs]
    return fmean(run["flops"]["per_token"] for run in runs), fmean(qualities), interval(qualities)


def _panel(axes: Any, task: str, schemes: dict[str, Point], metric: dict[str, Any]) -> None:
    for scheme, (flops, quality, half) in schemes.items():
        axes.errorbar(
            [flops],
            [quality],
            yerr=None if half is None else [half],
            color=SCHEMES.get(scheme, "#777777"),
            marker=MARKERS.get(scheme, "v"),
            ms=4,
            lw=0,
            elinewidth=0.8,
            label=scheme,
        )
    better = "" if metric["higher_is_better"] else " (lower is better)"
    name = METRIC_TITLES.get(metric["name"], metric["name"])
    label(axes, title(task), "FLOPs per token", f"{name}{better}")
    axes.margins(x=0.15)
    axes.xaxis.get_offset_text().set_fontsize(6)
    lines_only(axes)
