"""The one training loop, for every task and gate, on Hugging Face Accelerate."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch.profiler import record_function

from repro.config import RunConfig
from repro.errors import Interrupted
from repro.machine import Stopwatch
from repro.moe.flops import Work
from repro.moe.routing import RoutingTape, RoutingTotals, record_routing
from repro.results.files import RunFolder, append_jsonl
from repro.results.records import CurvePoint, EvalRecord, StepRecord
from repro.tasks.base import Batch
from repro.training.checkpoints import resume, save_checkpoint
from repro.training.curriculum import TrainingData, epoch_steps
from repro.training.optimizer import clip_gradients, make_optimizer
from repro.training.schedule import make_schedule
from repro.training.state import Progress, TrainingState

STEP, DATA, OPTIMIZER, RECORDS = "repro: step", "repro: data", "repro: optimizer", "repro: records"
"""Names of a step and of three of its parts in a profile; most of the records are made after it."""


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """What the parts of the loop share. Only `state` and the contents of the objects change."""

    accelerator: Accelerator
    model: Any
    optimizer: Any
    scheduler: Any
    config: RunConfig
    data: TrainingData
    folder: RunFolder
    state: TrainingState


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What one optimizer step gave on this process."""

    loss: float
    auxiliary_loss: float
    gradient_norm: float
    learning_rate: float
    forwards: list[tuple[Batch, RoutingTape]]
    """Each batch with the routing of its forward pass."""


def train(
    accelerator: Accelerator,
    model: Any,
    config: RunConfig,
    data: TrainingData,
    folder: RunFolder,
    *,
    measure_loss: Callable[[], float],
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> TrainingState:
    """Train to the end, from the last checkpoint in `folder` if there is one.

    Time is counted from taking a batch to the end of the optimizer's step; evaluation, checkpoints
    and records are outside. The same configuration and seed give the same losses bit for bit on the
    same machine, also across a kill and a resume.

    Args:
        measure_loss: the model's loss on the fixed validation subset; called at regular steps.
        report: called after every optimizer step.
        should_stop: asked after every step; when true a checkpoint is saved. The last step has one always.

    Raises:
        Interrupted: `should_stop` said so.
        FloatingPointError: a loss or a gradient is not finite.
        UserError: the checkpoint is damaged.
        OSError: a file cannot be written.
    """
    loop = _prepare(accelerator, model, config, data, folder)
    state = loop.state
    watch = Stopwatch(accelerator.device)
    resume(loop)
    if state.step == 0:
        _measure(loop, measure_loss)
    loop.model.train()
    while True:
        steps = epoch_steps(config, data, state, accelerator.num_processes)
        while state.position < len(steps) and state.step < state.total_steps:
            with watch, record_function(STEP):
                step = _train_step(loop, steps[state.position])
            state.step += 1
            state.position += 1
            state.add_time(watch)
            with record_function(RECORDS):
                _record(loop, step, watch.seconds, report)
            last = state.step == state.total_steps
            if last or state.step % config.evaluation.every == 0:
                _measure(loop, measure_loss)
            stopping = any(gather_object([should_stop()]))
            if stopping or last or state.step % config.training.checkpoint_every == 0:
                save_checkpoint(loop)
            if stopping:
                raise Interrupted(f"stopped after step {state.step} of {state.total_steps}")
        # Also after a resume at the end of an epoch, whose checkpoint is from before this.
        if state.position == len(steps):
            _end_epoch(loop)
        if state.step == state.total_steps:
            return state


def _prepare(
    accelerator: Accelerator, model: Any, config: RunConfig, data: TrainingData, folder: RunFolder
) -> _Loop:
    """Make optimizer and schedule, and let Accelerate wrap them."""
    settings = config.training
    state = TrainingState()
    processes = accelerator.num_processes
    total_steps = settings.steps or math.ceil(
        (settings.epochs or 0) * len(epoch_steps(config, data, state, processes))
    )
    state.total_steps = total_steps
    optimizer = make_optimizer(model, settings)
    scheduler = make_schedule(optimizer, settings, total_steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    return _Loop(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        config=config,
        data=data,
        folder=folder,
        state=state,
    )


def _train_step(loop: _Loop, batches: list[list[int]]) -> _Step:
    """Run forward and backward over the batches of one step, then one step of the optimizer.

    The gradient is that of the mean over all loss terms of the step, however they are spread over
    batches and processes.
    """
    accelerator, task = loop.accelerator, loop.data.task
    with record_function(DATA):
        mine = [batch[accelerator.process_index :: accelerator.num_processes] for batch in batches]
        chosen = [[loop.data.train[index] for index in indices] for indices in mine]
        tensors = [task.collate(features) for features in chosen]
        terms = [task.loss_terms(batch) for batch in tensors]
    # Processes average their gradients, so each counts its terms against an average total.
    total = sum(gather_object([sum(terms)])) / accelerator.num_processes
    forwards = []
    loss_sum, auxiliary_sum = 0.0, 0.0
    for number, batch in enumerate(tensors):
        share = terms[number] / total
        # Processes add up their gradients once, with the last batch of the step.
        last = number + 1 == len(tensors)
        with nullcontext() if last else accelerator.no_sync(loop.model):
            with record_routing(loop.model) as tape:
                moved = send_to_device(batch, accelerator.device)
                loss = task.loss(loop.model(**moved), moved)
            auxiliary = tape.loss()
            accelerator.backward((loss + auxiliary) * share)
        tape.update_gates()
        loss_sum += float(loss.detach()) * share
        auxiliary_sum += float(torch.as_tensor(auxiliary).detach()) * share
        with record_function(RECORDS):
            _remember_ratios(loop, tape, mine[number])
        forwards.append((batch, tape))
    _require_finite("the loss", loss_sum, loop.state.step + 1)
    _require_finite("the auxiliary loss", auxiliary_sum, loop.state.step + 1)
    learning_rate = loop.scheduler.get_last_lr()[0]
    with record_function(OPTIMIZER):
        norm = clip_gradients(loop.model, loop.config.training.clip_norm)
        _require_finite("the norm of the gradients", norm, loop.state.step + 1)
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.scheduler.step()
    return _Step(
        loss=loss_sum,
        auxiliary_loss=auxiliary_sum,
        gradient_norm=norm,
        learning_rate=learning_rate,
        forwards=forwards,
    )


def _remember_ratios(loop: _Loop, tape: RoutingTape, indices: list[int]) -> None:
    """Keep the complexity vectors that this forward pass gave for free (paper eq. 5)."""
    if not tape.entries:
        return
    state, samples = loop.state, len(loop.data.train)
    ratios_BL = tape.ratios_BL().float().cpu()
    if state.next_ratios_NL is None or state.next_num_multi_expert_N is None:
        state.next_ratios_NL = torch.zeros(samples, ratios_BL.shape[1])
        state.next_num_multi_expert_N = torch.zeros(samples, dtype=torch.int64)
    state.next_ratios_NL[indices] = ratios_BL
    state.next_num_multi_expert_N[indices] = tape.num_multi_expert_BL().sum(1).cpu()


def _end_epoch(loop: _Loop) -> None:
    """Make this epoch's ratios those of the epoch before."""
    state = loop.state
    if state.next_ratios_NL is not None and loop.accelerator.num_processes > 1:
        # Each sample was seen by one process; the others hold zeros for it.
        parts = gather_object([(state.next_ratios_NL, state.next_num_multi_expert_N)])
        state.next_ratios_NL = sum(part[0] for part in parts)
        state.next_num_multi_expert_N = sum(part[1] for part in parts)
    state.ratios_NL, state.next_ratios_NL = state.next_ratios_NL, None
    state.num_multi_expert_N, state.next_num_multi_expert_N = state.next_num_multi_expert_N, None
    state.epoch += 1
    state.position = 0


def _record(loop: _Loop, step: _Step, seconds: float, report: Callable[[Progress], None]) -> None:
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
    report(Progress(record=record, total_steps=state.total_steps, train_seconds=state.train_seconds))


def _measure(loop: _Loop, measure_loss: Callable[[], float]) -> None:
    """Add a point to the curve of evaluation loss against training time."""
    state = loop.state
    point = CurvePoint(state.step, state.train_seconds, measure_loss())
    _require_finite("the evaluation loss", point.eval_loss, state.step)
    state.curve.append(point)
    if loop.accelerator.is_main_process:
        append_jsonl(loop.folder.evals, [EvalRecord(**point._asdict()).to_json()])


def _require_finite(what: str, value: float, step: int) -> None:
    """Stop a run that has diverged.

    Raises:
        FloatingPointError: the value is infinite or NaN.
    """
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} is {value} at step {step}; lower training.learning_rate")
