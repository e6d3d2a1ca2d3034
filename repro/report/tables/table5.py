"""Table 5: training time and performance of adaptive gating at the paper's thresholds."""

from repro.report.schemes import SchemeRow, performance, scheme_rows
from repro.report.statistics import rounded
from repro.report.tables.base import Row
from repro.report.threshold import STUDY
from repro.results.published import Published

FILE = "table5.csv"
_THRESHOLDS = ("0.05", "0.2", "0.3", "0.4")
COLUMNS = (
    "Task",
    *(f"Norm. Training Time {threshold}" for threshold in _THRESHOLDS),
    *(f"Inference Performance {threshold}" for threshold in _THRESHOLDS),
)


def rows(published: Published) -> list[Row]:
    """Derive the paper's columns: one row per task; times to equal loss, relative to top-2's."""
    by_task: dict[str, dict[str, SchemeRow]] = {}
    for row in scheme_rows(published, STUDY):
        if not row.is_of_paper:
            continue
        by_task.setdefault(row.title, {})[row.scheme] = row
    return [
        {"Task": title}
        | {f"Norm. Training Time {at}": _time(thresholds.get(at)) for at in _THRESHOLDS}
        | {f"Inference Performance {at}": rounded(_quality(thresholds.get(at))) for at in _THRESHOLDS}
        for title, thresholds in by_task.items()
    ]


def _time(row: SchemeRow | None) -> float | str | None:
    return row.norm_time if row else None


def _quality(row: SchemeRow | None) -> float | None:
    return row.mean(performance) if row else None
