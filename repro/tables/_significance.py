"""Whether a share differs from a base rate, and which of many such shares do."""

import math
from collections.abc import Sequence

EXACT = 1000
"""Trials up to which the binomial distribution is summed; beyond, the normal one is close enough."""


def two_sided(successes: int, trials: int, rate: float) -> float | None:
    """The p value of a count against a rate: exact binomial, or z beyond `EXACT` trials. None of no trial.

    Two-sided by the method of small probabilities: the total probability of all counts that are at
    most as likely as this one.
    """
    if trials == 0:
        return None
    if rate <= 0 or rate >= 1:
        return 1.0 if successes == round(trials * rate) else 0.0
    if trials > EXACT:
        return z_test(successes, trials, rate)
    logs = [_log_binomial(count, trials, rate) for count in range(trials + 1)]
    limit = logs[successes] + 1e-7  # equal ones differ by rounding
    return min(1.0, sum(math.exp(value) for value in logs if value <= limit))


def z_test(successes: int, trials: int, rate: float) -> float:
    """The p value of the normal approximation, two-sided, 0 < rate < 1."""
    z = (successes - trials * rate) / math.sqrt(trials * rate * (1 - rate))
    return math.erfc(abs(z) / math.sqrt(2))


def _log_binomial(count: int, trials: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return ways + count * math.log(rate) + (trials - count) * math.log(1 - rate)


def adjusted(values: Sequence[float | None]) -> list[float | None]:
    """The q values of Benjamini and Hochberg (1995), in the order of the p values; None stays None.

    Those with q <= 0.05 hold 5 % false ones on average.
    """
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    found: list[float | None] = [None] * len(values)
    smallest = 1.0
    for rank in range(len(order), 0, -1):
        value, place = order[rank - 1]
        smallest = min(smallest, value * len(order) / rank)
        found[place] = smallest
    return found
