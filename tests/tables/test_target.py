"""Time to reach a loss: mean curves over runs, and seconds to a target, worked by hand."""

import pytest
from factories import make_result
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.report.target import Curve, Points, at_median_steps, mean_curve, norm_time, seconds_to
from repro.results.records import CurvePoint


def runs(*curves: list[tuple[int, float, float]]) -> list[Points]:
    """Curves of (step, seconds, loss)."""
    return [[CurvePoint(*point) for point in curve] for curve in curves]


class TestMeanCurve:
    def test_of_nothing(self) -> None:
        assert mean_curve([]) == []

    def test_of_one_run_is_its_own(self) -> None:
        assert mean_curve(runs([(0, 0.0, 2.0), (5, 1.5, 1.0)])) == [(0.0, 2.0), (1.5, 1.0)]

    def test_means_of_seconds_and_of_losses(self) -> None:
        found = mean_curve(runs([(0, 0.0, 2.0), (5, 1.0, 1.0)], [(0, 0.0, 3.0), (5, 2.0, 0.5)]))
        assert found == [(0.0, 2.5), (1.5, 0.75)]

    def test_three_runs(self) -> None:
        found = mean_curve(runs([(5, 1.0, 1.0)], [(5, 2.0, 2.0)], [(5, 6.0, 0.0)]))
        assert found == [(3.0, 1.0)]

    def test_a_step_that_one_run_has_not_is_left_out(self) -> None:
        """A mean over other runs than those of the next point would jump."""
        whole = [(0, 0.0, 4.0), (5, 1.0, 3.0), (10, 2.0, 2.0), (15, 3.0, 1.0)]
        gaps = [(0, 0.0, 2.0), (10, 4.0, 1.0), (15, 5.0, 0.5)]
        assert mean_curve(runs(whole, gaps)) == [(0.0, 3.0), (3.0, 1.5), (4.0, 0.75)]

    def test_runs_of_different_lengths_end_together(self) -> None:
        """With batches cut by tokens, two epochs of one seed are some steps longer than another's."""
        longer = [(0, 0.0, 4.0), (175, 10.0, 2.0), (181, 13.0, 1.5)]
        shorter = [(0, 0.0, 4.0), (175, 10.0, 2.0), (179, 11.0, 1.0)]
        assert mean_curve(runs(longer, shorter)) == [(0.0, 4.0), (10.0, 2.0), (12.0, 1.25)]


def test_norm_time_is_relative_to_the_baseline_and_needs_one() -> None:
    """To the loss of 1: 10 s of 40 s. The baseline at median steps of 2 s takes 20 s, a half of that."""
    fast, slow = runs([(0, 0.0, 2.0), (10, 10.0, 1.0)], [(0, 0.0, 2.0), (10, 40.0, 1.0)])
    assert norm_time([fast], [slow]) == 0.25
    assert norm_time([fast], []) is None
    result = make_result(curve=slow, seconds_per_step=2.0)
    assert norm_time([at_median_steps(result)], [slow]) == 0.5


FALLING: Curve = [(0.0, 4.0), (10.0, 2.0), (20.0, 1.0)]
BUMPY: Curve = [(0.0, 4.0), (10.0, 2.0), (20.0, 3.0), (30.0, 2.0), (40.0, 1.0)]


class TestSecondsTo:
    @pytest.mark.parametrize(
        ("target", "seconds"),
        [
            (3.0, 5.0),  # half of the way from 4 to 2
            (2.5, 7.5),
            (2.0, 10.0),  # equal to the loss of a point
            (1.25, 17.5),  # three quarters of the way from 2 to 1
            (1.0, 20.0),  # the last point
            (4.0, 0.0),  # reached at the start
            (9.0, 0.0),
            (0.999, None),  # never
        ],
    )
    def test_between_points(self, target: float, seconds: float | None) -> None:
        assert seconds_to(target, FALLING) == seconds

    @pytest.mark.parametrize(
        ("target", "seconds"),
        [
            (2.0, 10.0),  # first reached there, whatever comes after
            (3.0, 5.0),
            (1.5, 35.0),  # the running minimum leaves its plateau at 30
        ],
    )
    def test_running_minimum(self, target: float, seconds: float) -> None:
        assert seconds_to(target, BUMPY) == seconds

    def test_back_from_a_bump(self) -> None:
        """From 3 back below the best, 2: the running minimum falls from 2, not from 3."""
        assert seconds_to(1.5, [(0.0, 2.0), (10.0, 3.0), (20.0, 1.0)]) == 15.0

    def test_plateau(self) -> None:
        level = [(0.0, 2.0), (10.0, 1.0), (20.0, 1.0), (30.0, 1.0)]
        assert seconds_to(1.0, level) == 10.0
        assert seconds_to(0.5, level) is None
        assert seconds_to(0.5, [*level, (40.0, 0.0)]) == 35.0

    def test_first_point_later_than_zero(self) -> None:
        assert seconds_to(3.0, [(2.0, 3.0), (4.0, 1.0)]) == 2.0

    def test_no_curve(self) -> None:
        assert seconds_to(1.0, []) is None

    def test_loss_that_is_not_a_number_counts_as_not_reached(self) -> None:
        nan = float("nan")
        assert seconds_to(3.0, [(0.0, 4.0), (5.0, nan), (10.0, 2.0)]) == 7.5
        assert seconds_to(3.0, [(0.0, nan), (5.0, nan)]) is None
        assert seconds_to(nan, FALLING) is None


losses = st.integers(0, 64).map(lambda eighths: eighths / 8)
curves = st.lists(st.tuples(st.integers(1, 50), losses), min_size=1, max_size=12).map(
    lambda points: [
        (float(sum(seconds for seconds, _ in points[:number])), loss)
        for number, (_, loss) in enumerate(points)
    ]
)
"""Seconds rise from 0; losses go up and down."""


@settings(deadline=None)
@given(curves, losses, losses)
def test_a_lower_target_is_never_reached_earlier(curve: Curve, one: float, other: float) -> None:
    low, high = (seconds_to(target, curve) for target in sorted((one, other)))
    if low is not None:
        assert high is not None
        assert high <= low + 1e-9


@settings(deadline=None)
@given(curves, losses, st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
def test_times_that_scale_scale_the_answer(curve: Curve, target: float, factor: float) -> None:
    """Norm. Training Time does not depend on the unit. Powers of two, so that nothing is rounded."""
    seconds = seconds_to(target, curve)
    scaled = seconds_to(target, [(factor * time, loss) for time, loss in curve])
    assert scaled == (None if seconds is None else factor * seconds)


@settings(deadline=None)
@given(curves, losses)
def test_reached_iff_the_best_loss_is_as_low(curve: Curve, target: float) -> None:
    seconds = seconds_to(target, curve)
    assert (seconds is not None) == (min(loss for _, loss in curve) <= target)
    if seconds is not None:
        assert curve[0][0] <= seconds <= curve[-1][0]
        assert all(loss > target for time, loss in curve if time < seconds - 1e-9)


@settings(deadline=None)
@given(curves, losses)
def test_only_the_running_minimum_counts(curve: Curve, target: float) -> None:
    best = [(time, min(loss for _, loss in curve[: number + 1])) for number, (time, _) in enumerate(curve)]
    assert seconds_to(target, best) == seconds_to(target, curve)
