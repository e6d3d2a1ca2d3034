"""`repro list tasks --gpus`: bytes of each process for the ways of training a scale's models."""

from __future__ import annotations

from pathlib import Path

from repro import plugins
from repro.cli.console import Cell, Row
from repro.cli.sizes import scale_config
from repro.config import RunConfig
from repro.errors import UserError, notice
from repro.moe.numerics import Numerics
from repro.run.blueprint import Blueprint, blueprint, planned_options
from repro.run.memory import GB, Memory, Way, largest_parts, planned, stack_lengths, ways
from repro.study.definition import load_study, study_names
from repro.study.plan import plan


def memory_rows(scale: str, results: Path, gpus: int, memory: float) -> tuple[list[Row], list[Row]]:
    """Plan the training of each task's model, converted with a top-2 gate, on GPUs.

    Behind them stand the models that studies have for a task instead, with their own recipe. Sequences are as
    long as the scale allows.

    Args:
        gpus: as many processes.
        memory: of each of them, in bytes.

    Returns:
        A row for each task: its sizes, the part of a batch that a process computes, and the total of the way
        that the scale sets. A row for each task and way.
    """
    models: list[Row] = []
    rows: list[Row] = []
    own = {task: scale_config(task, scale, "top-2", results) for task in plugins.names("tasks")}
    for name, config in (own | _of_studies(scale, results)).items():
        sizes = blueprint(config, planned_options(config, None))
        # `auto` is bf16 on GPUs that have it.
        numerics = Numerics(device="cuda", bf16=config.training.precision != "fp32")
        models.append(_model(name, config, sizes, numerics, gpus, memory))
        rows += [_way(name, way, planned(config, sizes, numerics, way), memory) for way in ways(config, gpus)]
    return models, rows


def _of_studies(scale: str, results: Path) -> dict[str, RunConfig]:
    """Return the first run of each other model of a study at a scale, by the names of task and study."""
    configs = {}
    for study in study_names():
        for task, models in load_study(study).models.items():
            if scale not in models:
                continue
            try:
                runs = plan(
                    study, tasks=[task], seeds=1, scale=scale, data=None, overrides={}, results=results
                )
            except UserError as error:
                notice(f"{study}, {task}: not planned ({error.problems[0]})")
                continue
            configs[f"{task} ({study})"] = runs[0].config
    return configs


def for_terminal(rows: list[Row]) -> list[Row]:
    """Lay out rows of either kind: bytes as GB, answers as words, and nothing that stands above the table."""
    return [{key: _cell(value) for key, value in row.items() if key != "checkpointing"} for row in rows]


def _cell(value: Cell) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return round(value / GB, 1) if isinstance(value, float) else value


def _model(
    name: str, config: RunConfig, sizes: Blueprint, numerics: Numerics, gpus: int, memory: float
) -> Row:
    way = Way.of(config, gpus)
    held = planned(config, sizes, numerics, way)
    lengths = stack_lengths(config, {ffn.stack for ffn in sizes.architecture.ffns})
    part = largest_parts(config, lengths, gpus)[0]
    return {
        "task": name,
        "parameters": sizes.parameters,
        "in experts": sizes.experts,
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
