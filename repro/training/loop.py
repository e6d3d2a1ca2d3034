"""What the parts of the training loop share, and the records that they leave."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from repro.config import RunConfig
from repro.moe.spread import ExchangeTotals
from repro.results.files import RunFolder, append_jsonl
from repro.results.records import (
    CurvePoint,
    EvalRecord,
    Exchange,
    ExchangeRecord,
    RoutingSummary,
    StepRecord,
)
from repro.training.curriculum import TrainingData
from repro.training.lane import Lane
from repro.training.placement import Placement
from repro.training.schedule import Budget
from repro.training.state import Progress, TrainingState
from repro.training.step_totals import StepTotals


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What the parts of the loop share. Only `state` and the contents of the objects change."""

    placement: Placement
    optimizer: Any
    scheduler: Any
    config: RunConfig
    data: TrainingData
    budget: Budget
    folder: RunFolder
    state: TrainingState
    measure_loss: Callable[[], float]
    report: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    lane: Lane
    is_trunk: bool = True
    """False in the cooldown, which branches off it."""

    @property
    def accelerator(self) -> Accelerator:
        """The processes of the launch."""
        return self.placement.accelerator

    @property
    def model(self) -> nn.Module:
        """What a step calls."""
        return self.placement.model

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint stays: where the cooldown branches off."""
        return self.budget.branch if self.is_trunk else None


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step gave."""

    totals: StepTotals
    learning_rate: float


def record_step(loop: Loop, step: Step, seconds: float, end: int) -> None:
    """Add a step to the totals; append its records and report it."""
    state, work, routing = loop.state, step.totals.work, step.totals.routing
    state.work += work
    state.routing += routing
    state.tokens += work.real.tokens
    summary = routing.summary()
    record = StepRecord(
        step=state.step,
        epoch=state.epoch,
        loss=step.totals.loss,
        auxiliary_loss=step.totals.auxiliary_loss,
        gradient_norm=step.totals.gradient_norm,
        learning_rate=step.learning_rate,
        seconds=seconds,
        tokens=work.real.tokens,
        padded_tokens=work.padded.tokens,
        mean_experts=summary.mean_experts,
        share_multi_expert=summary.share_multi_expert,
    )
    exchanges = loop.placement.take_exchanges()
    everyones = gather_object([exchanges]) if exchanges else []
    if loop.accelerator.is_main_process:
        _append(loop, record, summary, everyones)
    done, total_steps = place(loop, end)
    loop.report(
        Progress(record=record, done=done, total_steps=total_steps, train_seconds=state.train_seconds)
    )


def _append(
    loop: Loop, record: StepRecord, summary: RoutingSummary, exchanges: list[list[ExchangeTotals]]
) -> None:
    """Write the records of a step.

    Args:
        exchanges: of every process, layer by layer; none if they are not measured.
    """
    step, plain = record.step, record.to_json()
    append_jsonl(loop.folder.steps, [plain])
    if summary.share_by_count is not None:
        append_jsonl(loop.folder.routing, [{"step": step, **summary.to_json()}])
    if exchanges:
        layers = [[Exchange(**vars(layer)) for layer in process] for process in exchanges]
        append_jsonl(loop.folder.exchanges, [ExchangeRecord(step=step, layers=layers).to_json()])
    loop.accelerator.log({key: value for key, value in plain.items() if value is not None}, step=step)


def place(loop: Loop, end: int) -> tuple[int, int]:
    """Return the steps done, those of the trunk and of the cooldown, and how many there will be."""
    budget, step = loop.budget, loop.state.step
    if loop.is_trunk:
        return step, max(end, budget.total_steps)
    return budget.trunk_steps + step - budget.steps + budget.cooldown_steps, budget.total_steps


def measure(loop: Loop) -> None:
    """Add a point to the curve of the loss on the dev split."""
    state = loop.state
    point = CurvePoint(state.step, state.train_seconds, loop.measure_loss())
    require_finite("the evaluation loss", point.eval_loss, state.step)
    state.curve.append(point)
    if loop.accelerator.is_main_process:
        append_jsonl(loop.folder.evals, [EvalRecord(**point._asdict()).to_json()])


def require_finite(what: str, value: float, step: int) -> None:
    """Stop a run that has diverged.

    Raises:
        FloatingPointError: the value is infinite or NaN.
    """
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} is {value} at step {step}; lower training.learning_rate")
