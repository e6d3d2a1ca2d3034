"""What the parts of the training loop share, and the records that they leave."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from repro.config import RunConfig
from repro.moe.flops import Work
from repro.moe.routing import RoutingTape, RoutingTotals
from repro.results.files import RunFolder, append_jsonl
from repro.results.records import CurvePoint, EvalRecord, StepRecord
from repro.tasks.base import Batch
from repro.training.curriculum import TrainingData
from repro.training.schedule import Budget
from repro.training.state import Progress, TrainingState


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What the parts of the loop share. Only `state` and the contents of the objects change."""

    accelerator: Accelerator
    model: Any
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
    is_trunk: bool = True
    """False in the cooldown, which branches off it."""

    @property
    def kept_step(self) -> int | None:
        """The step whose checkpoint stays: where the cooldown branches off."""
        return self.budget.branch if self.is_trunk else None


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step gave on this process."""

    loss: float
    auxiliary_loss: float
    gradient_norm: float
    learning_rate: float
    forwards: list[tuple[Batch, RoutingTape]]
    """Each batch with the routing of its forward pass."""


def record_step(loop: Loop, step: Step, seconds: float, end: int) -> None:
    """Add the step, over all processes, to the totals; append its records and report it."""
    work, routing = Work(), RoutingTotals()
    for batch, tape in step.forwards:
        work += Work.of(tape, loop.data.task.masks(batch))
        routing += RoutingTotals.of(tape)
    parts = gather_object([(work, routing, step.loss, step.auxiliary_loss)])
    work = sum((part[0] for part in parts), Work())
    routing = sum((part[1] for part in parts), RoutingTotals())
    state = loop.state
    state.work += work
    state.routing += routing
    state.tokens += work.real.tokens
    summary = routing.summary()
    record = StepRecord(
        step=state.step,
        epoch=state.epoch,
        loss=sum(part[2] for part in parts) / len(parts),
        auxiliary_loss=sum(part[3] for part in parts) / len(parts),
        gradient_norm=step.gradient_norm,
        learning_rate=step.learning_rate,
        seconds=seconds,
        tokens=work.real.tokens,
        padded_tokens=work.padded.tokens,
        mean_experts=summary.mean_experts,
        share_multi_expert=summary.share_multi_expert,
    )
    if not loop.accelerator.is_main_process:
        return
    plain = record.to_json()
    append_jsonl(loop.folder.steps, [plain])
    if summary.share_by_count is not None:
        append_jsonl(loop.folder.routing, [{"step": state.step, **summary.to_json()}])
    loop.accelerator.log({key: value for key, value in plain.items() if value is not None}, step=state.step)
    done, total_steps = place(loop, end)
    loop.report(
        Progress(record=record, done=done, total_steps=total_steps, train_seconds=state.train_seconds)
    )


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
