"""Train the trunk of a run until its loss on the dev split has reached a value."""

import math
from collections.abc import Callable

from repro.config import RunConfig
from repro.errors import UserError
from repro.results.base import Record
from repro.results.files import RunPaths, write_json
from repro.results.records import CurvePoint, read_curve
from repro.results.run import read_result
from repro.results.target import is_reached, steps_to
from repro.run.launch import begin, check_config, folder_of, launched
from repro.training.lane import ALONE, Lane
from repro.training.schedule import FARTHEST
from repro.training.state import Progress
from repro.training.trainer import train_until


class TimeToLoss(Record):
    """When the trunk of a run reached a loss on the dev split."""

    run_id: str
    loss: float
    """The loss that was asked for."""
    steps: float | None
    """Optimizer steps to it, on the fitted curve; None if it was not reached."""
    train_seconds: float | None
    """Training seconds up to that step."""
    trained_steps: int
    """Where the trunk ended."""
    last_loss: float
    """What was measured there."""


def execute_until(
    config: RunConfig,
    paths: RunPaths,
    loss: float,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    lane: Lane = ALONE,
) -> TimeToLoss:
    """Start the trunk of a run, or let it go on, until a loss is reached; at most twice the run's budget.

    The points that it adds to the curve of a finished run become part of its result. It goes on for a tenth
    of the budget after the loss is reached (`target.MARGIN`), so that one lucky point is no success.

    Args:
        fresh: discard what an earlier run with the same configuration left.
        report, should_stop, lane: as in `execute`, whose exceptions it raises, too.

    Raises:
        UserError: the loss is not finite, or losses under the run's schedule fall by themselves.
    """
    if not math.isfinite(loss):
        raise UserError(f"--until-loss: must be finite, got {loss}")
    if config.training.schedule == "linear":
        raise UserError(
            "--until-loss: with training.schedule = 'linear' a loss falls because the schedule ends;"
            " use 'wsd' or 'constant'"
        )
    folder = folder_of(config, paths)
    if folder.config.exists() and not fresh:
        check_config(folder, config)
        result = read_result(folder.result) if folder.result.exists() else None
        if result and (
            is_reached(result.curve, loss, result.steps) or result.curve[-1].step >= FARTHEST * result.steps
        ):
            return _outcome(config, loss, result.curve)
    with launched(config, paths, fresh=fresh, tensorboard=tensorboard) as launch:
        begin(launch, paths, fresh=fresh, tensorboard=tensorboard)
        train_until(
            launch.placement,
            config,
            launch.prepared.data,
            folder,
            loss,
            measure_loss=launch.dev_loss,
            report=launch.guarded(report),
            should_stop=should_stop,
            lane=lane,
            whole_budget=folder.result.exists(),
        )
        curve = read_curve(folder.evals)
        if launch.accelerator.is_main_process and folder.result.exists():
            result = read_result(folder.result)
            write_json(folder.result, result.model_copy(update={"curve": curve}).to_json())
        launch.accelerator.end_training()
    return _outcome(config, loss, curve)


def seconds_at(steps: float, curve: list[CurvePoint]) -> float:
    """Return the training seconds at a step, linear between the points of a curve."""
    before = curve[0]
    for point in curve[1:]:
        if point.step >= steps:
            share = (steps - before.step) / (point.step - before.step)
            return before.train_seconds + share * (point.train_seconds - before.train_seconds)
        before = point
    return before.train_seconds


def _outcome(config: RunConfig, loss: float, curve: list[CurvePoint]) -> TimeToLoss:
    steps = steps_to(loss, curve)
    return TimeToLoss(
        run_id=config.run_id,
        loss=loss,
        steps=steps,
        train_seconds=None if steps is None else seconds_at(steps, curve),
        trained_steps=curve[-1].step,
        last_loss=curve[-1].eval_loss,
    )
