"""Pretrained models with fewer experts per token: gates in place of their own top-k, without training."""

from collections.abc import Iterator
from typing import NamedTuple

from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.published import Published
from repro.results.thinning import Thinning, ThinPoint

FILE = "thinning.csv"
COLUMNS = (
    "Model",
    "Task",
    "Split",
    "Gate",
    "Threshold",
    "Experts per token",
    "Share two experts",
    "FLOPs per token",
    "FLOPs against own",
    "Metric",
    "Performance",
    "Performance - own",
    "Loss",
    "Loss - own",
    "Examples",
    "Precision",
    "Processor",
    "Code",
)


class _Measured(NamedTuple):
    curve: Thinning
    point: ThinPoint


def _measured(published: Published) -> Iterator[_Measured]:
    """Each model with its own gate first, then the others from the fewest experts per token on."""
    for curve in published.thinnings:
        yield _Measured(curve, curve.own)
        yield from (_Measured(curve, point) for point in sorted(curve.points, key=_experts))


def _experts(point: ThinPoint) -> float:
    return point.routing.mean_experts or 0.0


def rows(published: Published) -> list[Row]:
    """Derive one row per model, task, split and gate; differences are to the model's own top-k."""
    return [_row(one) for one in _measured(published)]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns; notes name the metric."""
    return [
        {
            "Model": _name(one.curve),
            "Task": one.curve.task,
            "Gate": "own top-k" if one.point is one.curve.own else one.point.gate,
            "T": None if one.point is one.curve.own else one.point.threshold,
            "Experts": row["Experts per token"],
            "FLOPs": row["FLOPs against own"],
            "Ours": row["Performance"],
            "- own": row["Performance - own"],
            "Loss": row["Loss"],
        }
        for one, row in zip(_measured(published), rows(published), strict=True)
    ]


def notes(published: Published) -> list[str]:
    """Say for each model and task how far its experts can be thinned before the metric is worse."""
    return [_free(curve) for curve in published.thinnings]


def _free(curve: Thinning) -> str:
    what = f"{_name(curve)}, {curve.task}"
    fewer = [point for point in curve.points if _experts(point) < _experts(curve.own)]
    no_worse = [point for point in fewer if _gain(curve, point) >= 0]
    if not no_worse:
        return f"{what}: {curve.own.metric.name} is worse with every gate that gives fewer experts."
    fewest = min(no_worse, key=_experts)
    at = "" if fewest.threshold is None else f" at T = {fewest.threshold:g}"
    return (
        f"{what}: {curve.own.metric.name} is no worse down to {_experts(fewest):.2f} experts per token"
        f" ({fewest.gate}{at}); one evaluation, no interval."
    )


def _gain(curve: Thinning, point: ThinPoint) -> float:
    """Return how much better a metric is than with the model's own gate; worse where there is no number."""
    value, own = point.metric.value, curve.own.metric.value
    if value is None or own is None:
        return float("-inf")
    return value - own if curve.own.metric.higher_is_better else own - value


def _name(curve: Thinning) -> str:
    """Return the name of a model: of a folder without the fingerprint."""
    return curve.model.split(":")[1] if curve.model.startswith("dir:") else curve.model


def _row(one: _Measured) -> Row:
    curve, point = one
    flops, own_flops = point.flops.per_token, curve.own.flops.per_token
    value, own = point.metric.value, curve.own.metric.value
    return {
        "Model": _name(curve),
        "Task": curve.task,
        "Split": curve.split,
        "Gate": point.gate,
        "Threshold": point.threshold,
        "Experts per token": rounded(point.routing.mean_experts),
        "Share two experts": rounded(point.routing.share_multi_expert),
        "FLOPs per token": rounded(flops),
        "FLOPs against own": rounded(flops / own_flops) if flops and own_flops else None,
        "Metric": point.metric.name,
        "Performance": rounded(value),
        "Performance - own": None if value is None or own is None else rounded(value - own),
        "Loss": rounded(point.eval_loss),
        "Loss - own": rounded(point.eval_loss - curve.own.eval_loss),
        "Examples": point.metric.count,
        "Precision": curve.precision,
        "Processor": curve.environment.processor,
        "Code": curve.environment.code_state,
    }
