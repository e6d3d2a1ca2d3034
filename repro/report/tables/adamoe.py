"""AdaMoE's headline: a top-2 model trained on with null experts, against the same trained on plainly."""

from typing import Literal

from repro import paper
from repro.report.adamoe import flops_eval, flops_saved, gains, model, schemes
from repro.report.origin import ORIGIN, mixtures
from repro.report.schemes import SchemeRow, mean_experts, mean_experts_eval, performance
from repro.report.statistics import detectable, interval, mean, rounded
from repro.report.tables.base import Row
from repro.results.published import Published

_OWN = ("mixtral",)
"""Families whose experts are their own; those of others were made of one network."""
FILE = "adamoe.csv"
COLUMNS = (
    "Task",
    "Model",
    "Metric",
    "Scheme",
    "Seeds",
    "Mean experts",
    "Mean experts at evaluation",
    "FLOPs per token at evaluation",
    "FLOPs saved",
    "FLOPs saved interval",
    "FLOPs saved (paper)",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Gain",
    "Gain interval",
    "Gain smallest effect",
    "Gain (paper)",
    "Reason for empty cells",
    *ORIGIN,
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task and variant; FLOPs saved and points gained against `plain`, seed by seed.

    The paper beside them is AdaMoE's, which has one number of each kind, on a task of its own.
    """
    return [_row(row) for row in schemes(published)]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns."""
    return [
        {
            "Task": row.title,
            "Scheme": row.scheme,
            "Experts": row.mean(mean_experts_eval),
            "FLOPs saved": _short(mean(flops_saved(row)), 3),
            "(paper)": _printed(row, "flops_saved"),
            "Metric": row.metric,
            "Value": row.mean(performance),
            "Gain": _short(mean(gains(row)), 2),
            "(paper) ": _printed(row, "gain"),
        }
        for row in schemes(published)
    ]


def notes(published: Published) -> list[str]:
    """Say what the paper's numbers are, and one line for every row with an empty cell or a missing run."""
    compared = schemes(published)
    if not compared:
        return []
    empty = [f"{row.title}, {row.scheme}: {reason}" for row in compared if (reason := _reason(row))]
    printed = "(paper): AdaMoE, Mixtral-8x7B on ARC-C; gains are points of the metric"
    families = {row.title: model(row) for row in compared}
    own = [f"{title}: the model is of the family {name}" for title, name in families.items() if name in _OWN]
    mixed = mixtures((row.title, row.runs) for row in compared)
    return [printed, *own, *empty, *mixed]


def _row(row: SchemeRow) -> Row:
    saved, gained = flops_saved(row), gains(row)
    return {
        "Task": row.title,
        "Model": model(row),
        "Metric": row.metric,
        "Scheme": row.scheme,
        "Seeds": row.seeds,
        "Mean experts": rounded(row.mean(mean_experts)),
        "Mean experts at evaluation": rounded(row.mean(mean_experts_eval)),
        "FLOPs per token at evaluation": rounded(row.mean(flops_eval)),
        "FLOPs saved": rounded(mean(saved)),
        "FLOPs saved interval": rounded(interval(saved), 2),
        "FLOPs saved (paper)": _printed(row, "flops_saved"),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(row.values(performance)), 2),
        "Inference Performance by seed": row.by_seed(performance),
        "Gain": rounded(mean(gained)),
        "Gain interval": rounded(interval(gained), 2),
        "Gain smallest effect": rounded(detectable(gained), 2),
        "Gain (paper)": _printed(row, "gain"),
        "Reason for empty cells": _reason(row),
        **row.origin,
        "Runs": row.run_ids,
    }


def _reason(row: SchemeRow) -> str | None:
    """Why cells of a row are empty, or runs of it missing."""
    if row.missing:
        return "; ".join(row.missing)
    if row.mean(performance) is None:
        return f"{row.metric} is not a finite number"
    return None if gains(row) else f"no {row.baseline} run of the same seed to compare with"


def _printed(row: SchemeRow, column: Literal["flops_saved", "gain"]) -> float | None:
    """AdaMoE's own number, for the variant that it is about."""
    value: float | None = paper.tables()["adamoe"][column] if row.scheme == "adamoe" else None
    return value


def _short(value: float | None, places: int) -> float | None:
    """For a narrow column, whose numbers are differences."""
    return None if value is None else round(value, places) + 0.0  # -0.0 would have a sign
