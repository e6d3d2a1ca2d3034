"""Means and intervals over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import overload


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None of nothing."""
    return statistics.fmean(values) if values else None


def interval(values: Sequence[float]) -> float | None:
    """Return the half width of the mean's 95 % confidence interval (Student's t); None without two values."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return float(quantile * statistics.stdev(values) / len(values) ** 0.5)


def whole(value: float | None) -> int | None:
    """Return the nearest whole number, for counts."""
    return None if value is None else round(value)


@overload
def rounded(value: float, digits: int = 4) -> float: ...


@overload
def rounded(value: float | None, digits: int = 4) -> float | None: ...


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Round to significant digits; what was not measured stays None.

    Raises:
        OverflowError: the number is not finite.
    """
    if value is not None and not math.isfinite(value):
        raise OverflowError(f"a number of a table is {value}")
    return None if value is None else float(f"{value:.{digits}g}")
