"""What stands behind Table 3: seeds, intervals, time per step, shares, memory, the paper's values."""

from repro import paper
from repro.report.schemes import (
    SchemeRow,
    cpu_steal_fraction,
    final_loss,
    flops,
    mean_experts,
    performance,
    performance_top_1,
    scheme_rows,
    seconds_per_step,
    share_multi_expert,
    share_multi_expert_eval,
    spaced,
)
from repro.report.statistics import interval, mean, rounded, whole
from repro.report.tables.base import Row
from repro.results.published import Published

FILE = "table3_detail.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Scheme",
    "Seeds",
    "Norm. Training Time",
    "Norm. Training Time by seed",
    "Norm. Training Time at median steps",
    "Norm. Training Time (paper)",
    "Target loss",
    "Seconds to target",
    "Final loss",
    "Reason for empty cells",
    "Train seconds",
    "Seconds per step",
    "Seconds per step interval",
    "Norm. time per step",
    "Tokens per second",
    "Stolen share",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Inference Performance (top-1 gate)",
    "Inference Performance (paper)",
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
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task and scheme. Intervals are half widths, 95 %, over seeds."""
    return [_row(row) for row in scheme_rows(published)]


def _row(row: SchemeRow) -> Row:
    step_seconds = row.values(seconds_per_step)
    qualities = row.values(performance)
    paper_flops, paper_base = row.paper.get("flops"), row.paper_baseline.get("flops")
    shares_paper: dict[str, float] = paper.tables()["share_two"]
    share_paper = shares_paper.get(row.task) if row.scheme == "adaptive" else None
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Scheme": row.scheme,
        "Seeds": row.seeds,
        "Norm. Training Time": rounded(row.norm_time),
        "Norm. Training Time by seed": spaced(row.norm_time_by_seed),
        "Norm. Training Time at median steps": rounded(row.norm_time_at_median_steps),
        "Norm. Training Time (paper)": row.paper.get("time"),
        "Target loss": rounded(row.target, 6),
        "Seconds to target": rounded(row.seconds_to_target),
        "Final loss": rounded(row.mean(final_loss), 6),
        "Reason for empty cells": row.reason,
        "Train seconds": rounded(row.mean(lambda run: run.train_seconds)),
        "Seconds per step": rounded(mean(step_seconds)),
        "Seconds per step interval": rounded(interval(step_seconds), 2),
        "Norm. time per step": rounded(row.relative_to_baseline(seconds_per_step)),
        "Tokens per second": rounded(row.mean(lambda run: run.tokens_per_second)),
        "Stolen share": rounded(row.mean(cpu_steal_fraction)),
        "Inference Performance": rounded(mean(qualities)),
        "Inference Performance interval": rounded(interval(qualities), 2),
        "Inference Performance by seed": row.by_seed(performance),
        "Inference Performance (top-1 gate)": rounded(row.mean(performance_top_1)),
        "Inference Performance (paper)": row.paper.get("performance"),
        "FLOPs per token": rounded(row.mean(flops)),
        "FLOPs per token executed": rounded(row.mean(lambda run: run.flops.per_token_executed)),
        "MACs per token": rounded(row.mean(lambda run: run.flops.macs_per_token)),
        "Norm. FLOPs": rounded(row.relative_to_baseline(flops)),
        "Norm. FLOPs (paper)": rounded(paper_flops / paper_base if paper_flops and paper_base else None),
        "Computation FLOPs (paper)": paper_flops,
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
        "Runs": row.run_ids,
    }
