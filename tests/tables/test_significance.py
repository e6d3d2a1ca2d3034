"""Tests of a share by a bootstrap over groups of sequences, and the correction for many tests."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from repro.report.significance import FEWEST, Grouped, adjusted, share_p


def grouped(tokens: Sequence[int], multi: Sequence[int]) -> Grouped:
    return np.array([tokens, multi], dtype=np.float64).T


EVERYTHING = grouped([100] * 10, [30] * 10)
"""Ten groups in each of which 30 of 100 tokens got two experts."""


def test_where_groups_agree_tokens_are_taken_as_independent() -> None:
    """20 of 40 against 0.3, half in every group: 0.2 over sqrt(0.21 / 40) is 2.760; t of 9 degrees."""
    assert share_p(grouped([4] * 10, [2] * 10), EVERYTHING) == pytest.approx(0.0221, abs=1e-4)


def test_where_groups_disagree_their_spread_counts() -> None:
    """The same 20 of 40, all of five groups and none of the others.

    Over ten groups the share has a standard deviation of 0.527 and a standard error of 0.167; 0.2 over it is
    1.2, and t of 9 degrees gives 0.26. Taken as independent tokens it would be 0.02.
    """
    p = share_p(grouped([4] * 10, [4] * 5 + [0] * 5), EVERYTHING)
    assert p == pytest.approx(0.26, abs=0.03)


def test_a_word_that_always_got_two_experts_is_not_certain() -> None:
    """5 of 5: 0.7 over sqrt(0.21 / 5) is 3.416; t of 9 degrees, 0.0077."""
    p = share_p(grouped([1] * 5 + [0] * 5, [1] * 5 + [0] * 5), EVERYTHING)
    assert p == pytest.approx(0.0077, abs=2e-4)


def test_a_word_of_few_texts_is_not_tested() -> None:
    assert share_p(grouped([50] * (FEWEST - 1) + [0] * 6, [50] * (FEWEST - 1) + [0] * 6), EVERYTHING) is None
    assert share_p(grouped([0] * 10, [0] * 10), grouped([0] * 10, [0] * 10)) is None


def test_no_difference() -> None:
    assert share_p(EVERYTHING, EVERYTHING) == 1.0
    nothing = grouped([100] * 10, [0] * 10)
    assert share_p(nothing, nothing) == 1.0


def test_false_alarms_among_dependent_tokens() -> None:
    """Tokens of a text all share one decision: of 300 such words 5 % stand out, not two thirds."""
    generator = np.random.default_rng(3)
    alarms, words = 0, 300
    for _ in range(words):
        shares = generator.random(20)
        item = grouped([20] * 20, [20 * (share < 0.3) for share in shares])
        # The base rate is known to be 0.3, with many other tokens in every group.
        p = share_p(item, grouped([10_000] * 20, [3000] * 20))
        assert p is not None
        alarms += p <= 0.05
    assert alarms / words <= 0.1
    # Two texts more or less are significant where 400 tokens are taken as independent.
    assert math.erfc(0.1 / math.sqrt(0.21 / 400) / math.sqrt(2)) < 1e-4


def test_benjamini_hochberg() -> None:
    """0.01 * 4 / 1, 0.02 * 4 / 2, 0.03 * 4 / 3 and 0.5: the smallest from behind."""
    assert adjusted([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert adjusted([0.9, 0.001]) == pytest.approx([0.9, 0.002])


def test_what_was_not_tested_stays_none() -> None:
    assert adjusted([None, 0.04, None]) == [None, 0.04, None]
    assert adjusted([]) == []
