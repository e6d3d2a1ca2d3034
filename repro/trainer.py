"""The one training loop, for every task and gate, on Hugging Face Accelerate."""

import math
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from repro.backbones._sites import Volume
from repro.config import RunConfig, TrainingConfig
from repro.cost import Stopwatch, Work
from repro.curriculum import cut_batches, epoch_order
from repro.errors import Interrupted
from repro.evaluator import count_work, evaluate, to_device
from repro.records import RunFolder, append_jsonl, truncate_jsonl
from repro.routing import RoutingTape, RoutingTotals, record_routing

Features = list[dict[str, Any]]
Record = dict[str, Any]


@dataclass
class TrainingState:
    """Everything a checkpoint holds besides model, optimiser, schedule and random states."""

    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    position: int = 0
    """Optimiser steps done in this epoch."""
    train_seconds: float = 0.0
    tokens: int = 0
    curve: list[list[float]] = field(default_factory=list)
    """Rows of step, train_seconds, eval_loss."""
    work: Work = field(default_factory=Work)
    routing: RoutingTotals = field(default_factory=RoutingTotals)
    step_seconds: list[float] = field(default_factory=list)
    ratios_NL: Any = None
    """Complexity vectors measured in the epoch before; None in the first epoch."""
    next_ratios_NL: Any = None
    """Those of this epoch so far."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, which load safely (`weights_only`)."""
        return dict(vars(self)) | {"work": asdict(self.work), "routing": asdict(self.routing)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        vars(self).update(state)
        work = state["work"]
        volumes = {name: Volume(**work[name]) for name in ("real", "padded")}
        self.work = Work(**work | volumes)
        self.routing = RoutingTotals(**state["routing"])


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The encoded examples that a run trains on, and those its loss curve is measured on."""

    task: ModuleType
    train: Features
    validation: Features
    pad_id: int


def train(
    accelerator: Accelerator,
    model: Any,
    config: RunConfig,
    data: TrainingData,
    folder: RunFolder,
    *,
    report: Callable[[Record], None],
    should_stop: Callable[[], bool],
) -> TrainingState:
    """Train to the end, from the last checkpoint in `folder` if there is one.

    Time is counted from taking a batch to the end of the optimiser's step; evaluation, checkpoints
    and records are outside (DESIGN: measuring time). The same configuration and seed give the same
    losses bit for bit on the same machine, also across a kill and a resume.

    Args:
        report: called with the record of every optimiser step.
        should_stop: asked after every step; when true a checkpoint is saved.

    Raises:
        Interrupted: `should_stop` said so.
        FloatingPointError: the loss is not finite.
    """
    settings = config.training
    state = TrainingState()
    model, optimizer, scheduler = _prepare(accelerator, model, config, data, state)
    watch = Stopwatch(accelerator.device)
    _resume(accelerator, state, folder)
    if state.step == 0:
        _measure_loss(accelerator, model, config, data, state, folder)
    model.train()
    while state.step < state.total_steps:
        steps = _epoch_steps(config, data, state, accelerator.num_processes)
        while state.position < len(steps) and state.step < state.total_steps:
            with watch:
                record, tapes = _train_step(
                    accelerator, model, optimizer, data, state, steps[state.position], settings
                )
                scheduler.step()
            state.train_seconds += watch.seconds
            state.step_seconds.append(watch.seconds)
            state.step += 1
            state.position += 1
            record |= _count(state, data, tapes)
            record |= {"seconds": watch.seconds, "learning_rate": scheduler.get_last_lr()[0]}
            _record(accelerator, state, folder, record, report)
            last = state.step == state.total_steps
            if last or state.step % config.evaluation.every == 0:
                _measure_loss(accelerator, model, config, data, state, folder)
            stopping = should_stop() and not last
            if stopping or (not last and state.step % settings.checkpoint_every == 0):
                _save(accelerator, folder)
            if stopping:
                raise Interrupted(f"stopped after step {state.step} of {state.total_steps}")
        if state.position == len(steps):
            _end_epoch(accelerator, state)
    return state


def _prepare(
    accelerator: Accelerator,
    model: Any,
    config: RunConfig,
    data: TrainingData,
    state: TrainingState,
) -> tuple[Any, Any, Any]:
    """Model, optimiser and schedule, wrapped by Accelerate; the state joins the checkpoints."""
    settings = config.training
    steps_per_epoch = math.ceil(
        len(data.train) / (settings.batch_size * settings.accumulation)
    )
    state.total_steps = settings.steps or math.ceil((settings.epochs or 0) * steps_per_epoch)
    warmup = math.ceil(settings.warmup * state.total_steps)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (state.total_steps - step) / max(1, state.total_steps - warmup))

    # Norms and biases are not decayed, as is usual for these models.
    groups: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        is_bias = name.endswith((".b1", ".b2")) or parameter.ndim < 2
        groups[not is_bias].append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(state, scheduler)
    return prepared, optimizer, scheduler


def _epoch_steps(
    config: RunConfig, data: TrainingData, state: TrainingState, num_processes: int
) -> list[list[list[int]]]:
    """The batches of each optimiser step of this epoch; the same whenever it is asked for."""
    settings = config.training
    generator = np.random.default_rng([config.seed, state.epoch])
    lengths_N = np.array([len(feature["input_ids"]) for feature in data.train])
    ordered = settings.curriculum != "random" and (
        settings.curriculum == "length" or state.ratios_NL is not None
    )
    ratios_NL = None if state.ratios_NL is None else state.ratios_NL.double().numpy()
    order_N = epoch_order(settings.curriculum, ratios_NL, lengths_N, generator)
    pool = None if ordered else settings.length_pool
    batches = cut_batches(order_N, lengths_N, settings.batch_size, pool, generator)
    # A process without a sample has nothing to run; such a rest is left out of the epoch.
    batches = [batch for batch in batches if len(batch) >= num_processes]
    group = settings.accumulation
    return [batches[start : start + group] for start in range(0, len(batches), group)]


def _train_step(
    accelerator: Accelerator,
    model: Any,
    optimizer: Any,
    data: TrainingData,
    state: TrainingState,
    batches: list[list[int]],
    settings: TrainingConfig,
) -> tuple[Record, list[tuple[Features, RoutingTape]]]:
    """Forward and backward over the batches of one step, then one step of the optimiser.

    The gradient is that of the mean over all loss terms of the step, however they are spread over
    batches and processes.
    """
    mine = [batch[accelerator.process_index :: accelerator.num_processes] for batch in batches]
    chosen = [[data.train[index] for index in indices] for indices in mine]
    tensors = [data.task.collate(features, data.pad_id) for features in chosen]
    terms = [data.task.loss_terms(batch) for batch in tensors]
    # Processes average their gradients, so each counts its terms against an average total.
    total = sum(gather_object([sum(terms)])) / accelerator.num_processes
    tapes = []
    loss_sum, auxiliary = 0.0, 0.0
    for number, (indices, batch) in enumerate(zip(mine, tensors, strict=True)):
        # Processes add up their gradients once, with the last batch of the step.
        with accelerator.no_sync(model) if number + 1 < len(mine) else nullcontext():
            with record_routing(model) as tape:
                outputs = model(**to_device(batch, accelerator.device))
            share = terms[number] / total
            loss = outputs.loss + tape.loss()
            accelerator.backward(loss * share)
        loss_sum += float(outputs.loss.detach()) * share
        auxiliary += float(torch.as_tensor(tape.loss()).detach()) * share
        _remember_ratios(state, tape, indices, len(data.train))
        tapes.append((chosen[number], tape))
    if not math.isfinite(loss_sum + auxiliary):
        raise FloatingPointError(
            f"the loss is {loss_sum} at step {state.step + 1}; lower training.learning_rate"
        )
    norm = accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": loss_sum, "auxiliary_loss": auxiliary, "gradient_norm": float(norm)}, tapes


def _remember_ratios(
    state: TrainingState, tape: RoutingTape, indices: list[int], num_samples: int
) -> None:
    """Keep the complexity vectors that this forward pass gave for free (paper eq. 5)."""
    if not tape.entries:
        return
    ratios_BL = tape.ratios_BL().float().cpu()
    if state.next_ratios_NL is None:
        state.next_ratios_NL = torch.zeros(num_samples, ratios_BL.shape[1])
    state.next_ratios_NL[indices] = ratios_BL


def _end_epoch(accelerator: Accelerator, state: TrainingState) -> None:
    """Make this epoch's ratios those of the epoch before."""
    if state.next_ratios_NL is not None and accelerator.num_processes > 1:
        # Each sample was seen by one process; the others hold zeros for it.
        state.next_ratios_NL = sum(gather_object([state.next_ratios_NL]))
    state.ratios_NL, state.next_ratios_NL = state.next_ratios_NL, None
    state.epoch += 1
    state.position = 0


def _count(
    state: TrainingState, data: TrainingData, tapes: list[tuple[Features, RoutingTape]]
) -> Record:
    """Add the step to the totals; its own statistics for the record."""
    work, routing = Work(), RoutingTotals()
    for features, tape in tapes:
        count_work(work, tape, features)
        routing.add(tape)
    state.work += work
    state.routing += routing
    state.tokens += work.real.tokens
    summary = routing.summary()
    shares = summary["share_by_count"]
    return {
        "tokens": work.real.tokens,
        "padded_tokens": work.padded.tokens,
        "mean_experts": summary["mean_experts"],
        "share_two": sum(shares[2:]) if isinstance(shares, list) else None,
        "routing": summary if tapes[0][1].entries else None,
    }


def _record(
    accelerator: Accelerator,
    state: TrainingState,
    folder: RunFolder,
    record: Record,
    report: Callable[[Record], None],
) -> None:
    """Append the step to `steps.jsonl`, its routing by layer to `routing.jsonl`, and report it."""
    if not accelerator.is_main_process:
        return
    record = {"step": state.step, "epoch": state.epoch, **record}
    routing = record.pop("routing")
    append_jsonl(folder.steps, [record])
    if routing is not None:
        append_jsonl(folder.routing, [{"step": state.step, **routing}])
    accelerator.log(
        {key: value for key, value in record.items() if isinstance(value, int | float)},
        step=state.step,
    )
    report(record | {"total_steps": state.total_steps, "train_seconds": state.train_seconds})


def _measure_loss(
    accelerator: Accelerator,
    model: Any,
    config: RunConfig,
    data: TrainingData,
    state: TrainingState,
    folder: RunFolder,
) -> None:
    """Add a point to the curve of evaluation loss against training time."""
    evaluation = evaluate(
        accelerator,
        model,
        data.task,
        data.validation,
        pad_id=data.pad_id,
        batch_size=config.evaluation.batch_size,
    )
    state.curve.append([state.step, state.train_seconds, evaluation.loss])
    if accelerator.is_main_process:
        row = zip(("step", "train_seconds", "eval_loss"), state.curve[-1], strict=True)
        append_jsonl(folder.evals, [dict(row)])


def _save(accelerator: Accelerator, folder: RunFolder) -> None:
    """Write a checkpoint beside the old one, then put it in its place: a kill leaves one of both."""
    scratch = folder.path / "checkpoint.new"
    if accelerator.is_main_process and scratch.exists():
        shutil.rmtree(scratch)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(scratch))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        old = folder.path / "checkpoint.old"
        if old.exists():
            shutil.rmtree(old)
        if folder.checkpoint.exists():
            folder.checkpoint.rename(old)
        scratch.rename(folder.checkpoint)
        if old.exists():
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, state: TrainingState, folder: RunFolder) -> None:
    """Go back to the last checkpoint, or to the start; records beyond it are dropped."""
    place = find_checkpoint(folder)
    if place is not None:
        accelerator.load_state(str(place))
    if accelerator.is_main_process:
        for path in (folder.steps, folder.routing, folder.evals):
            truncate_jsonl(path, state.step if place else -1)
    accelerator.wait_for_everyone()


def find_checkpoint(folder: RunFolder) -> Path | None:
    """The last whole checkpoint of a run."""
    for name in ("checkpoint", "checkpoint.old"):
        if (folder.path / name).exists():
            return folder.path / name
    return None
