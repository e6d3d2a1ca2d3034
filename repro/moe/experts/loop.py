"""One expert after the other, as plainly as possible: the reference for all others."""

import torch
from torch import Tensor

from repro.moe.experts.base import FFNWeights
from repro.moe.experts.shared.ffn import activate
from repro.moe.routing import Routing


def available(device: torch.device) -> str | None:
    """Return None: it runs everywhere."""
    return None


def rows_computed(load_E: Tensor, dtype: torch.dtype) -> Tensor:
    """Count the assignments alone."""
    return load_E.sum()


def forward(x_TD: Tensor, routing: Routing, weights: FFNWeights) -> Tensor:
    """Select each expert's tokens, apply it, weight the result, add it to its tokens' rows."""
    y_TD = torch.zeros_like(x_TD)
    # `unbind` gives one gradient for the stack; indexing it would build one per expert.
    w1s, b1s = weights.w1_EFD.unbind(), weights.b1_EF.unbind()
    w2s, b2s = weights.w2_EDF.unbind(), weights.b2_ED.unbind()
    for expert, (w1_FD, b1_F, w2_DF, b2_D) in enumerate(zip(w1s, b1s, w2s, b2s, strict=True)):
        mine_A = routing.expert_A == expert
        token_N = routing.token_A[mine_A]
        hidden_NF = activate(x_TD[token_N] @ w1_FD.t() + b1_F, weights.activation)
        output_ND = (hidden_NF @ w2_DF.t() + b2_D) * routing.weight_A[mine_A, None]
        y_TD = y_TD.index_add(0, token_N, output_ND.to(y_TD.dtype))
    return y_TD
