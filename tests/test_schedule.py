"""The budget of a run and its learning rate, worked by hand."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
from torch import nn

from repro.config import TrainingConfig
from repro.training.optimizer import make_optimizer
from repro.training.schedule import Budget, make_schedule


def settings(schedule: Literal["wsd", "linear", "constant"] = "wsd", **changes: Any) -> TrainingConfig:
    plain: dict[str, Any] = {"learning_rate": 0.5, "warmup": 0.2, "steps": 10, "batch_size": 1}
    return TrainingConfig(schedule=schedule, **plain | changes)


def rates(of: TrainingConfig, factor: Callable[[int], float], steps: int) -> list[float]:
    """The learning rate of each step, as the optimizer has it."""
    optimizer = make_optimizer(nn.Linear(1, 1), of)
    schedule = make_schedule(optimizer, factor)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_linear_schedule_rises_and_falls() -> None:
    linear = settings("linear")
    budget = Budget.of(linear, 5)
    assert (budget.branch, budget.trunk_steps, budget.total_steps) == (None, 10, 10)
    expected = [0.25, 0.5, *(0.5 * (10 - step) / 8 for step in range(2, 11))]
    assert rates(linear, budget.trunk, 11) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_a_trunk_stays_at_its_rate_also_behind_the_budget(schedule: Literal["wsd", "constant"]) -> None:
    budget = Budget.of(settings(schedule), 5)
    assert rates(settings(schedule), budget.trunk, 20) == pytest.approx([0.25, *[0.5] * 19])


def test_the_cooldown_goes_on_where_the_trunk_was_and_ends_at_zero() -> None:
    budget = Budget.of(settings(cooldown=0.4), 5)
    assert (budget.branch, budget.total_steps) == (6, 15)  # 10 + 1 of the trunk, 4
    assert budget.cooldown(6) == budget.trunk(6) == 1
    assert [budget.cooldown(step) for step in range(6, 11)] == [1, 0.75, 0.5, 0.25, 0]


def test_a_cooldown_that_begins_in_the_warmup() -> None:
    """It starts from the trunk's rate, whatever that is."""
    budget = Budget.of(settings(cooldown=1.0, warmup=0.5), 5)
    assert budget.branch == 0
    assert [budget.cooldown(step) for step in (0, 4, 5, 9)] == pytest.approx([0.2, 0.6, 0.5, 0.1])


@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch", "steps", "branch"),
    [(3.0, 7, 21, 16), (1.5, 5, 8, 6), (0.01, 10, 1, 0)],
)
def test_epochs_and_shares_are_rounded_up(
    epochs: float, steps_per_epoch: int, steps: int, branch: int
) -> None:
    budget = Budget.of(settings(steps=None, epochs=epochs), steps_per_epoch)
    assert (budget.steps, budget.branch) == (steps, branch)


def test_measured_at_equal_distances_and_at_both_ends() -> None:
    """Of 103 steps every tenth, the last, and the end of the trunk, a tenth of the budget behind it."""
    budget = Budget.of(settings(steps=103), 5)
    measured = [step for step in range(1, 125) if budget.is_measured(step, 10)]
    assert measured == [*range(10, 101, 10), 103, 110, 114, 120]
    assert all(Budget.of(settings(steps=7), 5).is_measured(step, 50) for step in range(1, 8))
