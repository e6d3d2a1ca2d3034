"""Adaptive gates at equal routed FLOPs: quality, FLOPs and who is beaten by nobody cheaper."""

from repro.report.fronts import STUDY, TOLERANCE, budget, misses_budget, on_front, significantly_dominated
from repro.report.origin import ORIGIN, mixtures
from repro.report.schemes import (
    SchemeRow,
    final_loss,
    flops,
    mean_experts,
    mean_experts_eval,
    performance,
    reasons,
    scheme_rows,
    seconds_per_step,
)
from repro.report.statistics import interval, rounded
from repro.report.tables.base import Row
from repro.results.published import Published

FILE = "gates.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Gate",
    "Budget",
    "Seeds",
    "Mean experts",
    "Mean experts at evaluation",
    "Misses budget",
    "FLOPs per token",
    "Norm. FLOPs",
    "Norm. time per step",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Pareto front",
    "Surely beaten",
    "Final loss",
    "Reason for empty cells",
    *ORIGIN,
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task, gate and budget; FLOPs and times relative to top-2's.

    `Pareto front`: no other row of the task is better on average without more FLOPs. `Surely beaten`:
    another row without more FLOPs is better, paired by seed. `Misses budget`: the
    experts per token, in training or at evaluation, are off by more than 0.15; such rows are on no front.
    """
    return [_row(row, peers) for peers in _by_task(published) for row in peers]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns."""
    return [
        {
            "Task": row.title,
            "Gate": row.scheme,
            "Experts": row.mean(mean_experts),
            "at eval": row.mean(mean_experts_eval),
            "FLOPs": row.relative_to_baseline(flops),
            "Metric": row.metric,
            "Value": row.mean(performance),
            "Front": "off budget" if misses_budget(row) else "yes" if on_front(row, peers) else "",
        }
        for peers in _by_task(published)
        for row in peers
    ]


def notes(published: Published) -> list[str]:
    """Say how many rows miss their budget, and in one line each why a row has no quality."""
    compared = list(scheme_rows(published, STUDY))
    missed = sum(map(misses_budget, compared))
    off = [f"{missed} rows miss their budget by more than {TOLERANCE} experts: on no front"] if missed else []
    mixed = mixtures((row.title, row.runs) for row in compared)
    return [*off, *reasons(row for row in compared if row.mean(performance) is None), *mixed]


def _by_task(published: Published) -> list[list[SchemeRow]]:
    by_task: dict[str, list[SchemeRow]] = {}
    for row in scheme_rows(published, STUDY):
        by_task.setdefault(row.task, []).append(row)
    return list(by_task.values())


def _row(row: SchemeRow, peers: list[SchemeRow]) -> Row:
    aimed = budget(row)
    measured = row.mean(performance) is not None
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Gate": row.scheme.partition(" ")[0],
        "Budget": aimed,
        "Seeds": row.seeds,
        "Mean experts": rounded(row.mean(mean_experts)),
        "Mean experts at evaluation": rounded(row.mean(mean_experts_eval)),
        "Misses budget": _yes(misses_budget(row)) if measured and aimed is not None else None,
        "FLOPs per token": rounded(row.mean(flops)),
        "Norm. FLOPs": rounded(row.relative_to_baseline(flops)),
        "Norm. time per step": rounded(row.relative_to_baseline(seconds_per_step)),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(row.values(performance)), 2),
        "Inference Performance by seed": row.by_seed(performance),
        "Pareto front": _yes(on_front(row, peers)) if measured else None,
        "Surely beaten": _yes(significantly_dominated(row, peers)) if measured else None,
        "Final loss": rounded(row.mean(final_loss), 6),
        "Reason for empty cells": None if measured else row.reason,
        **row.origin,
        "Runs": row.run_ids,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
