"""Experts spread over processes: a token travels to the process that holds its expert, and back (paper, 4.3).

Axis letters beside those of `routing`: N processes of the `ep` axis, X experts that one of them holds
(E = N X), R rows that have arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single_autograd, wait_tensor

from repro.moe.experts.shared.rows import combine, compute_dtype
from repro.moe.routing import Routing


@dataclass
class ExchangeTotals:
    """What the exchanges of one layer came to, in forward passes since it was last taken."""

    rows: int = 0
    """Rows that arrived here."""
    bytes: int = 0
    """Sent to other processes, there and back."""
    seconds: float = 0.0
    """From the call of an exchange to its end: waiting for others included."""

    def take(self) -> ExchangeTotals:
        """Return a copy, and begin anew."""
        taken = ExchangeTotals(self.rows, self.bytes, self.seconds)
        self.rows, self.bytes, self.seconds = 0, 0, 0.0
        return taken


@dataclass(kw_only=True)
class Spread:
    """One layer's share of the experts, and how its tokens get to the others."""

    group: dist.ProcessGroup
    """The processes that hold the experts of this layer, each a part, in the order of their ranks."""
    totals: ExchangeTotals | None = None
    """What is measured; None on the hot path."""

    def forward(
        self, x_TD: Tensor, routing: Routing, experts: Callable[[Tensor, Routing], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the weighted sum of every token's experts, wherever they are.

        All processes of the group have to take part, with or without tokens.

        Args:
            x_TD: tokens of this process.
            routing: of them, over all experts.
            experts: computes the experts held here, from rows and their routing.

        Returns:
            The sum, (T, D); rows that each expert held here has computed, (X,).
        """
        counts_NX = routing.load_E.view(dist.get_world_size(self.group), -1)
        arriving_NX = torch.empty_like(counts_NX)
        dist.all_to_all_single(arriving_NX, counts_NX.contiguous(), group=self.group)
        # The only wait for the device: an exchange takes its sizes from the host.
        sent, arriving = torch.stack([counts_NX.sum(1), arriving_NX.sum(1)]).tolist()
        rows_AD = x_TD.to(compute_dtype(x_TD)).index_select(0, routing.token_A)
        arrived_RD = self.exchange(rows_AD, arriving, sent)
        output_RD = experts(arrived_RD, arrived_routing(arriving_NX))
        output_AD = self.exchange(output_RD, sent, arriving)
        if self.totals is not None:
            self.totals.rows += sum(arriving)
        return combine(output_AD, routing).to(x_TD.dtype), arriving_NX.sum(0)

    def exchange(self, rows: Tensor, arriving: list[int], sent: list[int]) -> Tensor:
        """Send rows to all processes, in the order of their ranks, and return those that arrive.

        Args:
            arriving: rows from each process.
            sent: rows for each process.
        """
        if self.totals is None:
            return _exchanged(rows, arriving, sent, self.group)
        _synchronise(rows)
        start = perf_counter()
        result = _exchanged(rows, arriving, sent, self.group)
        _synchronise(result)
        self.totals.seconds += perf_counter() - start
        own = dist.get_rank(self.group)
        self.totals.bytes += (sum(sent) - sent[own]) * rows.shape[1] * rows.element_size()
        return result


def _exchanged(rows: Tensor, arriving: list[int], sent: list[int], group: dist.ProcessGroup) -> Tensor:
    result = all_to_all_single_autograd(rows, arriving, sent, group)
    return wait_tensor(result)  # type: ignore[no-any-return,no-untyped-call]


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def arrival_order(counts_NX: Tensor) -> Tensor:
    """Return where the rows of each expert have arrived, expert by expert and within by sender, (R,).

    Rows arrive sender by sender, and from each expert by expert.

    Args:
        counts_NX: rows that each process has sent for each expert held here.
    """
    starts_NX = (counts_NX.reshape(-1).cumsum(0) - counts_NX.reshape(-1)).view(counts_NX.shape)
    counts_B, starts_B = counts_NX.t().reshape(-1), starts_NX.t().reshape(-1)
    begins_B = counts_B.cumsum(0) - counts_B
    shifts_R = (starts_B - begins_B).repeat_interleave(counts_B)
    return torch.arange(len(shifts_R), device=counts_NX.device) + shifts_R


def arrived_routing(counts_NX: Tensor) -> Routing:
    """Return the routing of rows that have arrived: each to the one expert that it was sent for, weight 1.

    Args:
        counts_NX: as in `arrival_order`.
    """
    load_X = counts_NX.sum(0)
    token_R = arrival_order(counts_NX)
    ones_R = torch.ones(len(token_R), device=token_R.device)
    return Routing(
        expert_A=torch.arange(len(load_X), device=load_X.device).repeat_interleave(load_X),
        token_A=token_R,
        weight_A=ones_R,
        load_E=load_X,
        count_T=torch.ones_like(token_R),
        probs_TE=ones_R[:, None].expand(-1, len(load_X)),
        mask_T=ones_R.bool(),
        loss=ones_R.new_zeros(()),
    )
