"""Estimate steps, tokens, parameters, FLOPs, time and memory of a run without training it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from repro.config import RunConfig
from repro.machine import peak_memory_bytes
from repro.moe.activations import ForwardPass
from repro.moe.numerics import Numerics
from repro.moe.volume import Volume
from repro.results.files import RunPaths
from repro.run.accelerator import precision_of
from repro.run.blueprint import blueprint, checkpoint_options, mean_experts
from repro.run.memory import Way, frozen_weights, memory_of
from repro.run.model import model_options
from repro.run.setup import Examples
from repro.training.curriculum import TrainingData, epoch_steps
from repro.training.placement import parallel_of
from repro.training.schedule import Budget
from repro.training.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of one run.

    Time and memory are rough, as are the FLOPs of adaptive gates; tokens are exact for whole epochs.
    """

    processes: int
    steps: int
    """Of the trunk up to its margin, and of the cooldown; a trunk may go on to a target."""
    steps_per_epoch: int
    tokens: int
    """Of all processes."""
    parameters: int
    flops: float
    """Of the forward passes of training, in all processes."""
    seconds: float
    memory_bytes: float
    """Of one process."""


def estimate(
    config: RunConfig,
    paths: RunPaths,
    examples: Examples,
    speed: Callable[[], float],
    *,
    processes: int = 1,
) -> Estimate:
    """Plan the batches of the first epoch and count.

    Time: three forward passes' FLOPs (forward and backward) at half of the measured speed of matrix
    products in each process, and seven passes of the optimiser and the gradients over the parameters that a
    process trains at 10 GB/s.
    Memory: on the CPU what this process takes already; parameters, gradients and moments (`run.memory`), and
    the activations of the largest batch (`moe.activations`). What the allocator holds back comes on top.

    Args:
        speed: measures the FLOP/s of this machine.
        processes: of the launch that is planned.

    Raises:
        UserError: experts cannot be spread so over so many, or the gate needs whole batches.
    """
    task, train = examples.task, examples.features["train"]
    way = replace(Way.of(config, processes), parallel=parallel_of(config, processes))
    batches = epoch_steps(config, TrainingData(task=task, train=train), TrainingState(), processes)
    budget = Budget.of(config.training, len(batches))
    one_epoch, parts = Volume(), set()
    for step in batches:
        for indices in step:
            masks = task.masks(task.collate([train[index] for index in indices]))
            lengths = {stack: mask.sum(1).tolist() for stack, mask in masks.items()}
            one_epoch += Volume.of(lengths)
            own = -(-len(indices) // processes)
            parts.add(Volume.of({stack: [max(row)] * own for stack, row in lengths.items()}))
    options = {**checkpoint_options(config, paths), **model_options(config, task.tokenizer)}
    plan = blueprint(config, options)
    width = plan.architecture.ffns[0].d_model
    experts = mean_experts(config, width)
    share = budget.total_steps / len(batches)
    macs = plan.architecture.analytic_macs(one_epoch, experts)
    numerics = Numerics(
        device="cuda" if torch.cuda.is_available() else "cpu",
        bf16=precision_of(config, lambda: width) == "bf16",
    )
    passes = (
        ForwardPass(
            architecture=plan.architecture,
            volume=part,
            experts=experts,
            numerics=numerics,
            parallel=way.parallel,
            frozen=frozen_weights(config),
        )
        for part in parts
    )
    memories = [memory_of(plan, one.activations(), way) for one in passes]
    memory = max(memories, key=lambda held: held.total)
    taken = 0 if numerics.device == "cuda" else peak_memory_bytes(torch.device("cpu"))
    computed = 3 * 2 * macs * share / processes / (0.5 * speed())
    return Estimate(
        processes=processes,
        steps=budget.total_steps,
        steps_per_epoch=len(batches),
        tokens=round(one_epoch.tokens * share),
        parameters=plan.parameters,
        flops=2 * macs * share,
        seconds=computed + budget.total_steps * 7 * 4 * memory.trained / 10e9,
        memory_bytes=taken + memory.total,
    )


def matmul_speed(device: torch.device) -> float:
    """Measure the FLOP/s of a medium matrix product in fp32, best of three."""
    size = 1024
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    best = math.inf
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        float((left @ right)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
