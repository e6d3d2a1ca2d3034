"""The one training loop, for every task and gate, on Hugging Face Accelerate."""

from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate.utils import send_to_device
from torch.profiler import record_function

from repro.config import RunConfig
from repro.errors import Interrupted
from repro.machine import Stopwatch
from repro.moe.routing import idle_routing, record_routing
from repro.results.files import RunFolder
from repro.results.target import is_reached
from repro.training.checkpoints import has_checkpoint, resume, save_checkpoint
from repro.training.curriculum import TrainingData, epoch_steps, require_effect
from repro.training.epoch import end_epoch, remember_ratios, share_ratios
from repro.training.lane import ALONE, Lane
from repro.training.loop import Loop, Step, measure, place, record_step, require_finite
from repro.training.optimizer import make_optimizer
from repro.training.placement import Placement, exceeds
from repro.training.schedule import FARTHEST, Budget, make_schedule
from repro.training.state import Progress, TrainingState
from repro.training.step_totals import OwnTotals

STEP, DATA, OPTIMIZER, RECORDS = "repro: step", "repro: data", "repro: optimizer", "repro: records"
"""Names of a step and of three of its parts in a profile; most of the records are made after it."""


def train(
    placement: Placement,
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
        placement: the model.
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
    loop = _prepare(placement, config, data, folder, measure_loss, report, should_stop, lane)
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
    if loop.accelerator.is_main_process:
        branch.folder.path.mkdir(exist_ok=True)
    loop.accelerator.wait_for_everyone()
    resume(branch, start=(folder, budget.branch))
    _run(branch, budget.steps)
    return branch.state


def train_until(
    placement: Placement,
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
    loop = _prepare(placement, config, data, folder, measure_loss, report, should_stop, lane)
    resume(loop)
    if whole_budget:
        _run(loop, max(loop.budget.trunk_steps, loop.state.step))
    _run(loop, FARTHEST * loop.budget.steps, until=loss)
    return loop.state


def _prepare(
    placement: Placement,
    config: RunConfig,
    data: TrainingData,
    folder: RunFolder,
    measure_loss: Callable[[], float],
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    lane: Lane,
) -> Loop:
    """Make optimizer and schedule.

    Raises:
        UserError: the run ends before its order of data acts.
    """
    state = TrainingState()
    first_epoch = len(epoch_steps(config, data, state, placement.processes))
    budget = Budget.of(config.training, first_epoch)
    require_effect(config.training, budget.steps, first_epoch)
    optimizer = make_optimizer(placement.plain, config.training)
    scheduler = make_schedule(optimizer, budget.trunk)
    return Loop(
        placement=placement,
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
            _measure_and_save(loop, end, until, stop=step.totals.stop)
        # Also after a resume at the end of an epoch, whose checkpoint is from before this.
        if state.position == len(steps):
            end_epoch(loop)
        elif state.step == end or _has_reached(loop, until):
            lane.rest()
            return


def _measure_and_save(loop: Loop, end: int, until: float | None, *, stop: bool) -> None:
    """Do what is due after a step.

    Args:
        stop: whether a process of several was asked to stop, when they last told each other.

    Raises:
        Interrupted: a stop was asked for; a checkpoint was saved.
    """
    state, settings = loop.state, loop.config.training
    last = state.step == end
    if last or (loop.is_trunk and loop.budget.is_measured(state.step, loop.config.evaluation.points)):
        loop.lane.rest()
        measure(loop)
    stopping = loop.should_stop() if loop.placement.processes == 1 else stop
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
    placement, task, train = loop.placement, loop.data.task, loop.data.train
    placement.take_exchanges()  # of evaluations, which are not recorded
    device, processes = loop.accelerator.device, placement.processes
    with record_function(DATA):
        mine = [batch[loop.accelerator.process_index :: processes] for batch in batches]
        # A process without a sample goes through the motions with one of the others'; nothing of it counts.
        chosen = [own or batch[:1] for own, batch in zip(mine, batches, strict=True)]
        tensors = [task.collate([train[index] for index in indices]) for indices in chosen]
        terms = [task.loss_terms(batch) if own else 0 for own, batch in zip(mine, tensors, strict=True)]
    own_terms_A = torch.tensor(terms, dtype=torch.float64, device=device)
    all_terms_A = placement.sum(own_terms_A.clone())
    weight_A = own_terms_A / all_terms_A.sum()
    # Where gates balance the whole batch, every process computes the same loss, and one of them counts.
    balance_A = all_terms_A / all_terms_A.sum() if placement.global_balance else weight_A
    if loop.budget.is_late(loop.state.step):
        balance_A = balance_A * loop.config.training.balance_late
    totals = OwnTotals(loss=torch.zeros((), device=device), auxiliary_loss=torch.zeros((), device=device))
    tapes = []
    for number, batch in enumerate(tensors):
        idle, last = not mine[number], number + 1 == len(tensors)
        with placement.batch(), placement.gradients(last=last), idle_routing(loop.model, idle):
            with record_routing(loop.model) as tape:
                moved = send_to_device(batch, device)
                outputs = loop.model(**placement.call_options | moved)
                loss = task.loss(outputs, moved) * weight_A[number].float()
            balance = torch.as_tensor(tape.loss(), device=device) * balance_A[number].float()
            # Processes average their gradients, of which the sum is wanted. Of a balance loss that all of
            # them compute, each has the gradient of its own tokens.
            loop.accelerator.backward((loss + balance) * processes)
            tape.update_gates()
        totals.loss += loss.detach()
        totals.auxiliary_loss += balance.detach() / placement.balance_copies
        totals.add(tape, task.masks(batch), idle=idle)
        tapes.append(tape)
    with record_function(OPTIMIZER):
        norm = placement.finish_gradients()
        step = totals.over_processes(placement, norm, stop=processes > 1 and loop.should_stop())
        for what, value in (
            ("the loss", step.loss),
            ("the auxiliary loss", step.auxiliary_loss),
            ("the norm of the gradients", step.gradient_norm),
        ):
            require_finite(what, value, loop.state.step + 1)
        limit = loop.config.training.clip_norm
        if limit is not None and exceeds(step.gradient_norm, limit):
            placement.clip(norm, limit)
        learning_rate = loop.scheduler.get_last_lr()[0]
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.scheduler.step()
    with record_function(RECORDS):
        for indices, tape in zip(mine, tapes, strict=True):
            if indices:
                remember_ratios(loop, tape, indices)
    return Step(totals=step, learning_rate=learning_rate)
