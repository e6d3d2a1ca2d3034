"""How much memory a process of a launch takes.

Bytes a parameter, in fp32 with AdamW: 4 of the weight, 4 of its gradient, 8 of its two moments; parameters
that are not trained have the weight alone, and of 2 bytes in bf16: all weights of a model with low-rank
additions (`moe.lora`), which are trained in fp32. What N processes hold of them:

* copies (`training.shard = none`): all. DistributedDataParallel adds gradients up in buckets, 4 bytes more
  for each parameter that it copies.
* sharded (`training.shard = fsdp`, without additions): an N-th of every tensor. While a layer computes it is
  whole, and so is the next one, which is fetched meanwhile; what is outside the layers (embeddings, head) is
  whole all the time. In the backward pass there are the whole gradient of a layer and the copy of it that is
  added up.
* spread experts (`experts.parallel`): a part of the experts of every layer, and of what is added to them,
  without buckets, and never whole anywhere; the rest is copied or sharded.

Activations are those of `moe.activations`. On top comes a reserve: 2 GB for the CUDA context and the buffers
of the exchanges, and 5 % for what the allocator cannot use. GB are 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from repro.config import RunConfig
from repro.moe.activations import Activations, ForwardPass
from repro.moe.gates.base import load as load_gate
from repro.moe.numerics import Frozen, Numerics
from repro.moe.volume import Volume
from repro.run.blueprint import Blueprint
from repro.run.model import weights_type

GB = 1e9
CONTEXT, FRAGMENTS = 2 * GB, 0.05
"""The reserve: bytes, and the share of what is held."""
_WEIGHT, _MOMENTS = 4, 8
"""Of a parameter in fp32."""
TOP_2 = 2.0
"""Experts of a token for which runs are planned, whichever scheme of a comparison it is."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a model is held by the processes of a launch."""

    processes: int = 1
    parallel: int = 1
    """Processes over which experts are spread."""
    sharded: bool = False
    checkpointing: bool = False

    @staticmethod
    def of(config: RunConfig, processes: int) -> Way:
        """Take the way out of the settings of a run, as a launch of this many processes does."""
        return Way(
            processes=processes,
            parallel=spread_over(config, processes),
            sharded=processes > 1 and config.training.shard == "fsdp",
            checkpointing=config.training.gradient_checkpointing,
        )

    @property
    def name(self) -> str:
        """Its name in tables."""
        parts = [name for name, is_so in (("sharded", self.sharded), ("spread", self.parallel > 1)) if is_so]
        return ", ".join(parts) or "copies"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """Return the sum, without the reserve."""
        return self.weights + self.gradients + self.optimizer + self.activations

    @property
    def reserve(self) -> float:
        """Return what comes on top."""
        return CONTEXT + FRAGMENTS * self.total

    @property
    def trained(self) -> float:
        """Return the parameters that the process trains."""
        return self.optimizer / _MOMENTS

    def fits(self, memory: float) -> bool:
        """Whether it fits into the memory of a device, reserve included."""
        return self.total + self.reserve <= memory


def memory_of(plan: Blueprint, activations: Activations, way: Way) -> Memory:
    """Count what one process holds.

    Args:
        activations: of a pass with experts spread in this way.
    """
    is_spread = way.parallel > 1
    share = 1 / way.processes if way.sharded else 1.0
    of_experts = 1 / way.parallel if is_spread else share
    rest, experts = share * plan.trained[0], of_experts * plan.trained[1]
    trained = rest + experts
    whole = whole_gradients = buckets = 0.0
    if way.sharded:
        layer = plan.largest[0] + (0 if is_spread else plan.largest[1])
        whole = _WEIGHT * (plan.outside + 2 * layer)
        whole_gradients = 2 * _WEIGHT * max(plan.outside, layer)
    elif way.processes > 1:
        buckets = rest if is_spread else trained
    return Memory(
        weights=share * plan.weights[0] + of_experts * plan.weights[1] + whole,
        gradients=trained + whole_gradients + buckets,
        optimizer=_MOMENTS / _WEIGHT * trained,
        activations=activations.peak(checkpointing=way.checkpointing),
    )


def spread_over(config: RunConfig, processes: int) -> int:
    """Return over how many processes of a launch experts are spread: as set, else all if they divide them.

    A setting that does not fit the number of processes is for the launch to refuse; here the largest number
    that fits stands for it.
    """
    if load_gate(config.gate).Gate is None:
        return 1
    wanted, count = config.experts.parallel, config.experts.count
    if wanted is None:
        return processes if count % processes == 0 else 1
    return gcd(wanted, count, processes)


def ways(config: RunConfig, processes: int) -> list[Way]:
    """List the ways in which processes can hold a run's model, the simplest and fastest first."""
    parallel = spread_over(config, processes)
    layouts = [(1, False)]
    if processes > 1:
        layouts.append((parallel, False))
        if config.training.lora_rank is None:  # which has no sharded weights
            layouts += [(1, True), (parallel, True)]
    return [
        Way(
            processes=processes,
            parallel=spread,
            sharded=sharded,
            checkpointing=checkpointing,
        )
        for checkpointing in (False, True)
        for spread, sharded in dict.fromkeys(layouts)
    ]


def frozen_weights(config: RunConfig) -> Frozen | None:
    """Return what is frozen where low-rank additions are trained; None where all weights are."""
    if config.training.lora_rank is None:
        return None
    return Frozen(rank=config.training.lora_rank, number=weights_type(config).itemsize)


def stack_lengths(config: RunConfig, stacks: set[str]) -> dict[str, int]:
    """Return the longest sequence of each stack that the settings of a run allow."""
    lengths = dict.fromkeys(stacks, config.data.max_length)
    if len(stacks) > 1:
        lengths["decoder"] = config.task_options.max_target_length
    return lengths


def largest_parts(config: RunConfig, lengths: Mapping[str, int], processes: int) -> list[Volume]:
    """List the largest parts of a batch that a process can get, padded.

    Of batches by positions there are two kinds: of few sequences of full length, and of many that are as
    short as the longest target, of which more positions have logits.

    Args:
        lengths: stack -> longest sequence.
    """
    settings, volumes = config.training, []
    for longest in sorted(set(lengths.values()), reverse=True):
        samples = settings.batch_size
        if samples is None:
            parts = processes if settings.batch_tokens_of == "process" else 1
            samples = parts * max((settings.batch_tokens or 0) // longest, 1)
        own = -(-samples // processes)
        volumes.append(Volume.of({stack: [min(length, longest)] * own for stack, length in lengths.items()}))
    return volumes


def planned(
    config: RunConfig, plan: Blueprint, numerics: Numerics, way: Way, experts: float = TOP_2
) -> Memory:
    """Count what one process of a launch holds with the largest part of a batch that the settings allow.

    Args:
        experts: mean experts of a token.
    """
    lengths = stack_lengths(config, {ffn.stack for ffn in plan.architecture.ffns})
    passes = [
        ForwardPass(
            architecture=plan.architecture,
            volume=part,
            experts=experts,
            numerics=numerics,
            parallel=way.parallel,
            frozen=frozen_weights(config),
        )
        for part in largest_parts(config, lengths, way.processes)
    ]
    return max((memory_of(plan, one.activations(), way) for one in passes), key=lambda memory: memory.total)
