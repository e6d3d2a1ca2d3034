"""What stands behind Table 3: seeds, intervals, time per step, shares, memory, the paper's values."""

from repro import paper
from repro.report.differences import difference_cells, difference_columns
from repro.report.origin import ORIGIN
from repro.report.schemes import (
    SchemeRow,
    cpu_steal_fraction,
    eval_loss,
    final_loss,
    flops,
    mean_experts,
    performance,
    performance_top_1,
    reasons,
    scheme_rows,
    seconds_per_step,
    share_multi_expert,
    share_multi_expert_eval,
)
from repro.report.statistics import interval, mean, rounded, whole
from repro.report.tables.base import Row
from repro.report.times import TIME_COLUMNS, time_cells, time_interval
from repro.results.published import Published

FILE = "table3_detail.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Scheme",
    "Seeds",
    *TIME_COLUMNS,
    "Norm. Training Time (paper)",
    "Target loss",
    "Final loss",
    "Reason for empty cells",
    "Train seconds",
    "Seconds per step",
    "Seconds per step interval",
    "Tokens per second",
    "Stolen share",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    *difference_columns("Inference Performance"),
    "Inference Performance (trivial)",
    "Inference Performance (top-1 gate)",
    "Inference Performance (paper)",
    "Validation loss",
    *difference_columns("Validation loss"),
    "FLOPs per token",
    "FLOPs per token executed",
    "MACs per token",
    "Norm. FLOPs",
    "Norm. FLOPs (paper)",
    "Computation FLOPs (paper)",
    "Share two experts",
    "Share two experts at evaluation",
    "Share two experts (paper)",
    "Mean experts",
    "Peak memory bytes",
    "Parameters",
    "Active parameters",
    "Steps",
    "Tokens",
    "Examples",
    *ORIGIN,
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task and scheme. Intervals are half widths, 95 %, over seeds.

    Differences are paired: each run against the baseline's of its seed.
    """
    return [_row(row) for row in scheme_rows(published)]


def shown(published: Published) -> list[Row]:
    """Derive ours and the paper's side by side, with units and 95 % intervals; ratios are to top-2."""
    return [_shown(row) for row in scheme_rows(published)]


def notes(published: Published) -> list[str]:
    """Say in one line each why a cell is empty, and what disturbed the times."""
    return reasons(scheme_rows(published))


def _shown(row: SchemeRow) -> Row:
    qualities, share = row.values(performance), row.mean(share_multi_expert)
    return {
        "Task": row.title,
        "Scheme": row.scheme,
        "Time to top-2's loss": _time(row),
        "95 % interval": time_interval(row),
        "(paper)": _ratio(row.paper.get("time")),
        "FLOPs": _ratio(row.relative_to_baseline(flops)),
        "(paper) ": _ratio(_norm_flops_paper(row)),
        "Metric": row.metric,
        "Quality": mean(qualities),
        "±": rounded(interval(qualities), 2),
        "(paper)  ": row.paper.get("performance"),
        "Two experts": None if share is None else f"{share:.0%}",
        "Runs": row.run_ids or None,
    }


def _time(row: SchemeRow) -> str | None:
    """Format the ratio of times, or its bound."""
    value = row.norm_time
    return value if value is None or isinstance(value, str) else f"{value:.2f} times"


def _ratio(value: float | None) -> str | None:
    return None if value is None else f"{rounded(value):.2f}"


def _norm_flops_paper(row: SchemeRow) -> float | None:
    mine, base = row.paper.get("flops"), row.paper_baseline.get("flops")
    return mine / base if mine and base else None


def _row(row: SchemeRow) -> Row:
    step_seconds = row.values(seconds_per_step)
    qualities = row.values(performance)
    shares_paper: dict[str, float] = paper.tables()["share_two"]
    share_paper = shares_paper.get(row.task) if row.scheme == "adaptive" else None
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Scheme": row.scheme,
        "Seeds": row.seeds,
        **time_cells(row),
        "Norm. Training Time (paper)": row.paper.get("time"),
        "Target loss": rounded(row.target, 6),
        "Final loss": rounded(row.mean(final_loss), 6),
        "Reason for empty cells": row.reason,
        "Train seconds": rounded(row.mean(lambda run: run.train_seconds)),
        "Seconds per step": rounded(mean(step_seconds)),
        "Seconds per step interval": rounded(interval(step_seconds), 2),
        "Tokens per second": rounded(row.mean(lambda run: run.tokens_per_second)),
        "Stolen share": rounded(row.mean(cpu_steal_fraction)),
        "Inference Performance": rounded(mean(qualities)),
        "Inference Performance interval": rounded(interval(qualities), 2),
        "Inference Performance by seed": row.by_seed(performance),
        **difference_cells(row, "Inference Performance", performance),
        "Inference Performance (trivial)": rounded(row.mean(lambda run: run.metric_trivial)),
        "Inference Performance (top-1 gate)": rounded(row.mean(performance_top_1)),
        "Inference Performance (paper)": row.paper.get("performance"),
        "Validation loss": rounded(row.mean(eval_loss), 6),
        **difference_cells(row, "Validation loss", eval_loss),
        "FLOPs per token": rounded(row.mean(flops)),
        "FLOPs per token executed": rounded(row.mean(lambda run: run.flops.per_token_executed)),
        "MACs per token": rounded(row.mean(lambda run: run.flops.macs_per_token)),
        "Norm. FLOPs": rounded(row.relative_to_baseline(flops)),
        "Norm. FLOPs (paper)": rounded(_norm_flops_paper(row)),
        "Computation FLOPs (paper)": row.paper.get("flops"),
        "Share two experts": rounded(row.mean(share_multi_expert)),
        "Share two experts at evaluation": rounded(row.mean(share_multi_expert_eval)),
        "Share two experts (paper)": share_paper,
        "Mean experts": rounded(row.mean(mean_experts)),
        "Peak memory bytes": whole(row.mean(lambda run: run.peak_memory_bytes)),
        "Parameters": whole(row.mean(lambda run: run.parameters.total)),
        "Active parameters": whole(row.mean(lambda run: run.parameters.active)),
        "Steps": " ".join(str(run.steps) for run in row.runs),
        "Tokens": whole(row.mean(lambda run: run.tokens)),
        "Examples": whole(row.mean(lambda run: run.metric.count)),
        **row.origin,
        "Runs": row.run_ids,
    }
