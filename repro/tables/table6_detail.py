"""What stands behind Table 6: four orders, two back-ends, time per step, length against two-expert tokens."""

from collections.abc import Callable
from typing import Any

from repro import paper
from repro.records import Published
from repro.tables._curriculum import difference, inflation, orders
from repro.tables._schemes import SchemeRow, performance, reasons, seconds_per_step, share_several, spaced
from repro.tables._statistics import interval, rounded

FILE = "table6_detail.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Order",
    "Back-end",
    "Seeds",
    "Training Time Inflation",
    "Training Time Inflation (paper)",
    "Inflation per step",
    "Executed FLOPs per routed",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Inference Performance difference",
    "Inference Performance difference (paper)",
    "Share two experts",
    "Correlation of length and ratio",
    "Correlation of length and count",
    "Final loss",
    "Target loss",
    "Reason for empty cells",
    "Runs",
)


def rows(published: Published) -> list[dict[str, Any]]:
    """One row per task, order and back-end; inflations are against the curriculum on that back-end.

    Correlations are Spearman's, over the training samples of the last epoch: a sample's length with
    its share, and with its number, of two-expert tokens.
    """
    return [_row(row) for row in orders(published)]


def shown(published: Published) -> list[dict[str, Any]]:
    """The same for a terminal."""
    return [
        {
            "Task": row.title,
            "Order": row.scheme,
            "Infl.": rounded(inflation(row), 2),
            "(paper)": _printed(row, "time_inflation"),
            "/step": rounded(_per_step(row), 2),
            "Value": row.mean(performance),
            "diff.": rounded(difference(row), 2),
            "(paper) ": _printed(row, "performance_difference"),
        }
        for row in orders(published)
    ]


def notes(published: Published) -> list[str]:
    """One line for every cell that is empty."""
    return reasons(orders(published))


def _row(row: SchemeRow) -> dict[str, Any]:
    order, *backend = row.scheme.split()
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Order": order,
        "Back-end": backend[0] if backend else "grouped",
        "Seeds": " ".join(str(run["seed"]) for run in row.runs),
        "Training Time Inflation": rounded(inflation(row)),
        "Training Time Inflation (paper)": _printed(row, "time_inflation"),
        "Inflation per step": rounded(_per_step(row)),
        "Executed FLOPs per routed": rounded(row.mean(_executed)),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(row.values(performance)), 2),
        "Inference Performance by seed": spaced(performance(run) for run in row.runs),
        "Inference Performance difference": rounded(difference(row)),
        "Inference Performance difference (paper)": _printed(row, "performance_difference"),
        "Share two experts": rounded(row.mean(share_several("routing"))),
        "Correlation of length and ratio": rounded(row.mean(_recorded("length_ratio_correlation"))),
        "Correlation of length and count": rounded(row.mean(_recorded("length_count_correlation"))),
        "Final loss": rounded(row.mean(lambda run: run["curve"][-1][2]), 6),
        "Target loss": rounded(row.target, 6),
        "Reason for empty cells": row.reason,
        "Runs": " ".join(run["run_id"] for run in row.runs),
    }


def _printed(row: SchemeRow, what: str) -> float | None:
    """The paper's number, which is of random order."""
    value: float | None = paper.tables()["table6"][what].get(row.task) if row.scheme == "random" else None
    return value


def _per_step(row: SchemeRow) -> float | None:
    ratio = row.against_baseline(seconds_per_step)
    return None if ratio is None else ratio - 1


def _executed(run: dict[str, Any]) -> float | None:
    return float(run["flops"]["per_token_executed"] / run["flops"]["per_token"])


def _recorded(key: str) -> Callable[[dict[str, Any]], float | None]:
    """A value of the run's `curriculum` entry, which older results do not have."""

    def get(run: dict[str, Any]) -> float | None:
        value: float | None = (run.get("curriculum") or {}).get(key)
        return value

    return get
