"""Evaluation loss against training time and against FLOPs, for the schemes of Table 3."""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure

from repro.report.schemes import STUDY, tasks_in_order, title
from repro.report.style import (
    SCHEMES,
    UNNAMED,
    WIDE,
    WIDTH,
    count_operations,
    label,
    legend,
    lines_only,
    mean_line,
    panels,
)
from repro.results.published import Published
from repro.results.run import RunResult

FILE = "curves"
TITLE = "Evaluation loss against training seconds and against forward FLOPs, by scheme"
SEE = "Where a line comes down to the height at which top-2 ends, that scheme has reached the same loss."


class Point(NamedTuple):
    """A step of the mean curve of several runs."""

    seconds: float
    """Training time, mean over the runs."""
    flops: float
    """Forward FLOPs, mean over the runs."""
    losses: list[float]
    """Evaluation loss of each run."""


def draw(published: Published) -> Figure | None:
    """Draw for each task the loss against seconds on the left, against FLOPs on the right.

    Lines are means over seeds, bands go from the lowest seed to the highest.
    """
    tasks = {
        task: {scheme: curve for scheme, runs in schemes.items() if (curve := mean_curve(runs))}
        for task, schemes in published.of_study(STUDY).items()
    }
    tasks = {task: schemes for task, schemes in tasks.items() if schemes}
    if not tasks:
        return None
    several = len(tasks) > 1
    figure, axes = panels(2 * len(tasks), 4 if several else 2, width=WIDE if several else WIDTH)
    for task, left, right in zip(tasks_in_order(tasks), axes[::2], axes[1::2], strict=True):
        for scheme, curve in tasks[task].items():
            look = {"name": scheme, "colour": SCHEMES.get(scheme, UNNAMED)}
            losses = [point.losses for point in curve]
            mean_line(left, [point.seconds for point in curve], losses, **look)
            mean_line(right, [point.flops for point in curve], losses, **look)
        label(left, title(task), "training time (s)", "evaluation loss")
        label(right, "", "forward FLOPs", "evaluation loss")
        count_operations(right)
        lines_only(left)
        lines_only(right)
    legend(figure)
    return figure


def mean_curve(runs: Sequence[RunResult]) -> list[Point]:
    """Average over runs at each step that all of them measured, and at their ends.

    Runs without FLOPs are left out. FLOPs are those per trained token, as routed, times the tokens up
    to the step.
    """
    curves = [curve for run in runs if (curve := _curve(run))]
    if not curves:
        return []
    by_step = [{point.step: point for point in curve[:-1]} for curve in curves]
    common = sorted(set.intersection(*map(set, by_step)))
    rows = [[points[step] for points in by_step] for step in common]
    rows.append([curve[-1] for curve in curves])
    return [
        Point(
            seconds=fmean(point.seconds for point in row),
            flops=fmean(point.flops for point in row),
            losses=[point.loss for point in row],
        )
        for row in rows
    ]


class _Measured(NamedTuple):
    """A point of one run's curve."""

    step: int
    seconds: float
    flops: float
    loss: float


def _curve(run: RunResult) -> list[_Measured]:
    flops = run.flops.per_token
    if flops is None:
        return []
    per_step = flops * run.tokens / run.steps
    return [_Measured(step, seconds, step * per_step, loss) for step, seconds, loss in run.curve]
