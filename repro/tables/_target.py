"""Time to reach the top-2 baseline's loss: what the paper calls training time (4.4)."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Curve = list[tuple[float, float]]
"""Points of (training seconds, evaluation loss)."""


def mean_curve(results: Sequence[dict[str, Any]]) -> Curve:
    """Seconds and loss at each step that was measured in all runs, and at their ends, means over them.

    Runs of one configuration may end some steps apart: batches cut by tokens depend on the order.
    """
    if not results:
        return []
    by_step = [{step: (seconds, loss) for step, seconds, loss in run["curve"][:-1]} for run in results]
    common = sorted(set.intersection(*(set(points) for points in by_step)))
    rows = [[points[step] for points in by_step] for step in common]
    rows.append([(seconds, loss) for _, seconds, loss in (run["curve"][-1] for run in results)])
    return [(fmean(point[0] for point in row), fmean(point[1] for point in row)) for row in rows]


def seconds_to(target: float, curve: Curve) -> float | None:
    """Training seconds at which the loss first reaches the target; None if it never does.

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


def norm_time(results: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]]) -> float | None:
    """Norm. Training Time: seconds to the baseline's final loss, relative to those of the baseline."""
    reference = mean_curve(baseline)
    if not reference:
        return None
    target = reference[-1][1]
    mine, others = seconds_to(target, mean_curve(results)), seconds_to(target, reference)
    return mine / others if mine is not None and others else None


def steady(result: dict[str, Any]) -> dict[str, Any]:
    """The result as if every step had taken the median time of its run: disturbed steps do not count."""
    seconds = result["seconds_per_step"]
    return result | {"curve": [[step, step * seconds, loss] for step, _, loss in result["curve"]]}
