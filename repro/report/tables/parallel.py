"""Table 1, experts spread: one layer whose experts are spread over processes, measured and by one formula."""

from collections.abc import Sequence

from repro import paper
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.parallel import ParallelCase, ParallelTiming
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
    "Processes are",
    "Computation",
    "Busiest over mean",
    "Time",
    "Time predicted",
    "Time (paper)",
    "ms",
    "ms spread",
    "ms predicted",
    "Predicted over measured",
    "Share constant",
    "Share of rows",
    "Share of waiting",
    "Share of bytes",
    "Repeats",
    "Busy beside",
    "Processor",
    "Code",
)


def rows(published: Published) -> list[Row]:
    """Derive one row per case and share; computation and times are relative to two experts for all tokens.

    Four shares divide the predicted time: what does not depend on tokens; the rows of a process, on average;
    those that the busiest has beyond them; the bytes that are exchanged.
    """
    return [_row(case, timing) for case in published.parallel for timing in case.rows]


def shown(published: Published) -> list[Row]:
    """Derive fewer columns, of the rows whose processes are alike; measured cases first."""
    return [
        {
            "Layer": row["Layer"],
            "Tokens": row["Tokens"],
            "Prec.": row["Precision"],
            "Device": f"{row['Processes']} x {str(row['Device']).partition(',')[0]}",
            "Top-1": row["Top-1 share"],
            "Compute": row["Computation"],
            "Time": row["Time"],
            "by formula": row["Time predicted"],
            "(paper)": row["Time (paper)"],
        }
        for case in sorted(published.parallel, key=lambda case: case.environment is None)
        for row in (_row(case, timing) for timing in case.rows if not timing.mixed)
    ]


def notes(published: Published) -> list[str]:
    """Say which rows nobody has measured."""
    return _notes(published.parallel)


def _notes(cases: Sequence[ParallelCase]) -> list[str]:
    if all(case.environment for case in cases):
        return []
    return ["Rows without a time are predicted alone, for the paper's machine, from assumed figures."]


def _row(case: ParallelCase, timing: ParallelTiming) -> Row:
    base, model = case.top2, case.model
    measured, predicted = timing.seconds, timing.predicted_seconds
    mean = timing.rows / case.processes
    environment = case.environment
    return {
        "Layer": f"{case.d_model}/{case.d_hidden}",
        "Experts": case.experts,
        "Tokens": case.tokens,
        "Precision": case.precision,
        "Processes": case.processes,
        "Device": case.device,
        "Top-1 share": timing.share_top1,
        "Processes are": "mixed" if timing.mixed else "alike",
        "Computation": rounded(timing.rows / base.rows),
        "Busiest over mean": rounded(timing.busiest_rows / mean),
        "Time": None if measured is None or base.seconds is None else rounded(measured / base.seconds),
        "Time predicted": rounded(predicted / base.predicted_seconds),
        "Time (paper)": None if timing.mixed else paper.layer_time(timing.share_top1),
        "ms": _milliseconds(measured),
        "ms spread": _milliseconds(timing.spread),
        "ms predicted": _milliseconds(predicted),
        "Predicted over measured": None if measured is None else rounded(predicted / measured),
        "Share constant": rounded(model.constant / predicted),
        "Share of rows": rounded(model.computing(mean) / predicted),
        "Share of waiting": rounded(model.computing(timing.busiest_rows - mean) / predicted),
        "Share of bytes": rounded(model.sending(timing.busiest_bytes) / predicted),
        "Repeats": case.repeats,
        "Busy beside": None if case.beside is None else rounded(case.beside, 2),
        "Processor": environment.processor if environment else None,
        "Code": environment.code_state if environment else None,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else rounded(1000 * seconds)
