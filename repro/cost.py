"""FLOPs of a forward pass, three ways, and time and memory of this process.

FLOPs are 2 x multiply-adds of matrix products and attention, forward only, per real token; adding
a bias, activations, norms, softmax and embedding look-ups are left out, as `torch.utils.flop_counter`
does. The three ways: `analytic` from a number of experts per token, `routed` from the assignments
that were made, `executed` from the rows and positions that were computed, padding included.
"""

import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from repro.routing import RoutingTape
from repro.volume import DenseMacs, Volume


class CostModel(Protocol):
    """The part of a backbone that costs are counted with."""

    def forward_macs(self, config: Any, head: str, volume: Volume) -> DenseMacs:
        """Multiply-adds of a dense forward pass."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes that decide what a converted model costs."""

    backbone: CostModel
    config: Any
    head: str
    ffn_layers: int
    """Feed-forward networks of the dense model."""
    moe_layers: int
    """How many of them were converted; 0 for a dense model."""
    experts: int
    d_model: int
    d_hidden: int
    """Hidden width of one expert: that of the FFN it replaces (all converted layers alike)."""

    def dense_macs(self, volume: Volume) -> float:
        """Multiply-adds of the unconverted model."""
        dense = self.backbone.forward_macs(self.config, self.head, volume)
        return dense.ffn + dense.rest

    def moe_macs(self, volume: Volume, expert_rows: float, routed_tokens: int) -> float:
        """Multiply-adds of the converted model.

        Args:
            volume: what attention and the unconverted layers process.
            expert_rows: rows multiplied by experts, summed over layers.
            routed_tokens: rows multiplied by a router, summed over layers.
        """
        dense = self.backbone.forward_macs(self.config, self.head, volume)
        kept = dense.ffn * (self.ffn_layers - self.moe_layers) / self.ffn_layers
        experts = 2 * self.d_model * self.d_hidden * expert_rows
        router = self.d_model * self.experts * routed_tokens
        return dense.rest + kept + experts + router

    def analytic_macs(self, volume: Volume, experts_per_token: float) -> float:
        """Multiply-adds when every token of every MoE layer has this many experts on average."""
        if not self.moe_layers:
            return self.dense_macs(volume)
        rows = self.moe_layers * volume.tokens
        return self.moe_macs(volume, experts_per_token * rows, rows)


@dataclass(kw_only=True)
class Work:
    """What was processed in many forward passes; plain sums, so that they can be saved and added."""

    real: Volume = field(default_factory=Volume)
    padded: Volume = field(default_factory=Volume)
    rows_routed: int = 0
    """(token, expert) assignments over all layers."""
    rows_computed: int = 0
    """Expert rows multiplied, padding slots of the back-end included."""
    routed_tokens: int = 0
    """Tokens seen by routers, over all layers; padding is never routed."""
    router_rows: int = 0
    """Rows multiplied by routers, padding included."""

    @staticmethod
    def of(tape: RoutingTape, lengths: list[int]) -> "Work":
        """The work of one forward pass over sequences of these lengths, padded to the longest."""
        loads = [entry.routing.load_E.tolist() for entry in tape.entries]
        masks = [entry.routing.mask_T for entry in tape.entries]
        return Work(
            real=Volume.of(lengths),
            padded=Volume.of([max(lengths)] * len(lengths)),
            rows_routed=sum(map(sum, loads)),
            rows_computed=sum(
                entry.rows_computed(load) for entry, load in zip(tape.entries, loads, strict=True)
            ),
            routed_tokens=sum(int(mask_T.sum()) for mask_T in masks),
            router_rows=sum(mask_T.numel() for mask_T in masks),
        )

    def __add__(self, other: "Work") -> "Work":
        return Work(
            real=self.real + other.real,
            padded=self.padded + other.padded,
            rows_routed=self.rows_routed + other.rows_routed,
            rows_computed=self.rows_computed + other.rows_computed,
            routed_tokens=self.routed_tokens + other.routed_tokens,
            router_rows=self.router_rows + other.router_rows,
        )

    def flops(self, architecture: Architecture) -> dict[str, float | None]:
        """The `flops` entry of a result, per real token; None when nothing was processed."""
        names = ("per_token", "per_token_executed", "macs_per_token", "dense_per_token")
        if not self.real.tokens:
            return dict.fromkeys(names)
        dense = architecture.dense_macs(self.real)
        if architecture.moe_layers:
            routed = architecture.moe_macs(self.real, self.rows_routed, self.routed_tokens)
            executed = architecture.moe_macs(self.padded, self.rows_computed, self.router_rows)
        else:
            routed, executed = dense, architecture.dense_macs(self.padded)
        macs = (2 * routed, 2 * executed, routed, 2 * dense)
        return {name: value / self.real.tokens for name, value in zip(names, macs, strict=True)}


class Stopwatch:
    """Seconds of the last marked stretch; the device is synchronised at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._synchronise()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._synchronise()
        self.seconds = time.perf_counter() - self._start

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used so far: allocated on the GPU, or resident in this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
