"""Columns that compare a scheme's time to the baseline's loss with the baseline's, seed by seed."""

from repro.report.schemes import SchemeRow, spaced
from repro.report.statistics import rounded
from repro.report.tables.base import Cell

TIME_COLUMNS = (
    "Norm. Training Time",
    "Norm. Training Time by seed",
    "Norm. Training Time interval",
    "Steps to target",
    "Time per step",
    "Reached",
)


def time_cells(row: SchemeRow) -> dict[str, Cell]:
    """Return the ratio of times with its interval, its two factors, and how many seeds got there."""
    time = row.time_to_target
    cells: tuple[Cell, ...] = (None,) * len(TIME_COLUMNS)
    if time is not None:
        cells = (
            row.norm_time,
            time.by_seed,
            spaced(time.interval) if time.interval else None,
            rounded(time.steps),
            rounded(time.time_per_step),
            f"{time.reached} of {len(time.ratios)}",
        )
    return dict(zip(TIME_COLUMNS, cells, strict=True))


def time_interval(row: SchemeRow) -> str | None:
    """Format the interval of the ratio; a baseline, which is compared with itself, has none."""
    ends = row.time_to_target.interval if row.time_to_target else None
    if ends is None:
        return None
    return "baseline" if row.scheme == row.baseline else " to ".join(f"{rounded(end):.2f}" for end in ends)
