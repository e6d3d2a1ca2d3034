"""The one training loop, for every task and gate, on Hugging Face Accelerate."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch.profiler import record_function

from repro.config import RunConfig
from repro.errors import Interrupted
from repro.machine import Stopwatch
from repro.moe.routing import record_routing
from repro.results.files import RunFolder
from repro.results.target import is_reached
from repro.training.checkpoints import has_checkpoint, resume, save_checkpoint
from repro.training.curriculum import TrainingData, epoch_steps, require_effect
from repro.training.epoch import end_epoch, remember_ratios, share_ratios
from repro.training.lane import ALONE, Lane
from repro.training.loop import Loop, Step, measure, place, record_step, require_finite
from repro.training.optimizer import clip_gradients, make_optimizer
from repro.training.schedule import FARTHEST, Budget, make_schedule
from repro.training.state import Progress, TrainingState

STEP, DATA, OPTIMIZER, RECORDS = "repro: step", "repro: data", "repro: optimizer", "repro: records"
"""Names of a step and of three of its parts in a profile; most of the records are made after it."""


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
    lane: Lane = ALONE,
) -> TrainingState:
    """Train to the end of the budget, from the last checkpoint in `folder` if there is one.

    The trunk comes first. Then the state at the branch is restored, and the cooldown is trained from it,
    with records and checkpoints in a folder of its own.

    Time is counted from taking a batch to the end of the optimizer's step; evaluation, checkpoints
    and records are outside. The same configuration and seed give the same losses bit for bit on the
    same machine, also across a kill and a resume.

    Args:
        measure_loss: the model's loss on the dev split; called at regular steps.
        report: called after every optimizer step.
        should_stop: asked after every step; when true a checkpoint is saved. The last step has one always.
        lane: where it trains.

    Returns:
        The state of the model at the end of the cooldown; its steps before the branch are the trunk's.

    Raises:
        Interrupted: `should_stop` said so.
        FloatingPointError: a loss or a gradient is not finite.
        UserError: the checkpoint is damaged.
        OSError: a file cannot be written.
    """
    loop = _prepare(accelerator, model, config, data, folder, measure_loss, report, should_stop, lane)
    budget = loop.budget
    if not has_checkpoint(folder.cooldown):
        resume(loop)
        _run(loop, budget.trunk_steps)
    if budget.branch is None:
        return loop.state
    branch = replace(
        loop,
        scheduler=make_schedule(loop.optimizer, budget.cooldown),
        folder=folder.cooldown,
        state=TrainingState(),
        is_trunk=False,
    )
    if accelerator.is_main_process:
        branch.folder.path.mkdir(exist_ok=True)
    accelerator.wait_for_everyone()
    resume(branch, start=(folder, budget.branch))
    _run(branch, budget.steps)
    return branch.state


def train_until(
    accelerator: Accelerator,
    model: Any,
    config: RunConfig,
    data: TrainingData,
    folder: RunFolder,
    loss: float,
    *,
    measure_loss: Callable[[], float],
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    lane: Lane = ALONE,
    whole_budget: bool = False,
) -> TrainingState:
    """Train the trunk until its loss on the dev split has reached `loss`, for at most twice the budget.

    Args:
        whole_budget: do not stop before the trunk's end of the budget, where a result needs it.
        measure_loss, report, should_stop, lane: as in `train`, whose exceptions it raises, too.
    """
    loop = _prepare(accelerator, model, config, data, folder, measure_loss, report, should_stop, lane)
    resume(loop)
    if whole_budget:
        _run(loop, max(loop.budget.trunk_steps, loop.state.step))
    _run(loop, FARTHEST * loop.budget.steps, until=loss)
    return loop.state


def _prepare(
    accelerator: Accelerator,
    model: Any,
    config: RunConfig,
    data: TrainingData,
    folder: RunFolder,
    measure_loss: Callable[[], float],
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    lane: Lane,
) -> Loop:
    """Make optimizer and schedule, and let Accelerate wrap them.

    Raises:
        UserError: the run ends before its order of data acts.
    """
    state = TrainingState()
    first_epoch = len(epoch_steps(config, data, state, accelerator.num_processes))
    budget = Budget.of(config.training, first_epoch)
    require_effect(config.training, budget.steps, first_epoch)
    optimizer = make_optimizer(model, config.training)
    scheduler = make_schedule(optimizer, budget.trunk)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Loop(
        accelerator=accelerator,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        config=config,
        data=data,
        budget=budget,
        folder=folder,
        state=state,
        measure_loss=measure_loss,
        report=report,
        should_stop=should_stop,
        lane=lane,
    )


def _run(loop: Loop, end: int, until: float | None = None) -> None:
    """Train up to the step `end`, or until a loss is reached."""
    state, lane = loop.state, loop.lane
    watch = Stopwatch(loop.accelerator.device)
    if state.step == 0 and loop.is_trunk:
        measure(loop)
        if loop.kept_step == 0:
            save_checkpoint(loop)
    loop.model.train()
    while True:
        steps = epoch_steps(loop.config, loop.data, state, loop.accelerator.num_processes)
        while state.position < len(steps) and state.step < end and not _has_reached(loop, until):
            lane.train()
            with watch, record_function(STEP):
                step = _train_step(loop, steps[state.position])
            state.step += 1
            state.position += 1
            state.add_time(watch, lane)
            with record_function(RECORDS):
                record_step(loop, step, watch.seconds, end)
            _measure_and_save(loop, end, until)
        # Also after a resume at the end of an epoch, whose checkpoint is from before this.
        if state.position == len(steps):
            end_epoch(loop)
        elif state.step == end or _has_reached(loop, until):
            lane.rest()
            return


def _measure_and_save(loop: Loop, end: int, until: float | None) -> None:
    """Do what is due after a step.

    Raises:
        Interrupted: a stop was asked for; a checkpoint was saved.
    """
    state, settings = loop.state, loop.config.training
    last = state.step == end
    if last or (loop.is_trunk and loop.budget.is_measured(state.step, loop.config.evaluation.points)):
        loop.lane.rest()
        measure(loop)
    stopping = any(gather_object([loop.should_stop()]))
    due = state.step % settings.checkpoint_every == 0 or state.step == loop.kept_step
    if stopping or last or due or _has_reached(loop, until):
        loop.lane.rest()
        share_ratios(loop)
        state.partners = sorted({*state.partners, *loop.lane.partners()})
        save_checkpoint(loop)
    if stopping:
        raise Interrupted("stopped after step {} of {}".format(*place(loop, end)))


def _has_reached(loop: Loop, loss: float | None) -> bool:
    return loss is not None and is_reached(loop.state.curve, loss, loop.budget.steps)


def _train_step(loop: Loop, batches: list[list[int]]) -> Step:
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
            remember_ratios(loop, tape, mine[number])
        forwards.append((batch, tape))
    require_finite("the loss", loss_sum, loop.state.step + 1)
    require_finite("the auxiliary loss", auxiliary_sum, loop.state.step + 1)
    learning_rate = loop.scheduler.get_last_lr()[0]
    with record_function(OPTIMIZER):
        norm = clip_gradients(loop.model, loop.config.training.clip_norm)
        require_finite("the norm of the gradients", norm, loop.state.step + 1)
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.scheduler.step()
    return Step(
        loss=loss_sum,
        auxiliary_loss=auxiliary_sum,
        gradient_norm=norm,
        learning_rate=learning_rate,
        forwards=forwards,
    )
