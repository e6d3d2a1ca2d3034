"""One expert after the other, as plainly as possible: the reference for all others."""

import torch
from torch import Tensor

from repro.moe.ffn import FFN
from repro.moe.routing import Routing


def available(device: torch.device) -> str | None:
    """Return None: it runs everywhere."""
    return None


def rows_computed(load_E: Tensor, dtype: torch.dtype) -> Tensor:
    """Count the assignments alone."""
    return load_E.sum()


def forward(x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
    """Select each expert's tokens, apply it, weight the result, add it to its tokens' rows."""
    y_TD = torch.zeros_like(x_TD)
    for expert, ffn in enumerate(weights.unbind()):
        mine_A = routing.expert_A == expert
        token_N = routing.token_A[mine_A]
        output_ND = ffn(x_TD[token_N]) * routing.weight_A[mine_A, None]
        y_TD = y_TD.index_add(0, token_N, output_ND.to(y_TD.dtype))
    return y_TD
