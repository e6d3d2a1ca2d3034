"""What stands behind Table 5: every threshold that was run, seeds, shares, FLOPs, the paper's values."""

from typing import Any

from repro.records import Published
from repro.tables._schemes import (
    SchemeRow,
    flops,
    performance,
    reasons,
    scheme_rows,
    seconds_per_step,
    share_several,
    spaced,
)
from repro.tables._statistics import interval, rounded
from repro.tables._threshold import STUDY, printed

FILE = "table5_detail.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Threshold",
    "Seeds",
    "Norm. Training Time",
    "Norm. Training Time (paper)",
    "Norm. time per step",
    "Norm. FLOPs",
    "Share two experts",
    "Share two experts at evaluation",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Inference Performance (paper)",
    "Final loss",
    "Target loss",
    "Reason for empty cells",
    "Runs",
)


def rows(published: Published) -> list[dict[str, Any]]:
    """One row per task and threshold, and top-2 as the baseline. Intervals: half widths, 95 %, over seeds."""
    return [_row(row) for row in scheme_rows(published, STUDY)]


def shown(published: Published) -> list[dict[str, Any]]:
    """The same for a terminal, ours and the paper's side by side."""
    return [
        {
            "Task": row.title,
            "T": row.scheme,
            "Two": row.mean(share_several("routing")),
            "Time": row.norm_time,
            "(paper)": printed(row.task, row.scheme, "time"),
            "FLOPs": row.against_baseline(flops),
            "Metric": row.metric,
            "Value": row.mean(performance),
            "(paper) ": printed(row.task, row.scheme, "performance"),
        }
        for row in scheme_rows(published, STUDY)
    ]


def notes(published: Published) -> list[str]:
    """One line for every cell that is empty."""
    return reasons(scheme_rows(published, STUDY))


def _row(row: SchemeRow) -> dict[str, Any]:
    qualities = row.values(performance)
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Threshold": row.scheme,
        "Seeds": " ".join(str(run["seed"]) for run in row.runs),
        "Norm. Training Time": rounded(row.norm_time),
        "Norm. Training Time (paper)": printed(row.task, row.scheme, "time"),
        "Norm. time per step": rounded(row.against_baseline(seconds_per_step)),
        "Norm. FLOPs": rounded(row.against_baseline(flops)),
        "Share two experts": rounded(row.mean(share_several("routing"))),
        "Share two experts at evaluation": rounded(row.mean(share_several("routing_eval"))),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(qualities), 2),
        "Inference Performance by seed": spaced(performance(run) for run in row.runs),
        "Inference Performance (paper)": printed(row.task, row.scheme, "performance"),
        "Final loss": rounded(row.mean(lambda run: run["curve"][-1][2]), 6),
        "Target loss": rounded(row.target, 6),
        "Reason for empty cells": row.reason,
        "Runs": " ".join(run["run_id"] for run in row.runs),
    }
