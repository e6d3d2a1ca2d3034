"""Tests of a share against a rate, worked by hand."""

import math

import pytest

from repro.report.significance import adjusted, two_sided, z_test


@pytest.mark.parametrize(
    ("successes", "trials", "rate", "p"),
    [
        (0, 4, 0.5, 2 / 16),  # and 4 of 4 is as unlikely
        (1, 4, 0.5, 10 / 16),
        (2, 4, 0.5, 1.0),
        (2, 2, 0.25, 1 / 16),  # probabilities 9/16, 6/16, 1/16
        (1, 2, 0.25, 7 / 16),
        (0, 2, 0.25, 1.0),
        (1, 1, 1.0, 1.0),
        (0, 1, 1.0, 0.0),
        (0, 5, 0.0, 1.0),
    ],
)
def test_exact(successes: int, trials: int, rate: float, p: float) -> None:
    assert two_sided(successes, trials, rate) == pytest.approx(p)


def test_no_trial_has_no_p() -> None:
    assert two_sided(0, 0, 0.5) is None


def test_z() -> None:
    """60 of 100 against a half: two standard deviations of 5, so p is 4.55 %."""
    assert z_test(60, 100, 0.5) == pytest.approx(0.0455, abs=1e-4)
    assert z_test(50, 100, 0.5) == 1.0


def test_a_p_value_below_the_normal_range_is_not_zero() -> None:
    """z = 38.12: 2 exp(-z^2 / 2) / (z sqrt(2 pi)) = 5.3e-318, a subnormal number."""
    assert z_test(5213, 10461, 0.3239) == pytest.approx(5.3e-318, rel=0.01)
    assert two_sided(5213, 10461, 0.3239) == z_test(5213, 10461, 0.3239)


def test_many_trials_are_near_the_exact_value() -> None:
    exact, close = two_sided(330, 1000, 0.3), two_sided(330, 1001, 0.3)
    assert exact is not None
    assert close is not None
    assert math.isclose(exact, close, rel_tol=0.15)


def test_benjamini_hochberg() -> None:
    """0.01 * 4 / 1, 0.02 * 4 / 2, 0.03 * 4 / 3 and 0.5: the smallest from behind."""
    assert adjusted([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert adjusted([0.9, 0.001]) == pytest.approx([0.9, 0.002])


def test_what_was_not_tested_stays_none() -> None:
    assert adjusted([None, 0.04, None]) == [None, 0.04, None]
    assert adjusted([]) == []
