"""Time to reach the loss of the top-2 baseline, which the paper calls training time (4.4)."""

from collections.abc import Sequence
from statistics import fmean
from typing import TypeAlias

from repro.results.records import CurvePoint
from repro.results.run import RunResult

Curve: TypeAlias = Sequence[tuple[float, float]]
"""Points of (training seconds, evaluation loss)."""
Points: TypeAlias = Sequence[CurvePoint]
"""The curve of one run."""


def mean_curve(runs: Sequence[Points]) -> Curve:
    """Average seconds and loss over runs, at each step that all of them measured, and at their ends.

    Runs of one configuration may end some steps apart: batches cut by tokens depend on the order.
    """
    if not runs:
        return []
    by_step = [{point.step: point for point in points[:-1]} for points in runs]
    common = sorted(set.intersection(*map(set, by_step)))
    rows = [[points[step] for points in by_step] for step in common]
    rows.append([points[-1] for points in runs])
    return [
        (fmean(point.train_seconds for point in row), fmean(point.eval_loss for point in row)) for row in rows
    ]


def seconds_to(target: float, curve: Curve) -> float | None:
    """Return the training seconds at which the loss first reaches the target; None if it never does.

    Between two points the running minimum is taken as linear in time.
    """
    best = previous = float("inf")
    start = 0.0
    for seconds, loss in curve:
        previous, best = best, min(best, loss)
        if best <= target:
            if previous == float("inf"):
                return seconds
            return start + (seconds - start) * (previous - target) / (previous - best)
        start = seconds
    return None


def norm_time(runs: Sequence[Points], baseline: Sequence[Points]) -> float | None:
    """Return Norm. Training Time: seconds to the baseline's final loss, over those of the baseline."""
    reference = mean_curve(baseline)
    if not reference:
        return None
    target = reference[-1][1]
    mine, others = seconds_to(target, mean_curve(runs)), seconds_to(target, reference)
    return mine / others if mine is not None and others else None


def at_median_steps(run: RunResult) -> Points:
    """Return the curve as if every step had taken the median time of its run: no disturbed step counts."""
    return [point._replace(train_seconds=point.step * run.seconds_per_step) for point in run.curve]
