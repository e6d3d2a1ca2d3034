"""FLOPs of a forward pass, three ways, and time and memory of this process.

FLOPs are 2 x multiply-adds of matrix products and attention, forward only, per real token; adding
a bias, activations, norms, softmax and embedding look-ups are left out, as `torch.utils.flop_counter`
does. The three ways: `analytic` from a number of experts per token, `routed` from the assignments
that were made, `executed` from the rows and positions that were computed, padding included.
"""

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from repro.routing import RoutingTape, add_counts
from repro.volume import Volume

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`: never return memory to the system, never map a block of its own."""


class CostModel(Protocol):
    """The part of a backbone that costs are counted with."""

    def rest_macs(self, config: Any, head: str, volume: Volume) -> int:
        """Multiply-adds of a forward pass outside the feed-forward networks."""


@dataclass(frozen=True, kw_only=True)
class FFNSize:
    """One feed-forward network of the dense model."""

    stack: str
    """`encoder` or `decoder`."""
    d_model: int
    d_hidden: int
    """Hidden width; that of every expert where it was converted."""
    converted: bool
    """Whether an MoE layer took its place."""
    gate_macs: int | None = None
    """Multiply-adds of the layer's gate for a token; None for a linear router over the experts."""

    @property
    def row_macs(self) -> int:
        """Multiply-adds of one row through it, or through one expert."""
        return 2 * self.d_model * self.d_hidden


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes that decide what a converted model costs."""

    backbone: CostModel
    config: Any
    head: str
    ffns: tuple[FFNSize, ...]
    experts: int

    @property
    def moe(self) -> tuple[FFNSize, ...]:
        """The converted ones, in the order of the tape; none for a dense model."""
        return tuple(ffn for ffn in self.ffns if ffn.converted)

    def dense_macs(self, volume: Volume) -> float:
        """Multiply-adds of the unconverted model."""
        ffns = sum(ffn.row_macs * volume.of_stack(ffn.stack) for ffn in self.ffns)
        return ffns + self.backbone.rest_macs(self.config, self.head, volume)

    def moe_macs(self, volume: Volume, rows_L: Sequence[float], routed_L: Sequence[int]) -> float:
        """Multiply-adds of the converted model.

        Args:
            volume: what attention and the unconverted layers process.
            rows_L: rows multiplied by experts in each MoE layer.
            routed_L: rows that the gate of each MoE layer decided for.
        """
        total: float = self.backbone.rest_macs(self.config, self.head, volume)
        total += sum(ffn.row_macs * volume.of_stack(ffn.stack) for ffn in self.ffns if not ffn.converted)
        for ffn, rows, routed in zip(self.moe, rows_L, routed_L, strict=True):
            gate_macs = ffn.d_model * self.experts if ffn.gate_macs is None else ffn.gate_macs
            total += ffn.row_macs * rows + gate_macs * routed
        return total

    def analytic_macs(self, volume: Volume, experts_per_token: float) -> float:
        """Multiply-adds when every token of every MoE layer has this many experts on average."""
        tokens_L = [volume.of_stack(ffn.stack) for ffn in self.moe]
        return self.moe_macs(volume, [experts_per_token * tokens for tokens in tokens_L], tokens_L)


@dataclass(kw_only=True)
class Work:
    """What was processed in many forward passes; plain sums, so that they can be saved and added."""

    real: Volume = field(default_factory=Volume)
    padded: Volume = field(default_factory=Volume)
    rows_routed_L: list[int] = field(default_factory=list)
    """(token, expert) assignments of each MoE layer."""
    rows_computed_L: list[int] = field(default_factory=list)
    """Expert rows multiplied, padding slots of the back-end included."""
    routed_tokens_L: list[int] = field(default_factory=list)
    """Tokens seen by the router; padding is never routed."""
    router_rows_L: list[int] = field(default_factory=list)
    """Rows multiplied by the router, padding included."""

    @staticmethod
    def of(tape: RoutingTape, masks: Mapping[str, Tensor]) -> "Work":
        """The work of one forward pass over a batch.

        Args:
            masks: stack -> mask of real tokens, (B, S).
        """
        real = {stack: mask.sum(1).tolist() for stack, mask in masks.items()}
        loads = [entry.routing.load_E.tolist() for entry in tape.entries]
        tokens = [entry.routing.mask_T for entry in tape.entries]
        rows_computed_L = [entry.rows_computed(load) for entry, load in zip(tape.entries, loads, strict=True)]
        return Work(
            real=Volume.of(real),
            padded=Volume.of({stack: [mask.shape[1]] * len(mask) for stack, mask in masks.items()}),
            rows_routed_L=[sum(load) for load in loads],
            rows_computed_L=rows_computed_L,
            routed_tokens_L=[int(mask_T.sum()) for mask_T in tokens],
            router_rows_L=[mask_T.numel() for mask_T in tokens],
        )

    def __add__(self, other: "Work") -> "Work":
        return Work(
            real=self.real + other.real,
            padded=self.padded + other.padded,
            rows_routed_L=add_counts(self.rows_routed_L, other.rows_routed_L),
            rows_computed_L=add_counts(self.rows_computed_L, other.rows_computed_L),
            routed_tokens_L=add_counts(self.routed_tokens_L, other.routed_tokens_L),
            router_rows_L=add_counts(self.router_rows_L, other.router_rows_L),
        )

    def flops(self, architecture: Architecture) -> dict[str, float | None]:
        """The `flops` entry of a result, per real token; None when nothing was processed."""
        names = ("per_token", "per_token_executed", "macs_per_token", "dense_per_token")
        if not self.real.tokens:
            return dict.fromkeys(names)
        routed = architecture.moe_macs(self.real, self.rows_routed_L, self.routed_tokens_L)
        executed = architecture.moe_macs(self.padded, self.rows_computed_L, self.router_rows_L)
        macs = (2 * routed, 2 * executed, routed, 2 * architecture.dense_macs(self.real))
        return {name: value / self.real.tokens for name, value in zip(names, macs, strict=True)}


class Stopwatch:
    """Seconds of the last marked stretch; the device is synchronised at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.stolen_seconds: float | None = None
        """Of all processors together; None where the system does not tell."""

    def __enter__(self) -> "Stopwatch":
        self._synchronise()
        self._stolen = stolen_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._synchronise()
        self.seconds = time.perf_counter() - self._start
        stolen = stolen_seconds()
        self.stolen_seconds = None if stolen is None or self._stolen is None else stolen - self._stolen

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def stolen_seconds() -> float | None:
    """Time that other virtual machines took from this one's processors since it started, summed over them.

    None where the system does not tell: on anything but Linux.
    """
    with suppress(OSError, IndexError, ValueError):
        total = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(total[8]) / os.sysconf("SC_CLK_TCK")
    return None


def reuse_freed_memory() -> None:
    """Let the C library keep the large blocks that are freed, and hand them out again.

    By default glibc maps each of them anew and the system clears it page by page: the gradients of
    all experts, in every step. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return to the system what `reuse_freed_memory` kept, before work of other sizes begins."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def machine(device: torch.device) -> dict[str, Any]:
    """What a time depends on besides the code: device, threads and the load at this moment."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak, where the system can: on GPUs, and for this process on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used since the last reset: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
