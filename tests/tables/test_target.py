"""Time to target: fits, crossings and ratios worked by hand, and what a lucky point may not do."""

import math
from itertools import pairwise

import numpy as np
import pytest
from factories import make_result
from hypothesis import given
from hypothesis import strategies as st

from repro.report.target import time_to_target
from repro.results.records import CurvePoint
from repro.results.run import RunResult
from repro.results.target import fit, is_reached, loss_at, steps_to, target_of, target_ratio


def curve(*losses: float, every: int = 10) -> list[CurvePoint]:
    """A loss every 10 steps, from step 0."""
    return [CurvePoint(every * place, 2.0 * place, loss) for place, loss in enumerate(losses)]


def result(points: list[CurvePoint], steps: int, seconds: float = 1.0, seed: int = 0) -> RunResult:
    return make_result(
        gate="top-2",
        seed=seed,
        steps=steps,
        seconds_per_step=seconds,
        curve=[list(point) for point in points],
    )


class TestFit:
    def test_what_falls_is_kept(self) -> None:
        assert fit(curve(4, 3, 1)) == [(0, 4), (10, 3), (20, 1)]

    def test_what_rises_is_pooled_around_its_centre(self) -> None:
        """5 | 4, 4.5 | 3 | 2, 2.5, 3: blocks of their means."""
        assert fit(curve(5, 4, 4.5, 3, 2, 2.5, 3)) == [(0, 5), (15, 4.25), (30, 3), (50, 2.5)]

    def test_a_curve_that_only_rises_is_one_block(self) -> None:
        assert fit(curve(1, 2, 3)) == [(10, 2)]

    @given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
    def test_it_falls_and_keeps_the_mean(self, losses: list[float]) -> None:
        knots = fit(curve(*losses))
        assert all(first.loss > second.loss for first, second in pairwise(knots))
        assert all(first.step < second.step for first, second in pairwise(knots))
        assert knots[-1].loss <= np.mean(losses) + 1e-9
        assert min(losses) - 1e-9 <= knots[-1].loss


class TestStepsTo:
    def test_linear_between_two_points(self) -> None:
        assert steps_to(2.0, curve(4, 3, 1)) == 15

    def test_between_the_centres_of_two_blocks(self) -> None:
        """From (15, 4.25) to (30, 3): 4.25 - 3.5 is 0.6 of the way."""
        assert steps_to(3.5, curve(5, 4, 4.5, 3)) == pytest.approx(24)

    def test_reached_from_the_start_or_never(self) -> None:
        assert steps_to(4.0, curve(4, 3)) == 0
        assert steps_to(0.5, curve(4, 3)) is None

    def test_a_lucky_point_does_not_reach(self) -> None:
        """The least loss is 1.5; its neighbours say that the curve is at 2."""
        assert steps_to(1.6, curve(4, 3, 1.5, 2.5, 2, 2, 2)) is None

    @given(st.lists(st.floats(0, 10), min_size=2, max_size=30), st.floats(0, 10), st.floats(0, 10))
    def test_a_lower_target_takes_longer(self, losses: list[float], one: float, other: float) -> None:
        low, high = (steps_to(target, curve(*losses)) for target in sorted((one, other)))
        assert low is None or (high is not None and high <= low)


class TestLossAt:
    def test_linear_between_blocks_and_level_at_the_ends(self) -> None:
        knots = fit(curve(5, 4, 4.5, 3))  # (0, 5), (15, 4.25), (30, 3)
        assert [loss_at(step, knots) for step in (-1, 0, 24, 30, 99)] == pytest.approx([5, 5, 3.5, 3, 3])


class TestIsReached:
    """Budget 50 steps: a margin of 5."""

    def test_only_when_points_behind_it_confirm_it(self) -> None:
        assert not is_reached(curve(5, 4, 3, 2), 2.0, 50)
        assert is_reached(curve(5, 4, 3, 2, 1.9), 2.0, 50)
        assert not is_reached(curve(5, 4, 3, 2, 1.9), 2.0, 200)

    def test_a_lucky_point_is_taken_back(self) -> None:
        assert not is_reached(curve(5, 4, 3, 1.0, 3.0), 1.5, 50)

    def test_of_nothing(self) -> None:
        assert not is_reached([], 2.0, 50)


class TestRatio:
    BASE = result(curve(5, 4, 3, 2), steps=30)

    def test_the_target_is_the_fitted_loss_at_the_budget(self) -> None:
        assert target_of(self.BASE) == 2
        bumpy = result(curve(5, 4, 2, 3, 1), steps=30)  # blocks 5 | 4 | 2, 3 | 1, at 0, 10, 25 and 40
        assert target_of(bumpy) == pytest.approx(2.5 - 1.5 / 3)

    def test_steps_times_time_per_step(self) -> None:
        ratio = target_ratio(result(curve(5, 4, 3, 2.5, 1.5), steps=30, seconds=0.5), self.BASE)
        assert ratio is not None
        assert (ratio.steps, ratio.time_per_step) == pytest.approx((35 / 30, 0.5))
        assert ratio.time == pytest.approx(35 / 60)
        assert ratio.reached

    def test_a_miss_is_a_lower_bound(self) -> None:
        ratio = target_ratio(result(curve(5, 4, 4, 4, 4, 4, 4), steps=30, seconds=2.0), self.BASE)
        assert ratio is not None
        assert (ratio.reached, ratio.steps, ratio.time) == (False, 2, 4)

    def test_the_baseline_against_itself(self) -> None:
        bumpy = result(curve(5, 3, 4, 2, 2.5, 2.1), steps=50)
        ratio = target_ratio(bumpy, bumpy)
        assert ratio is not None
        assert (ratio.time, ratio.reached) == (1, True)

    def test_a_baseline_that_no_longer_falls(self) -> None:
        """Its target is reached in the middle of its last block, 2 and 2 at 30 and 40, not at the budget."""
        ratio = target_ratio(self.BASE, result(curve(5, 4, 3, 2, 2), steps=40))
        assert ratio is not None
        assert ratio.steps == pytest.approx(30 / 35)

    def test_a_baseline_that_learned_nothing(self) -> None:
        assert target_ratio(self.BASE, result(curve(1, 2, 3), steps=20)) is None

    def test_losses_under_a_falling_rate_are_not_compared(self) -> None:
        falling = make_result(gate="top-1", config__training={"schedule": "linear"})
        assert target_ratio(falling, self.BASE) is None
        assert target_ratio(self.BASE, falling) is None

    def test_equal_schemes_have_no_bias(self) -> None:
        """Noise alone: the mean of log ratios is 0 within three standard errors, and no seed is lost.

        Read at the end of its fit, the baseline's loss is too low, and the mean 0.05.
        """
        chance = np.random.default_rng(0)

        def noisy() -> RunResult:
            losses = 2 + 3 * np.exp(-np.arange(101) / 20) + chance.normal(0, 0.05, 101)
            return result(curve(*losses.tolist()), steps=500)

        ratios = [target_ratio(noisy(), noisy()) for _ in range(200)]
        logs = [math.log(ratio.steps) for ratio in ratios if ratio is not None and ratio.reached]
        assert len(logs) > 190
        assert abs(np.mean(logs)) < 3 * np.std(logs) / len(logs) ** 0.5


class TestOverSeeds:
    @staticmethod
    def base(seed: int) -> RunResult:
        return result(curve(5, 4, 3, 2), steps=30, seed=seed)

    def test_geometric_mean_and_interval_of_logs(self) -> None:
        runs = [
            result(curve(5, 4, 3, 2), steps=30, seconds=factor, seed=seed)
            for seed, factor in enumerate((0.5, 1.0, 2.0))
        ]
        found = time_to_target(runs, [self.base(seed) for seed in range(3)])
        assert found is not None
        assert found.time == pytest.approx(1)
        assert (found.reached, found.is_bound) == (3, False)
        half = 4.302653 * math.log(2) / 3**0.5  # t of 2 degrees, and the standard deviation of -ln 2, 0, ln 2
        assert found.interval == pytest.approx((math.exp(-half), math.exp(half)), rel=1e-5)
        assert (found.cell, found.by_seed) == (1, "0.5 1 2")

    def test_each_seed_has_its_own_target(self) -> None:
        """The mean of the curves would reach the mean target; seed by seed one of two misses."""
        runs = [result(curve(5, 4, 3, 1), steps=30, seed=0), result(curve(5, 4, 3, 3), steps=30, seed=1)]
        found = time_to_target(runs, [self.base(0), self.base(1)])
        assert found is not None
        assert [ratio.reached for ratio in found.ratios] == [True, False]
        assert found.interval is None
        assert found.by_seed == "0.8333 >1"
        assert found.cell == "> 0.913 (1 of 2 reached)"

    def test_seeds_without_a_partner_are_left_out(self) -> None:
        assert time_to_target([self.base(0)], [self.base(1)]) is None
        assert time_to_target([self.base(0)], []) is None
        found = time_to_target([self.base(0)], [self.base(0), self.base(1)])
        assert found is not None
        assert (found.cell, found.interval) == (1, None)
