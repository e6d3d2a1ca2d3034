"""Scale, learned routing or number of experts: what is behind the differences between schemes."""

from repro.report.origin import ORIGIN, mixtures
from repro.report.schemes import SchemeRow, mean_experts, mean_experts_eval, performance
from repro.report.statistics import interval, mean, rounded
from repro.report.tables.base import Row
from repro.report.weights import Rows, difference, explanations, tasks
from repro.results.published import Published
from repro.results.run import RunResult

FILE = "weights.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Variant",
    "Seeds",
    "Output scale at start",
    "Mean experts",
    "Mean experts at evaluation",
    "Validation loss",
    "Validation loss by seed",
    "Loss difference",
    "Loss difference interval",
    "Inference Performance",
    "Inference Performance interval",
    "Inference Performance by seed",
    "Reason for empty cells",
    *ORIGIN,
    "Runs",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per task and variant; differences to raw top-2 are paired by seed."""
    return [_row(row, peers) for peers in tasks(published) for row in peers.values()]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns."""
    return [
        {
            "Task": row.title,
            "Variant": row.scheme,
            "Scale": rounded(row.mean(output_scale), 2),
            "Loss": row.mean(validation_loss),
            "Difference": rounded(mean(difference(peers, row.scheme)), 3),
            "±": rounded(interval(difference(peers, row.scheme)), 2),
            "Metric": row.metric,
            "Value": row.mean(performance),
        }
        for peers in tasks(published)
        for row in peers.values()
    ]


def notes(published: Published) -> list[str]:
    """Say what the columns are, what explains which difference, and why runs are missing."""
    compared = [row for peers in tasks(published) for row in peers.values()]
    if not compared:
        return []
    missing = [f"{row.title}, {row.scheme}: {reason}" for row in compared if (reason := _reason(row))]
    return [
        "Scale: of a layer's output at the start, against the dense one",
        "Difference: of the validation loss to raw top-2, paired by seed, with its 95 % interval",
        *missing,
        *mixtures((row.title, row.runs) for row in compared),
        *explanations(published),
    ]


def _row(row: SchemeRow, peers: Rows) -> Row:
    differences = difference(peers, row.scheme)
    return {
        "Task": row.title,
        "Metric": row.metric,
        "Variant": row.scheme,
        "Seeds": row.seeds,
        "Output scale at start": rounded(row.mean(output_scale), 3),
        "Mean experts": rounded(row.mean(mean_experts)),
        "Mean experts at evaluation": rounded(row.mean(mean_experts_eval)),
        "Validation loss": rounded(row.mean(validation_loss), 6),
        "Validation loss by seed": row.by_seed(validation_loss),
        "Loss difference": rounded(mean(differences)),
        "Loss difference interval": rounded(interval(differences), 2),
        "Inference Performance": rounded(row.mean(performance)),
        "Inference Performance interval": rounded(interval(row.values(performance)), 2),
        "Inference Performance by seed": row.by_seed(performance),
        "Reason for empty cells": _reason(row),
        **row.origin,
        "Runs": row.run_ids,
    }


def output_scale(run: RunResult) -> float | None:
    """Return the scale of a layer's output at the start; None if the experts were trained before."""
    return run.output_scale


def validation_loss(run: RunResult) -> float | None:
    """Return the loss on the validation split after training."""
    return run.eval_loss


def _reason(row: SchemeRow) -> str | None:
    """Why runs of a row are missing, or it has no metric."""
    if row.missing:
        return "; ".join(row.missing)
    return None if row.mean(performance) is not None else f"{row.metric} is not a finite number"
