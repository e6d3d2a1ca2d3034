"""What stands behind Table 6: four orders, two back-ends, time per step, length against two-expert tokens."""

from typing import Literal

from repro import paper
from repro.report.curriculum import difference, inflation, orders
from repro.report.schemes import (
    SchemeRow,
    final_loss,
    performance,
    reasons,
    seconds_per_step,
    share_multi_expert,
)
from repro.report.statistics import interval, rounded
from repro.report.tables.base import Row
from repro.results.published import Published
from repro.results.run import RunResult

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


def rows(published: Published) -> list[Row]:
    """Derive one row per task, order and back-end; inflations are against the curriculum on that back-end.

    Correlations are Spearman's, over the training samples of the last epoch: a sample's length with
    its share, and with its number, of two-expert tokens.
    """
    return [_row(row) for row in orders(published)]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns."""
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
    """Say in one line each why a cell is empty, and what disturbed the times."""
    return reasons(orders(published))


def _row(row: SchemeRow) -> Row:
    order, *backend = row.scheme.split()
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Order": order,
        "Back-end": backend[0] if backend else "grouped",
        "Seeds": row.seeds,
        "Training Time Inflation": rounded(inflation(row)),
        "Training Time Inflation (paper)": _printed(row, "time_inflation"),
        "Inflation per step": rounded(_per_step(row)),
        "Executed FLOPs per routed": rounded(row.mean(_executed)),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(row.values(performance)), 2),
        "Inference Performance by seed": row.by_seed(performance),
        "Inference Performance difference": rounded(difference(row)),
        "Inference Performance difference (paper)": _printed(row, "performance_difference"),
        "Share two experts": rounded(row.mean(share_multi_expert)),
        "Correlation of length and ratio": rounded(row.mean(_length_ratio)),
        "Correlation of length and count": rounded(row.mean(_length_count)),
        "Final loss": rounded(row.mean(final_loss), 6),
        "Target loss": rounded(row.target, 6),
        "Reason for empty cells": row.reason,
        "Runs": row.run_ids,
    }


def _printed(row: SchemeRow, column: Literal["time_inflation", "performance_difference"]) -> float | None:
    """Return the paper's number, which is of random order."""
    values: dict[str, float] = paper.tables()["table6"][column]
    return values.get(row.task) if row.scheme == "random" else None


def _per_step(row: SchemeRow) -> float | None:
    ratio = row.relative_to_baseline(seconds_per_step)
    return None if ratio is None else ratio - 1


def _executed(run: RunResult) -> float | None:
    routed, executed = run.flops.per_token, run.flops.per_token_executed
    return executed / routed if executed is not None and routed else None


def _length_ratio(run: RunResult) -> float | None:
    return run.curriculum.length_ratio_correlation if run.curriculum else None


def _length_count(run: RunResult) -> float | None:
    return run.curriculum.length_count_correlation if run.curriculum else None
