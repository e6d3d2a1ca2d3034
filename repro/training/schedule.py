"""The budget of a run, and the learning rate over its steps.

`wsd` (warm-up, stable, decay; https://arxiv.org/abs/2404.06395): after the warm-up the *trunk* goes on at a
constant rate, so that losses can be compared at any step; the *cooldown* is a branch of it that falls to 0
and gives the model that would be used. The trunk is not touched by it and goes on beyond the budget. With
`constant` the branch has no steps: the outcome is the trunk's model at the budget.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from repro.config import TrainingConfig
from repro.results.target import MARGIN

FARTHEST = 2
"""Budgets after which a trunk that has not reached its target stops."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many optimizer steps a run does, and where its cooldown branches off."""

    steps: int
    """N: the model after so many steps is the run's outcome."""
    schedule: str
    cooldown_steps: int
    """Steps of the branch, which ends at N; 0 where the trunk itself is the outcome."""
    warmup_steps: int

    @staticmethod
    def of(settings: TrainingConfig, steps_per_epoch: int) -> "Budget":
        """Work out the budget of a run whose first epoch has so many steps."""
        steps = settings.steps or math.ceil((settings.epochs or 0) * steps_per_epoch)
        cooldown = math.ceil(settings.cooldown * steps) if settings.schedule == "wsd" else 0
        return Budget(
            steps=steps,
            schedule=settings.schedule,
            cooldown_steps=cooldown,
            warmup_steps=math.ceil(settings.warmup * steps),
        )

    @property
    def name(self) -> str:
        """What checkpoints of this budget are of."""
        return f"{self.steps} steps ({self.schedule}, cooldown {self.cooldown_steps})"

    @property
    def branch(self) -> int | None:
        """The step of the trunk from which the outcome branches off; None where the trunk ends with it."""
        return None if self.schedule == "linear" else self.steps - self.cooldown_steps

    @property
    def trunk_steps(self) -> int:
        """Steps of the trunk: to N, and the margin that its fitted loss at N needs."""
        return self.steps + (0 if self.schedule == "linear" else math.ceil(MARGIN * self.steps))

    @property
    def total_steps(self) -> int:
        """Steps of the trunk and of the branch."""
        return self.trunk_steps + self.cooldown_steps

    def is_late(self, step: int) -> bool:
        """Tell whether a step, counted from 0, is in the second half of the budget, or behind it."""
        return 2 * step >= self.steps

    def is_measured(self, step: int, points: int) -> bool:
        """Tell whether the trunk is measured after a step: at `points` places of N, at N and at its end."""
        return step % max(1, round(self.steps / points)) == 0 or step in (self.steps, self.trunk_steps)

    def trunk(self, step: int) -> float:
        """Return the learning rate of the trunk after `step` steps, relative to the highest."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule != "linear":
            return 1.0
        return max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))

    def cooldown(self, step: int) -> float:
        """Return the learning rate of the cooldown after `step` steps, relative to the highest.

        It falls linearly from the trunk's to 0 at N.
        """
        return self.trunk(step) * (self.steps - step) / max(1, self.cooldown_steps)


def set_step(scheduler: LambdaLR, step: int) -> None:
    """Set the learning rates to those after so many steps."""
    scheduler.last_epoch = step
    pairs = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    scheduler._last_lr = []
    for group, base, factor in pairs:
        group["lr"] = base * factor(step)
        scheduler._last_lr.append(group["lr"])


def make_schedule(optimizer: AdamW, factor: Callable[[int], float]) -> LambdaLR:
    """Multiply the learning rates by a function of the steps done."""
    return LambdaLR(optimizer, factor)
