"""Table 3: training time to equal loss, FLOPs and performance of every scheme on every task."""

from repro.report.schemes import flops, performance, reasons, scheme_rows
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.results.published import Published

FILE = "table3.csv"
COLUMNS = (
    "Task",
    "Metric",
    "Scheme",
    "Norm. Training Time",
    "Computation FLOPs",
    "Inference Performance",
)


def rows(published: Published) -> list[Row]:
    """Derive the paper's columns. FLOPs are those of a forward pass per token, as routed in training.

    Time is that to the loss of top-2 at its budget, relative to top-2's, geometric mean over seeds; `> x` is
    a lower bound, where a seed did not get there.
    """
    return [
        {
            "Task": row.title,
            "Metric": row.metric,
            "Scheme": row.scheme,
            "Norm. Training Time": row.norm_time,
            "Computation FLOPs": rounded(row.mean(flops)),
            "Inference Performance": rounded(row.mean(performance)),
        }
        for row in scheme_rows(published)
        if row.is_of_paper
    ]


def shown(published: Published) -> list[Row]:
    """Derive ours and the paper's side by side, times and FLOPs against top-2."""
    return [
        {
            "Task": row.title,
            "Scheme": row.scheme,
            "Time": row.norm_time,
            "paper": row.paper.get("time"),
            "FLOPs": row.relative_to_baseline(flops),
            "paper ": _ratio(row.paper.get("flops"), row.paper_baseline.get("flops")),
            "Metric": row.metric,
            "Value": row.mean(performance),
            "paper  ": row.paper.get("performance"),
        }
        for row in scheme_rows(published)
        if row.is_of_paper
    ]


def notes(published: Published) -> list[str]:
    """Say in one line each why a cell is empty, what disturbed the times, and which tasks are not shown."""
    compared = list(scheme_rows(published))
    others = dict.fromkeys(row.title for row in compared if not row.is_of_paper)
    beside = [f"{title}: no task of the paper; its rows are in table3_detail.csv" for title in others]
    return beside + reasons(row for row in compared if row.is_of_paper)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
