"""What stands behind Table 6: all orders, two back-ends, steps and time per step, what orders rest upon."""

from typing import Literal

from repro import paper
from repro.report.curriculum import (
    OrderRow,
    cell,
    difference,
    inflation,
    inflation_of_steps,
    inflation_per_step,
    noise_floor,
    orders,
)
from repro.report.origin import ORIGIN
from repro.report.schemes import final_loss, performance, reasons, share_multi_expert
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
    "Inflation of steps",
    "Inflation per step",
    "Noise floor per step",
    "Executed FLOPs per routed",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Inference Performance difference",
    "Inference Performance difference (paper)",
    "Share two experts",
    "Correlation of length and ratio",
    "Correlation of length and count",
    "Correlation of place and ratio",
    "Final loss",
    "Target loss",
    "Reason for empty cells",
    *ORIGIN,
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task, order and back-end; inflations are against the curriculum on that back-end.

    Correlations are Spearman's, over the training samples: of the last epoch a sample's length with its share
    and with its number of two-expert tokens; of the ordered epochs its place in the order with that share.
    """
    compared = orders(published)
    return [_row(row, noise_floor(row, compared)) for row in compared]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns."""
    compared = orders(published)
    return [
        {
            "Task": row.title,
            "Order": row.scheme,
            "Infl.": cell(row, inflation(row), 2),
            "(paper)": _printed(row, "time_inflation"),
            "/step": rounded(inflation_per_step(row), 2),
            "noise": rounded(noise_floor(row, compared), 2),
            "Value": row.mean(performance),
            "diff.": rounded(difference(row), 2),
            "(paper) ": _printed(row, "performance_difference"),
        }
        for row in compared
    ]


def notes(published: Published) -> list[str]:
    """Say in one line each why a cell is empty, what disturbed the times, and how noisy they are."""
    compared = orders(published)
    floors = {
        f"{row.title} ({row.backend}) {rounded(floor, 2):g}": None
        for row in compared
        if (floor := noise_floor(row, compared)) is not None
    }
    if not floors:
        return reasons(compared)
    spread = f"in the first epoch, the same work for all orders, times a step differ by {', '.join(floors)}"
    return [*reasons(compared), f"noise floor of a time per step: {spread}"]


def _row(row: OrderRow, floor: float | None) -> Row:
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Order": row.order,
        "Back-end": row.backend,
        "Seeds": row.seeds,
        "Training Time Inflation": cell(row, inflation(row)),
        "Training Time Inflation (paper)": _printed(row, "time_inflation"),
        "Inflation of steps": cell(row, inflation_of_steps(row)),
        "Inflation per step": rounded(inflation_per_step(row)),
        "Noise floor per step": rounded(floor),
        "Executed FLOPs per routed": rounded(row.mean(_executed)),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(row.values(performance)), 2),
        "Inference Performance by seed": row.by_seed(performance),
        "Inference Performance difference": rounded(difference(row)),
        "Inference Performance difference (paper)": _printed(row, "performance_difference"),
        "Share two experts": rounded(row.mean(share_multi_expert)),
        "Correlation of length and ratio": rounded(row.mean(_length_ratio)),
        "Correlation of length and count": rounded(row.mean(_length_count)),
        "Correlation of place and ratio": rounded(row.mean(_place_ratio)),
        "Final loss": rounded(row.mean(final_loss), 6),
        "Target loss": rounded(row.target, 6),
        "Reason for empty cells": row.reason,
        **row.origin,
        "Runs": row.run_ids,
    }


def _printed(row: OrderRow, column: Literal["time_inflation", "performance_difference"]) -> float | None:
    """Return the paper's number, which is of random order."""
    values: dict[str, float] = paper.tables()["table6"][column]
    return values.get(row.task) if row.scheme == "random" else None


def _executed(run: RunResult) -> float | None:
    routed, executed = run.flops.per_token, run.flops.per_token_executed
    return executed / routed if executed is not None and routed else None


def _length_ratio(run: RunResult) -> float | None:
    return run.curriculum.length_ratio_correlation if run.curriculum else None


def _length_count(run: RunResult) -> float | None:
    return run.curriculum.length_count_correlation if run.curriculum else None


def _place_ratio(run: RunResult) -> float | None:
    return run.curriculum.place_ratio_correlation if run.curriculum else None
