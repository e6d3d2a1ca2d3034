"""Quality against FLOPs per token, for the schemes of Table 3."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.numbers import METRIC_TITLES
from repro.report.schemes import STUDY, tasks_in_order, title
from repro.report.statistics import interval
from repro.report.style import MARKERS, SCHEMES, UNNAMED, count_operations, label, legend, lines_only, panels
from repro.results.published import Published
from repro.results.run import Metric, RunResult

FILE = "pareto"
TITLE = "Quality against forward FLOPs per token, by scheme"
SEE = "Up and left is better (down where lower is better); bars that overlap do not tell schemes apart."


class Point(NamedTuple):
    """Means over the runs of one scheme."""

    flops: float
    """Per token."""
    quality: float
    half: float | None
    """Half width of the quality's 95 % interval over seeds."""
    metric: Metric
    """Of the first run."""


def draw(published: Published) -> Figure | None:
    """Draw a panel for each task, a point for each scheme; bars are 95 % intervals over seeds."""
    tasks = {
        task: {scheme: point for scheme, runs in schemes.items() if (point := mean_point(runs))}
        for task, schemes in published.of_study(STUDY).items()
    }
    tasks = {task: schemes for task, schemes in tasks.items() if schemes}
    if not tasks:
        return None
    figure, axes = panels(len(tasks), 2)
    for panel, task in zip(axes, tasks_in_order(tasks), strict=True):
        _panel(panel, task, tasks[task])
    legend(figure)
    return figure


def mean_point(runs: Sequence[RunResult]) -> Point | None:
    """Average over the runs that have a quality and FLOPs; None if there are none."""
    measured = [
        (run.flops.per_token, run.metric.value)
        for run in runs
        if run.flops.per_token is not None and run.metric.value is not None
    ]
    if not measured:
        return None
    flops, qualities = zip(*measured, strict=True)
    return Point(fmean(flops), fmean(qualities), interval(qualities), runs[0].metric)


def _panel(axes: Axes, task: str, schemes: Mapping[str, Point]) -> None:
    for scheme, point in schemes.items():
        axes.errorbar(
            [point.flops],
            [point.quality],
            yerr=None if point.half is None else [point.half],
            color=SCHEMES.get(scheme, UNNAMED),
            marker=MARKERS.get(scheme, "v"),
            ms=4,
            lw=0,
            elinewidth=0.8,
            label=scheme,
        )
    metric = next(iter(schemes.values())).metric
    better = "" if metric.higher_is_better else "\n(lower is better)"
    label(axes, title(task), "FLOPs per token", f"{METRIC_TITLES.get(metric.name, metric.name)}{better}")
    count_operations(axes)
    axes.margins(x=0.15)
    lines_only(axes)
