"""Means and intervals over seeds, against numbers worked by hand with quantiles from a printed table."""

import math

import pytest

from repro.report.statistics import interval, mean, rounded

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
