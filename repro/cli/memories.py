"""`repro list tasks --gpus`: bytes of each process for the ways of training a scale's models."""

from __future__ import annotations

from pathlib import Path

from repro import plugins
from repro.cli.console import Cell, Row
from repro.cli.sizes import scale_config
from repro.config import RunConfig
from repro.moe.activations import Numerics
from repro.run.blueprint import Blueprint, blueprint, planned_options
from repro.run.memory import GB, Memory, Way, largest_parts, planned, stack_lengths, ways


def memory_rows(scale: str, results: Path, gpus: int, memory: float) -> tuple[list[Row], list[Row]]:
    """Plan the training of each task's model, converted with a top-2 gate, on GPUs.

    Sequences are as long as the scale allows.

    Args:
        gpus: as many processes.
        memory: of each of them, in bytes.

    Returns:
        A row for each task: its sizes, the part of a batch that a process computes, and the total of the way
        that the scale sets. A row for each task and way.
    """
    models: list[Row] = []
    rows: list[Row] = []
    for task in plugins.names("tasks"):
        config = scale_config(task, scale, "top-2", results)
        plan = blueprint(config, planned_options(config, None))
        # `auto` is bf16 on GPUs that have it.
        numerics = Numerics(device="cuda", bf16=config.training.precision != "fp32")
        models.append(_model(config, plan, numerics, gpus, memory))
        rows += [_way(task, way, planned(config, plan, numerics, way), memory) for way in ways(config, gpus)]
    return models, rows


def for_terminal(rows: list[Row]) -> list[Row]:
    """Lay out rows of either kind: bytes as GB, answers as words, and nothing that stands above the table."""
    return [{key: _cell(value) for key, value in row.items() if key != "checkpointing"} for row in rows]


def _cell(value: Cell) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return round(value / GB, 1) if isinstance(value, float) else value


def _model(config: RunConfig, plan: Blueprint, numerics: Numerics, gpus: int, memory: float) -> Row:
    way = Way.of(config, gpus)
    held = planned(config, plan, numerics, way)
    lengths = stack_lengths(config, {ffn.stack for ffn in plan.architecture.ffns})
    part = largest_parts(config, lengths, gpus)[0]
    return {
        "task": config.task,
        "parameters": plan.parameters,
        "in experts": plan.experts,
        "sequences": part.sequences,
        "length": "+".join(str(lengths[stack]) for stack in sorted(lengths, reverse=True)),
        "set": way.name + (", checkpointing" if way.checkpointing else ""),
        "total": held.total,
        "fits": held.fits(memory),
    }


def _way(task: str, way: Way, held: Memory, memory: float) -> Row:
    return {
        "task": task,
        "way": way.name,
        "checkpointing": way.checkpointing,
        "weights": held.weights,
        "gradients": held.gradients,
        "optimiser": held.optimizer,
        "activations": held.activations,
        "total": held.total,
        "fits": held.fits(memory),
    }
