"""Time to target: when the loss of a run, measured on a trunk at a constant rate, reaches a given value.

Losses that are measured at single steps are noisy, and the least of them is a lucky one. So the curve is
made monotone by a fit (isotonic regression, which pools neighbours that rise into blocks of their mean), and
between the centres of two blocks the loss is taken as linear in steps. The target of a seed is the fitted
loss of the baseline at its budget. The end of a fit is biased, as its last block is the lowest of all that
could end it: so every trunk is measured a tenth of the budget farther than it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from repro.results.records import CurvePoint
from repro.results.run import RunResult

MARGIN = 0.1
"""Share of the budget by which a trunk is measured farther than it is read."""


class Knot(NamedTuple):
    """A block of the fit."""

    step: float
    """Mean step of its points."""
    loss: float
    """Their mean loss, less than that of the block before."""


def fit(curve: Sequence[CurvePoint]) -> list[Knot]:
    """Fit a falling curve: the blocks of an isotonic regression of the losses on the steps."""
    from scipy.optimize import isotonic_regression

    blocks = isotonic_regression([point.eval_loss for point in curve], increasing=False).blocks
    knots = []
    for first, end in pairwise(blocks):
        points = curve[first:end]
        knots.append(
            Knot(
                sum(point.step for point in points) / len(points),
                sum(point.eval_loss for point in points) / len(points),
            )
        )
    return knots


def loss_at(step: float, knots: Sequence[Knot]) -> float:
    """Return the fitted loss at a step."""
    before = knots[0]
    for knot in knots:
        if knot.step >= step:
            share = (step - before.step) / (knot.step - before.step) if knot is not before else 1.0
            return before.loss + share * (knot.loss - before.loss)
        before = knot
    return before.loss


def steps_to(target: float, curve: Sequence[CurvePoint]) -> float | None:
    """Return the steps at which the fitted loss is down to the target; None if it never is."""
    before: Knot | None = None
    for knot in fit(curve):
        if knot.loss <= target:
            if before is None:
                return knot.step
            return before.step + (knot.step - before.step) * (before.loss - target) / (
                before.loss - knot.loss
            )
        before = knot
    return None


def is_reached(curve: Sequence[CurvePoint], target: float, budget: int) -> bool:
    """Return whether the target is reached for good: the points behind it, up to the margin, are there.

    Args:
        budget: steps of the run.
    """
    reached = steps_to(target, curve) if curve else None
    return reached is not None and curve[-1].step - reached >= MARGIN * budget


def target_of(baseline: RunResult) -> float:
    """Return the target that a run of the baseline sets: its fitted loss at the budget."""
    return loss_at(baseline.steps, fit(baseline.curve))


@dataclass(frozen=True, kw_only=True)
class TargetRatio:
    """How long a run took to the target of its seed, relative to the baseline's run of that seed."""

    seed: int
    reached: bool
    """False: the ratios of steps and of time are lower bounds, for the trunk ended before."""
    steps: float
    time_per_step: float
    """Of median training times, which can be compared where the runs were interleaved."""

    @property
    def time(self) -> float:
        """Norm. Training Time (paper 4.4)."""
        return self.steps * self.time_per_step


def target_ratio(run: RunResult, baseline: RunResult) -> TargetRatio | None:
    """Compare a run with the baseline's of its seed; None if a loss falls because the schedule ends.

    It is None, too, where the baseline's loss does not fall at all: there is nothing to reach.
    """
    if "linear" in (run.schedule, baseline.schedule) or len(fit(baseline.curve)) == 1:
        return None
    target = target_of(baseline)
    # The budget, but where the loss did not fall any more: then the middle of that part.
    reference = steps_to(target, baseline.curve)
    assert reference, "a curve of several blocks falls to its own loss, behind its first point"
    reached = steps_to(target, run.curve)
    steps = reached if reached is not None else float(run.curve[-1].step)
    return TargetRatio(
        seed=run.seed,
        reached=reached is not None,
        steps=steps / reference,
        time_per_step=run.seconds_per_step / baseline.seconds_per_step,
    )
