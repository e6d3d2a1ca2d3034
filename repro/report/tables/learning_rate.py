"""Learning rates: the dev loss of every scheme at every rate tried, and the rate picked."""

from collections.abc import Mapping
from itertools import groupby
from typing import TypeAlias

from repro.report.origin import ORIGIN, mixtures
from repro.report.schemes import SchemeRow, scheme_rows
from repro.report.statistics import interval, rounded
from repro.report.tables.base import Row
from repro.results.published import Published
from repro.results.run import RunResult

FILE = "learning_rate.csv"
COLUMNS = (
    "Task",
    "Scheme",
    "Learning rate",
    "Seeds",
    "Dev loss",
    "Dev loss interval",
    "Dev loss by seed",
    "Picked",
    "Reason for empty cells",
    *ORIGIN,
    "Runs",
)
STUDY = "learning_rate"

_Rates: TypeAlias = list[SchemeRow]
"""The rows of one task and scheme."""


def rows(published: Published) -> list[Row]:
    """Derive one row per task, scheme and rate; the loss is that on the dev split at the end of training."""
    return [
        {
            "Task": row.title,
            "Scheme": _scheme(row),
            "Learning rate": row.mean(learning_rate),
            "Seeds": row.seeds,
            "Dev loss": rounded(row.mean(dev_loss), 6),
            "Dev loss interval": rounded(interval(row.values(dev_loss)), 2),
            "Dev loss by seed": row.by_seed(dev_loss),
            "Picked": ("yes" if row is picked(rates) else "no") if row.runs else None,
            "Reason for empty cells": "; ".join(row.missing) or None,
            **row.origin,
            "Runs": row.run_ids,
        }
        for rates in _searches(published)
        for row in rates
    ]


def shown(published: Published) -> list[Row]:
    """Derive one row per task and scheme: the loss at each factor of the scale's rate, and the one picked."""
    made: list[Row] = []
    searches = _searches(published)
    factors = list(dict.fromkeys(_factor(row) for rates in searches for row in rates))
    for rates in searches:
        losses: Mapping[str, float | None] = {_factor(row): row.mean(dev_loss) for row in rates}
        best = picked(rates)
        made.append(
            {"Task": rates[0].title, "Scheme": _scheme(rates[0])}
            | {f"x {factor}": losses.get(factor) for factor in factors}
            | {"Picked": best.mean(learning_rate) if best else None}
        )
    return made


def notes(published: Published) -> list[str]:
    """Say what is to be recorded, where a rate at the edge was picked, and why runs are missing."""
    lines, edges, missing = [], [], []
    for task, searches in groupby(_searches(published), lambda rates: rates[0].task):
        entries = []
        for rates in searches:
            best = picked(rates)
            if best is not None:
                entries.append(f"{_scheme(best)} = {best.mean(learning_rate):g}")
                if best in (rates[0], rates[-1]) and len(rates) > 1:
                    edges.append(f"{best.title}, {_scheme(best)}")
            missing += [
                f"{row.title}, {row.scheme}: {'; '.join(row.missing)}" for row in rates if row.missing
            ]
        if entries:
            lines.append(f"[{task}.learning_rate] " + ", ".join(entries))
    if lines:
        lines.insert(0, "Losses are those on dev. To be recorded in the scale's file:")
    if edges:
        lines.append(f"best at the edge of what was tried: {'; '.join(edges)}")
    mixed = mixtures((row.title, row.runs) for rates in _searches(published) for row in rates)
    return [*lines, *missing, *mixed]


def picked(rates: _Rates) -> SchemeRow | None:
    """Return the row with the lowest mean loss on dev among those with the most seeds; None without runs."""
    most = max((len(row.runs) for row in rates), default=0)
    complete = [
        (loss, row) for row in rates if len(row.runs) == most and (loss := row.mean(dev_loss)) is not None
    ]
    return min(complete, key=lambda pair: pair[0])[1] if complete else None


def dev_loss(run: RunResult) -> float | None:
    """Return the loss on the dev split at the end of training."""
    return run.dev_loss


def learning_rate(run: RunResult) -> float | None:
    """Return the peak learning rate of a run."""
    training = run.config.get("training")
    rate = training.get("learning_rate") if isinstance(training, dict) else None
    return rate if isinstance(rate, float) else None


def _searches(published: Published) -> list[_Rates]:
    """Group the rows of the study by task and scheme."""
    return [
        list(group)
        for _, group in groupby(scheme_rows(published, STUDY), lambda row: (row.task, _scheme(row)))
    ]


def _scheme(row: SchemeRow) -> str:
    return row.scheme.rpartition(" ")[0]


def _factor(row: SchemeRow) -> str:
    return row.scheme.rpartition(" ")[2]
