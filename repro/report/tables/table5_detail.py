"""What stands behind Table 5: every threshold that was run, seeds, shares, FLOPs, the paper's values."""

from repro.report.differences import difference_cells, difference_columns
from repro.report.origin import ORIGIN
from repro.report.schemes import (
    SchemeRow,
    final_loss,
    flops,
    performance,
    reasons,
    scheme_rows,
    share_multi_expert,
    share_multi_expert_eval,
)
from repro.report.statistics import interval, rounded
from repro.report.tables.base import Row
from repro.report.threshold import STUDY, printed
from repro.report.times import TIME_COLUMNS, time_cells, time_interval
from repro.results.published import Published

FILE = "table5_detail.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Threshold",
    "Seeds",
    *TIME_COLUMNS,
    "Norm. Training Time (paper)",
    "Norm. FLOPs",
    "Share two experts",
    "Share two experts at evaluation",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    *difference_columns("Inference Performance"),
    "Inference Performance (paper)",
    "Final loss",
    "Target loss",
    "Reason for empty cells",
    *ORIGIN,
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task and threshold, and top-2. Intervals are half widths, 95 %, over seeds."""
    return [_row(row) for row in scheme_rows(published, STUDY)]


def shown(published: Published) -> list[Row]:
    """Derive ours and the paper's side by side."""
    return [
        {
            "Task": row.title,
            "T": row.scheme,
            "Two": row.mean(share_multi_expert),
            "Time": row.norm_time,
            "95 %": time_interval(row),
            "(paper)": printed(row.task, row.scheme, "time"),
            "FLOPs": row.relative_to_baseline(flops),
            "Metric": row.metric,
            "Value": row.mean(performance),
            "(paper) ": printed(row.task, row.scheme, "performance"),
        }
        for row in scheme_rows(published, STUDY)
    ]


def notes(published: Published) -> list[str]:
    """Say in one line each why a cell is empty, and what disturbed the times."""
    return reasons(scheme_rows(published, STUDY))


def _row(row: SchemeRow) -> Row:
    qualities = row.values(performance)
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Threshold": row.scheme,
        "Seeds": row.seeds,
        **time_cells(row),
        "Norm. Training Time (paper)": printed(row.task, row.scheme, "time"),
        "Norm. FLOPs": rounded(row.relative_to_baseline(flops)),
        "Share two experts": rounded(row.mean(share_multi_expert)),
        "Share two experts at evaluation": rounded(row.mean(share_multi_expert_eval)),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(qualities), 2),
        "Inference Performance by seed": row.by_seed(performance),
        **difference_cells(row, "Inference Performance", performance),
        "Inference Performance (paper)": printed(row.task, row.scheme, "performance"),
        "Final loss": rounded(row.mean(final_loss), 6),
        "Target loss": rounded(row.target, 6),
        "Reason for empty cells": row.reason,
        **row.origin,
        "Runs": row.run_ids,
    }
