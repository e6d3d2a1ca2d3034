"""Means and intervals over seeds."""

import math
import statistics
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float | None:
    """The arithmetic mean; None of nothing."""
    return statistics.fmean(values) if values else None


def interval(values: Sequence[float]) -> float | None:
    """Half width of the 95 % confidence interval of the mean (Student's t); None if there is none."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return float(quantile * statistics.stdev(values) / len(values) ** 0.5)


def whole(value: float | None) -> int | None:
    """The nearest whole number, for counts."""
    return None if value is None else round(value)


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Rounded to significant digits; what was not measured stays None."""
    return None if value is None else float(f"{value:.{digits}g}")
