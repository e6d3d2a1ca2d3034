"""Means and intervals over seeds, against numbers worked by hand with quantiles from a printed table."""

import math
import statistics
import time

import numpy as np
import pytest

from repro.report.statistics import detectable, interval, mean, over_seeds, over_tasks, rounded

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t, two-sided 95 %, by degrees of freedom."""


def test_mean() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert mean([0.0]) == 0.0
    assert mean([]) is None


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([1.0, 3.0], T_975[1]),  # deviation sqrt(2), over sqrt(2)
        ([0.5, 0.75], T_975[1] / 8),
        ([1.0, 2.0, 3.0], T_975[2] / math.sqrt(3)),  # deviation 1
        ([10.0, 12.0, 14.0], T_975[2] * 2 / math.sqrt(3)),
        ([1.0, 1.0, 3.0, 3.0], T_975[3] * math.sqrt(4 / 3) / 2),
        ([1.0, 2.0, 3.0, 4.0, 5.0], T_975[4] * math.sqrt(2.5) / math.sqrt(5)),
    ],
)
def test_interval(values: list[float], half: float) -> None:
    assert interval(values) == pytest.approx(half, rel=2e-4)
    assert interval([value + 100 for value in values]) == pytest.approx(half, rel=2e-4)


def test_interval_needs_two_values() -> None:
    assert interval([]) is None
    assert interval([3.0]) is None


def test_equal_values_have_an_interval_of_zero() -> None:
    assert interval([2.0, 2.0, 2.0]) == 0.0


@pytest.mark.parametrize("strange", [math.nan, math.inf])
def test_interval_of_what_is_not_finite(strange: float) -> None:
    assert interval([1.0, strange]) is None


# --- smallest detectable effects ---------------------------------------------------------------------


def test_the_smallest_effect_of_a_t_test_is_that_of_printed_tables() -> None:
    """Cohen 1988: 34 pairs find half a standard deviation with a power of 80 %, 33 do not quite."""

    def of_deviation_1(pairs: int) -> float:
        values = [0.0, 1.0] * (pairs // 2) + [0.5] * (pairs % 2)
        effect = detectable(values)
        assert effect is not None
        return effect / statistics.stdev(values)

    assert of_deviation_1(34) < 0.5 < of_deviation_1(33)
    assert of_deviation_1(10_000) == pytest.approx((1.960 + 0.842) / 100, rel=1e-3)


@pytest.mark.parametrize("pairs", [3, 5])
def test_an_effect_of_that_size_is_found_in_80_percent(pairs: int) -> None:
    """By simulation: 4000 experiments with the true deviation 1 and an effect as large as claimed."""
    generator = np.random.default_rng(1)
    deviation_1 = [math.sqrt(pairs - 1) / math.sqrt(2), -math.sqrt(pairs - 1) / math.sqrt(2)]
    effect = detectable(deviation_1 + [0.0] * (pairs - 2))
    assert effect is not None
    found = 0
    for values in generator.normal(effect, 1, size=(4000, pairs)):
        found += abs(values.mean()) > T_975[pairs - 1] * values.std(ddof=1) / math.sqrt(pairs)
    assert found / 4000 == pytest.approx(0.8, abs=0.02)


def test_the_smallest_effect_needs_two_values() -> None:
    assert detectable([]) is None
    assert detectable([3.0]) is None
    assert detectable([2.0, 2.0]) == 0.0
    assert detectable([1.0, math.inf]) is None


def test_an_estimate_over_seeds() -> None:
    one = over_seeds([1.0, 2.0, 3.0])
    assert one is not None
    assert (one.value, one.size) == (2.0, 3)
    assert one.low == pytest.approx(2 - T_975[2] / math.sqrt(3), rel=1e-3)
    assert one.detectable == detectable([1.0, 2.0, 3.0])
    assert over_seeds([]) is None
    single = over_seeds([1.0])
    assert single is not None
    assert (single.low, single.high, single.detectable) == (None, None, None)


def test_a_ratio_is_an_estimate_of_logarithms() -> None:
    one = over_seeds([math.log(2), math.log(8)])
    assert one is not None
    ratio = one.exp()
    assert ratio.value == pytest.approx(4)
    assert one.low is not None
    assert ratio.low == pytest.approx(math.exp(one.low))
    assert one.detectable is not None
    assert ratio.detectable == pytest.approx(math.exp(one.detectable) - 1)
    cut = one.cut_off(below=False, above=True).exp()
    assert (cut.low, cut.high) == (ratio.low, math.inf)


# --- the bootstrap over tasks and seeds --------------------------------------------------------------


def test_a_bootstrap_by_hand() -> None:
    """Two tasks with two seeds each: one seed is drawn of each, so the means are 5 and 6, equally likely.

    Only one task varies, so there is one degree of freedom: 0.5 is stretched by 12.706 / 1.960.
    """
    one = over_tasks([[0.0, 2.0], [10.0, 10.0]])
    assert one is not None
    assert (one.value, one.size) == (5.5, 4)
    assert (one.low, one.high) == pytest.approx((5.5 - 3.2414, 5.5 + 3.2414), abs=1e-3)
    # With one degree of freedom a power of 80 % needs 16.33 standard errors of 0.5.
    assert one.detectable == pytest.approx(16.33 * 0.5, rel=0.01)


def test_degrees_of_freedom_by_hand() -> None:
    """Tasks of equal spread add theirs: 2 + 2."""
    one = over_tasks([[0.0, 1.0, 2.0], [5.0, 6.0, 7.0]])
    assert one is not None
    # Each task's mean has the variance 1 / 3, half of their sum over 2: sqrt(2 / 3) / 2.
    error = math.sqrt(2 / 3) / 2
    assert one.detectable == pytest.approx(detectable_errors(4) * error, rel=0.03)


def detectable_errors(degrees: int) -> float:
    """How many standard errors of that many degrees of freedom are found with a power of 80 %."""
    values = [1.0, -1.0] + [0.0] * (degrees - 1)
    effect = detectable(values)
    assert effect is not None
    return effect / (statistics.stdev(values) / math.sqrt(len(values)))


def test_tasks_weigh_the_same_whatever_their_seeds() -> None:
    one = over_tasks([[1.0] * 5, [3.0] * 2])
    assert one is not None
    assert (one.value, one.low, one.high) == (2.0, 2.0, 2.0)


def test_a_task_with_one_seed_has_no_interval() -> None:
    assert over_tasks([]) is None
    assert over_tasks([[], []]) is None
    one = over_tasks([[1.0, 2.0], [3.0]])
    assert one is not None
    assert (one.value, one.low, one.high, one.detectable) == (2.25, None, None, None)


def test_the_bootstrap_gives_the_same_every_time_and_fast() -> None:
    strata = [[0.1 * seed * task for seed in range(5)] for task in range(6)]
    first = over_tasks(strata)
    started = time.perf_counter()
    assert over_tasks(strata) == first
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_of_the_bootstrap(seeds: int) -> None:
    """By simulation: six tasks of unlike spread; plain percentiles would cover 0.72, 0.82 and 0.90."""
    generator = np.random.default_rng(2)
    spreads = np.array([0.5, 1, 1, 2, 3, 4])
    covered, experiments = 0, 300
    for values in generator.normal(size=(experiments, 6, seeds)) * spreads[:, None] + 7.0:
        one = over_tasks(values.tolist())
        assert one is not None
        assert one.low is not None
        assert one.high is not None
        covered += one.low <= 7.0 <= one.high
    assert 0.93 <= covered / experiments <= 0.99


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (123456.0, 4, 123500.0),
        (0.00012345678, 4, 0.0001235),
        (2.0 / 3, 2, 0.67),
        (0.0, 4, 0.0),
        (-1.23456, 3, -1.23),
        (56363.6, 6, 56363.6),
    ],
)
def test_rounded_to_significant_digits(value: float, digits: int, shown: float) -> None:
    assert rounded(value, digits) == shown


def test_what_was_not_measured_stays_so() -> None:
    assert rounded(None) is None
