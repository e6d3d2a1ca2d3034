"""Table 1 with its experts spread over processes: measured, and predicted by one formula."""

from collections.abc import Iterator
from typing import NamedTuple

from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.report.tables.table1 import printed_time
from repro.results.bench import ParallelCase, ParallelTiming
from repro.results.published import Published

FILE = "parallel.csv"
COLUMNS = (
    "Layer",
    "Experts",
    "Tokens",
    "Precision",
    "Processes",
    "Device",
    "Top-1 share",
    "Computation",
    "Busiest over mean",
    "Time",
    "Time predicted",
    "Time (paper)",
    "ms",
    "ms predicted",
    "Predicted over measured",
    "Share fixed",
    "Share of exchanges",
    "Share of waiting",
    "Repeats",
    "Processor",
    "Code",
)


class _Timed(NamedTuple):
    """A layer at one share, and with two experts for every token."""

    case: ParallelCase
    timing: ParallelTiming
    base: ParallelTiming


def _timed(published: Published) -> Iterator[_Timed]:
    for case in published.parallel:
        base = next(timing for timing in case.rows if timing.share_top1 == 0)
        yield from (_Timed(case, timing, base) for timing in case.rows)


def rows(published: Published) -> list[Row]:
    """Derive one row per case and share; times and computation are relative to two experts for every token.

    "Share fixed", "of exchanges" and "of waiting" divide the predicted time: what does not depend on rows;
    the exchanges; and the rows that the busiest process has beyond the mean.
    """
    return [_row(one) for one in _timed(published)]


def shown(published: Published) -> list[Row]:
    """Derive the same rows with fewer columns."""
    return [
        {
            "Layer": row["Layer"],
            "Tokens": row["Tokens"],
            "Proc.": row["Processes"],
            "Device": row["Device"],
            "Top-1": row["Top-1 share"],
            "Compute": row["Computation"],
            "Busiest": row["Busiest over mean"],
            "Time": row["Time"],
            "Predicted": row["Time predicted"],
            "(paper)": row["Time (paper)"],
        }
        for row in rows(published)
    ]


def notes(published: Published) -> list[str]:
    """Say which rows nobody has measured."""
    if all(case.environment for case in published.parallel):
        return []
    return ["Rows without a time are predicted alone: from the numbers of the maker of the paper's GPUs."]


def _row(one: _Timed) -> Row:
    case, timing, base = one
    measured, predicted = timing.seconds, timing.predicted_seconds
    model, mean = case.model, timing.rows / case.processes
    environment = case.environment
    exchanges = predicted - model.predict(timing.busiest_rows, 0, 0)
    return {
        "Layer": f"{case.d_model}/{case.d_hidden}",
        "Experts": case.experts,
        "Tokens": case.tokens,
        "Precision": case.precision,
        "Processes": case.processes,
        "Device": case.device,
        "Top-1 share": timing.share_top1,
        "Computation": rounded(timing.rows / base.rows),
        "Busiest over mean": rounded(timing.busiest_rows / mean),
        "Time": None if measured is None or base.seconds is None else rounded(measured / base.seconds),
        "Time predicted": rounded(predicted / base.predicted_seconds),
        "Time (paper)": printed_time(timing.share_top1),
        "ms": None if measured is None else rounded(1000 * measured),
        "ms predicted": rounded(1000 * predicted),
        "Predicted over measured": None if measured is None else rounded(predicted / measured),
        "Share fixed": rounded(model.fixed_seconds / predicted),
        "Share of exchanges": rounded(exchanges / predicted),
        "Share of waiting": rounded(model.seconds_per_row * (timing.busiest_rows - mean) / predicted),
        "Repeats": case.repeats,
        "Processor": environment.processor if environment else None,
        "Code": environment.code_state if environment else None,
    }
