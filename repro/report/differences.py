"""Columns that compare a scheme with its baseline, seed by seed."""

from repro.report.schemes import Number, SchemeRow
from repro.report.statistics import detectable, interval, mean, rounded


def difference_columns(name: str) -> tuple[str, ...]:
    """Name the columns of a number's paired difference."""
    return f"{name} difference", f"{name} difference interval", f"{name} smallest effect"


def difference_cells(row: SchemeRow, name: str, number: Number) -> dict[str, float | None]:
    """Return the mean difference to the baseline's runs of the same seeds, and what so many seeds could show.

    The interval is the half width of 95 % (Student's t); the smallest effect is `statistics.detectable`.
    All three are empty for the baseline itself.
    """
    values = [] if row.scheme == row.baseline else row.paired(number)
    cells = rounded(mean(values)), rounded(interval(values), 2), rounded(detectable(values), 2)
    return dict(zip(difference_columns(name), cells, strict=True))
