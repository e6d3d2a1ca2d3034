"""Refuse a run that cannot fit on the devices it has, and name settings with which it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from repro.config import RunConfig
from repro.errors import UserError
from repro.moe.gates.base import load as load_gate
from repro.moe.numerics import Numerics
from repro.results.files import RunPaths
from repro.run.accelerator import precision_of
from repro.run.blueprint import blueprint, mean_experts, planned_options
from repro.run.memory import GB, TOP_2, Memory, Way, planned, ways

_ACCUMULATIONS = (1, 2, 4, 8, 16)
_LAUNCHES = (2, 4, 8, 16, 32, 64)
"""Numbers of processes that are named to a user whose run does not fit."""
_NODE = 8
"""Processes of a node, in the command that is named."""


def device_memory(device: torch.device) -> int | None:
    """Return the bytes of memory of a GPU; None for a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def refuse_unfit(config: RunConfig, paths: RunPaths, device: torch.device, processes: int) -> None:
    """Refuse, before anything is loaded, a run that cannot fit on the devices it has.

    On the CPU `moe.sizes.refuse_too_large` looks at the parameters, when the model is built.

    Raises:
        UserError: it does not fit; the line names settings that do.
    """
    memory = device_memory(device)
    if memory is None:
        return
    plan = blueprint(config, planned_options(config, paths))
    width = plan.architecture.ffns[0].d_model
    numerics = Numerics(device="cuda", bf16=precision_of(config, lambda: width) == "bf16")
    experts = max(TOP_2, mean_experts(config, width))

    def held(candidate: RunConfig, way: Way) -> Memory:
        return planned(candidate, plan, numerics, way, experts)

    needed = held(config, Way.of(config, processes))
    if needed.fits(memory):
        return
    found = next(_fitting(config, processes, held, memory), None)
    parts = {
        "weights": needed.weights,
        "gradients": needed.gradients,
        "optimiser": needed.optimizer,
        "activations": needed.activations,
        "reserve": needed.reserve,
    }
    listed = ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items())
    needs = f"{(needed.total + needed.reserve) / GB:.1f} GB on each device ({listed})"
    way_out = f"it fits with {found}" if found else "no settings make it fit; take a smaller model"
    raise UserError(f"{config.task}: needs {needs}, which has {memory / GB:.1f}; {way_out}")


def _fitting(
    config: RunConfig, processes: int, held: Callable[[RunConfig, Way], Memory], memory: float
) -> Iterator[str]:
    """Yield what makes a run fit: other settings first, then smaller parts of a batch, then more processes.

    Args:
        held: what a process holds under settings and in a way.
    """
    gate_class = load_gate(config.gate).Gate
    launches = [processes]
    if gate_class is None or not gate_class.whole_batches:
        launches += [number for number in _LAUNCHES if number > processes]
    for number in launches:
        for candidate in _accumulated(config):
            for way in ways(candidate, number):
                if held(candidate, way).fits(memory):
                    yield _spelled(config, candidate, way, processes)


def _accumulated(config: RunConfig) -> Iterator[RunConfig]:
    """Yield the run with its batches cut into more and more parts whose gradients are added up.

    Experts are spread over all processes that divide them, whatever is set.
    """
    settings = config.training
    key = "batch_tokens" if settings.batch_size is None else "batch_size"
    size, least = getattr(settings, key), config.data.max_length if settings.batch_size is None else 1
    for times in _ACCUMULATIONS:
        if times == 1 or (size % times == 0 and size // times >= least):
            changed = {key: size // times, "accumulation": settings.accumulation * times}
            yield replace(
                config,
                experts=replace(config.experts, parallel=None),
                training=replace(settings, **changed),
            )


def _spelled(config: RunConfig, candidate: RunConfig, way: Way, processes: int) -> str:
    """Spell the options of other settings, and the launcher of another number of processes."""
    now = Way.of(config, way.processes)
    changes = [
        ("experts.parallel", now.parallel, way.parallel),
        ("training.shard", "fsdp" if now.sharded else "none", "fsdp" if way.sharded else "none"),
        ("training.gradient_checkpointing", now.checkpointing, way.checkpointing),
        *(
            (f"training.{key}", getattr(config.training, key), getattr(candidate.training, key))
            for key in ("batch_size", "batch_tokens", "accumulation")
        ),
    ]
    options = [f"--set {key}={str(new).lower()}" for key, old, new in changes if new != old]
    if way.processes != processes:
        nodes = -(-way.processes // _NODE)
        launcher = f"torchrun --nproc-per-node {way.processes // nodes}"
        options.insert(0, launcher + (f" --nnodes {nodes}" if nodes > 1 else ""))
    return " ".join(options)
