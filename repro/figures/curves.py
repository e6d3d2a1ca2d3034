"""Evaluation loss against training time and against FLOPs, for the schemes of Table 3."""

from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from repro.figures._style import SCHEMES, finite, label, legend, lines_only, panels
from repro.records import Published
from repro.tables._schemes import tasks_in_order, title

FILE = "curves"
TITLE = "Evaluation loss against training seconds and against forward FLOPs, by scheme"

Result = dict[str, Any]
Point = tuple[float, float, list[float]]
"""Training seconds and FLOPs, means over the runs, and the runs' losses."""


def draw(published: Published) -> Figure | None:
    """For each task left against seconds, right against FLOPs.

    Lines are means over seeds, bands go from the lowest seed to the highest.
    """
    tasks = {
        task: {scheme: found for scheme, runs in schemes.items() if (found := points(runs))}
        for task, schemes in published.of_study("schemes").items()
    }
    tasks = {task: schemes for task, schemes in tasks.items() if schemes}
    if not tasks:
        return None
    figure, axes = panels(len(tasks), 2)
    for row, task in enumerate(tasks_in_order(tasks)):
        left, right = axes[row]
        for scheme, found in tasks[task].items():
            colour = SCHEMES.get(scheme, "#777777")
            for one, x in (
                (left, [seconds for seconds, _, _ in found]),
                (right, [flops for _, flops, _ in found]),
            ):
                means = [fmean(losses) for _, _, losses in found]
                one.plot(x, means, color=colour, lw=1, label=scheme)
                lows, highs = [min(losses) for *_, losses in found], [max(losses) for *_, losses in found]
                one.fill_between(x, lows, highs, color=colour, alpha=0.2, lw=0)
        label(left, title(task), "training time (s)", "evaluation loss")
        label(right, "", "forward FLOPs", "evaluation loss")
        right.xaxis.get_offset_text().set_fontsize(6)
        for one in (left, right):
            lines_only(one)
    legend(figure, list(axes.flat))
    return figure


def points(runs: list[Result]) -> list[Point]:
    """The steps that all runs of a scheme measured, and their ends; runs without a curve are left out.

    FLOPs are those per trained token, as routed, times the tokens up to the step.
    """
    curves = [_curve(run) for run in runs]
    curves = [curve for curve in curves if curve]
    if not curves:
        return []
    by_step = [{step: rest for step, *rest in curve[:-1]} for curve in curves]
    common = sorted(set.intersection(*(set(steps) for steps in by_step)))
    rows = [[steps[step] for steps in by_step] for step in common]
    rows.append([curve[-1][1:] for curve in curves])
    return [
        (fmean(one[0] for one in row), fmean(one[1] for one in row), [one[2] for one in row]) for row in rows
    ]


def _curve(run: Result) -> list[list[float]]:
    """Rows of step, seconds, FLOPs and loss."""
    flops = run["flops"]["per_token"]
    if not run["steps"] or not finite(flops):
        return []
    per_step = flops * run["tokens"] / run["steps"]
    return [
        [step, seconds, step * per_step, loss]
        for step, seconds, loss in run["curve"]
        if finite(seconds) and finite(loss)
    ]
