"""Means, intervals and smallest detectable effects; whatever compares schemes is paired by seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

LEVEL = 0.05
"""Error of the first kind, two-sided."""
POWER = 0.8
"""Chance with which the smallest detectable effect would have been seen."""
RESAMPLES = 4000
"""Of a bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, and the smallest effect that so many values could have shown."""

    value: float
    low: float | None
    """Lower end; None without an interval, minus infinity if values were cut off from below."""
    high: float | None
    """Upper end; None without an interval, infinity if values were cut off from above."""
    detectable: float | None
    """Smallest true difference that a two-sided test at 5 % finds in 80 % of the cases."""
    size: int
    """Values that it rests upon."""

    def cut_off(self, *, below: bool, above: bool) -> "Estimate":
        """Open the interval where some values are upper bounds (`below`) or lower bounds (`above`)."""
        if self.low is None:
            return self
        return replace(self, low=-math.inf if below else self.low, high=math.inf if above else self.high)

    def exp(self) -> "Estimate":
        """Turn differences of logarithms into ratios; the detectable effect is then a relative one."""
        return replace(
            self,
            value=math.exp(self.value),
            low=None if self.low is None else math.exp(self.low),
            high=None if self.high is None else math.exp(self.high),
            detectable=None if self.detectable is None else math.expm1(self.detectable),
        )


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean; None of nothing."""
    return statistics.fmean(values) if values else None


def interval(values: Sequence[float], level: float = LEVEL) -> float | None:
    """Return the half width of the mean's confidence interval (Student's t); None without two values.

    Args:
        level: 5 % for the 95 % interval; one of n comparisons, of which none may be wrong, has an n-th of it.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, 1 - level / 2))
    return float(quantile * statistics.stdev(values) / len(values) ** 0.5)


def detectable(values: Sequence[float]) -> float | None:
    """Return the smallest true mean that paired differences could have shown; None without two values.

    It is nu * s / sqrt(n), for n differences with standard deviation s: a t test of them (two-sided, 5 %)
    rejects with a probability of 80 % where its noncentral t distribution with n - 1 degrees of freedom has
    the noncentrality nu (Cohen 1988, section 2.5). With the normal distribution nu would be 1.96 + 0.84.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return float(_noncentrality(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5)


def over_seeds(values: Sequence[float]) -> Estimate | None:
    """Estimate the mean of one number of each seed, with Student's t; None of nothing."""
    centre, half = mean(values), interval(values)
    if centre is None:
        return None
    return Estimate(
        value=centre,
        low=None if half is None else centre - half,
        high=None if half is None else centre + half,
        detectable=detectable(values),
        size=len(values),
    )


def over_tasks(strata: Sequence[Sequence[float]]) -> Estimate | None:
    """Estimate the mean over tasks of the mean over seeds, by a stratified bootstrap; None of nothing.

    The tasks are those of the paper, no sample of others: all of them are kept, and the seeds are resampled
    within each (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264, rliable). Plain percentiles of so few
    seeds are too narrow: with three seeds of six tasks they hold the truth in 82 % of the cases. So n - 1
    of n are drawn, which makes the variance unbiased (Rao and Wu 1988), and the percentiles are moved away
    from the mean by the quantile of Student's t over that of the normal distribution (Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789, expanded percentiles), with the degrees of freedom of Welch
    and Satterthwaite. It needs two seeds of every task. The same values always give the same interval.

    Args:
        strata: for each task the differences by seed.
    """
    strata = [values for values in strata if values]
    if not strata:
        return None
    centre = statistics.fmean(statistics.fmean(values) for values in strata)
    size = sum(map(len, strata))
    if min(map(len, strata)) < 2 or not all(math.isfinite(value) for values in strata for value in values):
        return Estimate(value=centre, low=None, high=None, detectable=None, size=size)
    generator = np.random.default_rng(0)
    means_B = np.zeros(RESAMPLES)
    for values in strata:
        drawn = generator.integers(len(values), size=(RESAMPLES, len(values) - 1))
        means_B += np.asarray(values)[drawn].mean(1) / len(strata)
    low, high = np.quantile(means_B, [LEVEL / 2, 1 - LEVEL / 2])
    degrees = _degrees(strata)
    from scipy.special import ndtri, stdtrit

    stretch = float(stdtrit(degrees, 1 - LEVEL / 2) / ndtri(1 - LEVEL / 2))
    return Estimate(
        value=centre,
        low=centre - stretch * (centre - float(low)),
        high=centre + stretch * (float(high) - centre),
        detectable=_noncentrality(degrees) * float(means_B.std()),
        size=size,
    )


def _degrees(strata: Sequence[Sequence[float]]) -> float:
    """Return the degrees of freedom of a mean over strata of unlike variance (Welch, Satterthwaite 1946)."""
    variances = [statistics.variance(values) / len(values) for values in strata]
    squares = sum(variance**2 / (len(values) - 1) for variance, values in zip(variances, strata, strict=True))
    return sum(variances) ** 2 / squares if squares else float(sum(map(len, strata)) - len(strata))


def _noncentrality(degrees: float) -> float:
    """Return the noncentrality at which a two-sided t test at `LEVEL` has the power `POWER`."""
    from scipy.special import nctdtrinc, stdtrit

    return float(nctdtrinc(degrees, 1 - POWER, stdtrit(degrees, 1 - LEVEL / 2)))


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
