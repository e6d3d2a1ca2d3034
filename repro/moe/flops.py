"""FLOPs of a forward pass, three ways.

FLOPs are 2 x multiply-adds of matrix products and attention, forward only, per real token; adding
a bias, activations, norms, softmax and embedding look-ups are left out, as `torch.utils.flop_counter`
does. The three ways: `analytic` from a number of experts per token, `routed` from the assignments
that were made, `executed` from the rows and positions that were computed, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from repro.moe.backbones.base import CostModel, OwnRouter
from repro.moe.routing import RoutingTape
from repro.moe.totals import add_counts
from repro.moe.volume import Volume
from repro.results.run import Flops

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, kw_only=True)
class FFNSize:
    """One feed-forward network, or one MoE block, of the model before conversion."""

    stack: str
    """`encoder` or `decoder`."""
    d_model: int
    d_hidden: int
    """Hidden width, also of every expert where it was converted."""
    is_gated: bool = False
    has_biases: bool = True
    own: OwnRouter | None = None
    """How it routes by itself; None of a dense network."""
    gate_macs: int | None = None
    """Multiply-adds, for a token, of the gate of the MoE layer that took its place; None where none did."""

    @property
    def converted(self) -> bool:
        """Whether an MoE layer took its place."""
        return self.gate_macs is not None

    @property
    def row_macs(self) -> int:
        """Multiply-adds of one row through it, or through one expert."""
        return (3 if self.is_gated else 2) * self.d_model * self.d_hidden

    @property
    def token_macs(self) -> int:
        """Multiply-adds of a token before conversion: of one row, or of the router and k rows."""
        if self.own is None:
            return self.row_macs
        return self.own.k * self.row_macs + self.own.experts * self.d_model

    @property
    def parameters(self) -> int:
        """Parameters of the network, or of one expert."""
        biases = self.d_model + (2 if self.is_gated else 1) * self.d_hidden
        return self.row_macs + (biases if self.has_biases else 0)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes that decide what a converted model costs."""

    backbone: CostModel
    config: PreTrainedConfig
    head: str
    ffns: tuple[FFNSize, ...]
    experts: int
    """Experts of every MoE layer."""

    @property
    def moe(self) -> tuple[FFNSize, ...]:
        """The converted ones, in the order of the tape; none for a dense model."""
        return tuple(ffn for ffn in self.ffns if ffn.converted)

    @property
    def idle_parameters(self) -> int:
        """Parameters of experts that a token does not meet in the MoE blocks that stayed."""
        blocks = [(ffn, ffn.own) for ffn in self.ffns if not ffn.converted]
        return sum((own.experts - own.k) * ffn.parameters for ffn, own in blocks if own is not None)

    def dense_macs(self, volume: Volume) -> float:
        """Count the multiply-adds of the unconverted model."""
        ffns = sum(ffn.token_macs * volume.of_stack(ffn.stack) for ffn in self.ffns)
        return ffns + self.backbone.rest_macs(self.config, self.head, volume)

    def moe_macs(self, volume: Volume, rows_L: Sequence[float], routed_L: Sequence[int]) -> float:
        """Count the multiply-adds of the converted model.

        Args:
            volume: what attention and the unconverted layers process.
            rows_L: rows multiplied by experts in each MoE layer.
            routed_L: rows that the gate of each MoE layer decided for.
        """
        total: float = self.backbone.rest_macs(self.config, self.head, volume)
        total += sum(ffn.token_macs * volume.of_stack(ffn.stack) for ffn in self.ffns if not ffn.converted)
        for ffn, rows, routed in zip(self.moe, rows_L, routed_L, strict=True):
            total += ffn.row_macs * rows + (ffn.gate_macs or 0) * routed
        return total

    def analytic_macs(self, volume: Volume, experts_per_token: float) -> float:
        """Count the multiply-adds when every token of every MoE layer has this many experts on average."""
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
    def of(tape: RoutingTape, masks: Mapping[str, Tensor]) -> Work:
        """Measure the work of one forward pass over a batch.

        Args:
            masks: stack -> mask of real tokens, (B, S).
        """
        real = {stack: mask.sum(1).tolist() for stack, mask in masks.items()}
        padded = {stack: [mask.shape[1]] * len(mask) for stack, mask in masks.items()}
        return Work.of_rows(tape.totals_LC().tolist(), Volume.of(real), Volume.of(padded))

    @staticmethod
    def of_rows(rows: Sequence[Sequence[float]], real: Volume, padded: Volume) -> Work:
        """Read the rows of `RoutingTape.totals_LC`, of passes over these volumes."""
        experts = (len(rows[0]) - 4) // 2 if rows else 0
        counts, loads = slice(0, experts + 1), slice(experts + 1, 2 * experts + 1)
        return Work(
            real=real,
            padded=padded,
            rows_routed_L=[int(sum(row[loads])) for row in rows],
            rows_computed_L=[int(row[-2]) for row in rows],
            routed_tokens_L=[int(sum(row[counts])) for row in rows],
            router_rows_L=[int(row[-1]) for row in rows],
        )

    @staticmethod
    def of_plain(plain: Mapping[str, Any]) -> Work:
        """Restore the work from its `dataclasses.asdict`."""
        volumes = {name: Volume(**plain[name]) for name in ("real", "padded")}
        return Work(**{**plain, **volumes})

    def __add__(self, other: Work) -> Work:
        return Work(
            real=self.real + other.real,
            padded=self.padded + other.padded,
            rows_routed_L=add_counts(self.rows_routed_L, other.rows_routed_L),
            rows_computed_L=add_counts(self.rows_computed_L, other.rows_computed_L),
            routed_tokens_L=add_counts(self.routed_tokens_L, other.routed_tokens_L),
            router_rows_L=add_counts(self.router_rows_L, other.router_rows_L),
        )

    def flops(self, architecture: Architecture) -> Flops:
        """Derive the `flops` entry of a result."""
        tokens = self.real.tokens
        if not tokens:
            return Flops(per_token=None, per_token_executed=None, macs_per_token=None, dense_per_token=None)
        routed = architecture.moe_macs(self.real, self.rows_routed_L, self.routed_tokens_L)
        executed = architecture.moe_macs(self.padded, self.rows_computed_L, self.router_rows_L)
        return Flops(
            per_token=2 * routed / tokens,
            per_token_executed=2 * executed / tokens,
            macs_per_token=routed / tokens,
            dense_per_token=2 * architecture.dense_macs(self.real) / tokens,
        )
