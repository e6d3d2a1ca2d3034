"""What the tests of single gates share: gates whose probabilities are set by hand, and what they assign."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.moe.gates.base import GateModule
from repro.moe.routing import Routing


def identity_gate(
    module: GateModule, num_experts: int = 4, width: int | None = None, /, **options: object
) -> Any:
    """The gate of a module with the identity as router: for a token log p its probabilities are p.

    `width` is that of a token; by default there is one coordinate for each expert.
    """
    width = width or num_experts
    assert module.Gate is not None
    gate: Any = module.Gate(module.Config(**options), width, num_experts)
    with torch.no_grad():
        gate.router.weight.copy_(torch.eye(width))
    return gate


def route(
    gate: Any,
    x_TD: Tensor,
    mask: Sequence[bool] | None = None,
    *,
    force_top1: bool = False,
    ids_T: Any = None,
) -> Routing:
    """Call a gate; by default all tokens are real."""
    mask_T = torch.ones(len(x_TD), dtype=torch.bool) if mask is None else torch.tensor(mask)
    routing: Routing = gate(x_TD, mask_T, force_top1=force_top1, ids_T=ids_T)
    return routing


class FixedRouter(nn.Module):
    """A router that ignores its input: exact probabilities, without the rounding of a softmax."""

    def __init__(self, probs_TE: Tensor) -> None:
        super().__init__()
        self.probs_TE = probs_TE

    def forward(self, x_TD: Tensor, mask_T: Tensor) -> Tensor:
        return self.probs_TE


def assignments(routing: Routing) -> list[tuple[int, int]]:
    """(expert, token) of each assignment, in its order."""
    return list(zip(routing.expert_A.tolist(), routing.token_A.tolist(), strict=True))
