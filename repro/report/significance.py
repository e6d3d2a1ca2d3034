"""Tests of a share against a base rate, and their correction for many tests."""

import math
from collections.abc import Sequence
from functools import cache

EXACT = 1000
"""Most trials of an exact test; beyond them the normal distribution is close enough."""


@cache
def two_sided(successes: int, trials: int, rate: float) -> float | None:
    """Return the two-sided p value of a count against a rate; None of no trial.

    Up to `EXACT` trials an exact binomial test, by the method of small probabilities; beyond, a z test.
    """
    if trials == 0:
        return None
    if trials > EXACT and 0 < rate < 1:
        return z_test(successes, trials, rate)
    from scipy.stats import binomtest

    return float(binomtest(successes, trials, rate).pvalue)


def z_test(successes: int, trials: int, rate: float) -> float:
    """Return the two-sided p value of a count by the normal approximation, 0 < rate < 1."""
    deviation = math.sqrt(trials * rate * (1 - rate))
    # Not scipy's survival function, which is 0 below 1e-308.
    return math.erfc(abs(successes - trials * rate) / (deviation * math.sqrt(2)))


def adjusted(p_values: Sequence[float | None]) -> list[float | None]:
    """Return q values (Benjamini and Hochberg, 1995) in the order of the p values; None stays None."""
    from scipy.stats import false_discovery_control

    tested = [p for p in p_values if p is not None]
    q_values = iter(false_discovery_control(tested, method="bh").tolist())
    return [None if p is None else next(q_values) for p in p_values]
