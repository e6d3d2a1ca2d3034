"""Routing is a value: which token goes to which expert with which weight, and what follows from that.

Axis letters, used as suffixes wherever tensors meet:

    T tokens of a batch, flattened     D model width       B sequences of a batch
    E experts                          F hidden width      S positions of a sequence
    A assignments (token, expert)      L MoE layers        K experts of one token
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Routing:
    """The decision of one gate for one batch.

    A token may have any number of experts, zero included. Only real assignments exist here, so an
    empty slot can be neither computed nor counted. Assignments are ordered by expert, then by token.
    """

    expert_A: Tensor
    """Expert of each assignment, ascending; int64."""
    token_A: Tensor
    """Token of each assignment, ascending within an expert; int64."""
    weight_A: Tensor
    """Combine weight of each assignment; carries gradient to the router."""
    load_E: Tensor
    """Assignments of each expert; int64."""
    count_T: Tensor
    """Experts of each token, 0 for padding; int64."""
    probs_TE: Tensor
    """Gate probabilities, fp32; rows of padding are meaningless."""
    mask_T: Tensor
    """True for real tokens, False for padding."""
    loss: Tensor
    """Auxiliary loss of this layer, scalar, already multiplied by the gate's coefficient."""
    extra_TD: Tensor | None = None
    """Weighted output of experts that are no FFNs, added to that of the experts; 0 for padding."""

    @staticmethod
    def from_selection(
        selected_TE: Tensor,
        weights_TE: Tensor,
        probs_TE: Tensor,
        mask_T: Tensor,
        loss: Tensor,
        extra_TD: Tensor | None = None,
    ) -> "Routing":
        """Build a routing from a boolean choice of experts per token; padding is never routed."""
        selected_TE = selected_TE & mask_T[:, None]
        selected_ET = selected_TE.t()
        expert_A, token_A = selected_ET.nonzero(as_tuple=True)
        return Routing(
            expert_A=expert_A,
            token_A=token_A,
            weight_A=weights_TE.t().masked_select(selected_ET),
            load_E=selected_TE.sum(0),
            count_T=selected_TE.sum(1),
            probs_TE=probs_TE,
            mask_T=mask_T,
            loss=loss,
            extra_TD=extra_TD,
        )


@dataclass(frozen=True, eq=False)
class LayerRouting:
    """What one MoE layer did in one forward pass."""

    layer: int
    """Index among the model's MoE layers, in the order of computation."""
    routing: Routing
    shape: tuple[int, int]
    """The two leading axes of the layer's input: (B, S), or (S, B) where the model is time-major."""
    time_major: bool
    rows_computed: Tensor
    """Expert rows that the layer's back-end multiplied in this process, padding slots included; a scalar."""
    update_gate: Callable[[Routing], None]
    """Moves the state of the layer's gate by a routing; does nothing for a gate without one."""

    def count_BS(self) -> Tensor:
        """Return the number of experts of each token, one row per sequence; 0 for padding."""
        count = self.routing.count_T.view(self.shape)
        return count.t() if self.time_major else count


@dataclass
class RoutingTape:
    """The routings of the forward passes made inside one `record_routing` block, in order."""

    entries: list[LayerRouting] = field(default_factory=list)

    def loss(self) -> Tensor | float:
        """Sum the layers' auxiliary losses (paper eq. 4); 0.0 for a model without MoE layers."""
        total: Tensor | float = 0.0
        for entry in self.entries:
            total = total + entry.routing.loss
        return total

    def update_gates(self) -> None:
        """Let gates with a state learn from the batch; once, in training, after its backward pass."""
        for entry in self.entries:
            entry.update_gate(entry.routing)

    def totals_LC(self) -> Tensor:
        """Sum up everything that is counted of the tape, layer by layer, on the device: fp64, (L, 2 E + 4).

        Columns: tokens given 0, 1, ..., E experts; the load of each expert; the variance of the router's
        logits; rows computed; rows of the router. `RoutingTotals.of_rows` and `Work.of_rows` read them.
        """
        if not self.entries:
            return torch.zeros(0, 0, dtype=torch.float64)
        rows = torch.stack([_totals_C(entry) for entry in self.entries])
        layers = torch.tensor([entry.layer for entry in self.entries], device=rows.device)
        count = max(entry.layer for entry in self.entries) + 1
        return rows.new_zeros(count, rows.shape[1]).index_add(0, layers, rows)

    def num_multi_expert_BL(self) -> Tensor:
        """Count each sequence's tokens given two or more experts, by layer; for one forward pass, int64."""
        return torch.stack([(entry.count_BS() >= 2).sum(1) for entry in self.entries], dim=1)

    def ratios_BL(self) -> Tensor:
        """Return complexity vectors (paper eq. 5): shares of a sequence's tokens given two or more experts.

        Valid for a tape of one forward pass. Columns are the layers in order; a sequence without
        real tokens has ratio 0. Layers of one stack see that stack's tokens only.
        """
        lengths = []
        for entry in self.entries:
            mask = entry.routing.mask_T.view(entry.shape)
            lengths.append((mask.t() if entry.time_major else mask).sum(1))
        return self.num_multi_expert_BL() / torch.stack(lengths, dim=1).clamp(min=1)


class RoutingLayer(nn.Module):
    """Base of every MoE layer: writes its routing to the tape of the block it runs in."""

    layer: int
    """Index among the model's MoE layers, in the order of computation."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: RoutingTape | None = None
        self.force_top1 = False
        self.is_idle = False


@contextmanager
def _set_on_layers(model: nn.Module, name: str, value: object) -> Iterator[None]:
    """Give every MoE layer this attribute inside the block, and its own value back afterwards."""
    layers = [module for module in model.modules() if isinstance(module, RoutingLayer)]
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, name, old)


@contextmanager
def record_routing(model: nn.Module) -> Iterator[RoutingTape]:
    """Record every routing decided inside the block.

    Leave the block before `backward`: a forward pass repeated by gradient checkpointing then
    records nothing, and losses and counts are the same as without checkpointing.
    """
    tape = RoutingTape()
    with _set_on_layers(model, "tape", tape):
        yield tape


@contextmanager
def force_top1_routing(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Give every token its best expert alone inside the block: the `top-1` gate at inference."""
    with _set_on_layers(model, "force_top1", enabled):
        yield


@contextmanager
def idle_routing(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Route nothing inside the block: for a process without a sample, which others wait for in exchanges.

    Backward passes belong into the block, too: gradient checkpointing repeats layers there.
    """
    with _set_on_layers(model, "is_idle", enabled):
        yield


def _totals_C(entry: LayerRouting) -> Tensor:
    """Return the row of one layer and pass in `RoutingTape.totals_LC`; nothing of it waits for the device."""
    routing = entry.routing
    mask_T, experts = routing.mask_T, routing.probs_TE.shape[1]
    real_T = mask_T.double()
    # A gate may choose an expert once at most, so there are E + 1 possible counts.
    tokens_by_count = real_T.new_zeros(experts + 1).index_add(0, routing.count_T, real_T)
    variance = torch.where(mask_T, logit_variance(routing.probs_TE.detach()), 0.0).sum()
    last = torch.stack([variance.double(), entry.rows_computed.double(), real_T.new_tensor(len(mask_T))])
    return torch.cat([tokens_by_count, routing.load_E.double(), last])


def logit_variance(probs_TE: Tensor) -> Tensor:
    """Return the variance over experts of each token's router logits, from the probabilities: shape (T,).

    log p differs from the logits by a constant per token, which the variance does not see.
    """
    if probs_TE.shape[0] == 0 or probs_TE.shape[1] < 2:
        return probs_TE.new_zeros(probs_TE.shape[0])
    logits_TE = probs_TE.clamp(min=torch.finfo(probs_TE.dtype).tiny).log()
    # Several times as fast as `var` on rows as short as these.
    distance_TE = logits_TE - logits_TE.mean(1, keepdim=True)
    return distance_TE.square().sum(1) / (probs_TE.shape[1] - 1)
