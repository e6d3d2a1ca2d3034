"""Experts choose their tokens, all the same number of them; for encoders only (Expert Choice)."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import Combine, Router, best_experts, combine_weights, one_hot
from repro.moe.routing import Routing


@settings
class Config:
    """Options of expert choice."""

    k: float = bounded(2.0, above=0)
    """Mean number of experts per token: each of E experts takes T k / E of the T real tokens (c of eq. 1)."""
    combine: Combine = "raw"
    """Weights of the experts that chose a token: `raw` is their probabilities (eq. 4); see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""


class Gate(base.Gate[Config]):
    """Expert e takes the C = ceil(T k / E) real tokens with the highest p_e; C is at most T.

    p is the softmax over experts of each token; weights are p; there is no loss, as the load is even by
    construction. Of tokens with equal p_e the first is taken. A token may get no expert. The choice
    depends on the other tokens of the batch, so a sample may be routed otherwise in another batch.

    With `force_top1` every token gets its most probable expert, whatever the experts would choose.

    Source: "Mixture-of-Experts with Expert Choice Routing" (Zhou et al., 2022,
    https://arxiv.org/abs/2202.09368), 3.2: C eq. (1), p and choice eq. (2), weights eq. (4); no loss 4.1.

    Defaults: k = 2 is the paper's capacity factor c (3.4).

    Differences: T counts real tokens, C is rounded up, as eq. (1) need not be whole. The variant with at
    most b experts per token (3.3) is not here.
    """

    adaptive = True
    encoders_only = "its experts choose among all tokens of a batch, later ones too"
    whole_batches = "its experts choose among all tokens of a batch"

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        probs_TE = self.router(x_TD, mask_T)
        if force_top1:
            selected_TE = one_hot(best_experts(probs_TE, 1)[:, 0], probs_TE)
        else:
            selected_TE = choose_tokens(probs_TE.detach(), mask_T, self.config.k)
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine)
        loss = probs_TE.new_zeros(())
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, loss)


def choose_tokens(probs_TE: Tensor, mask_T: Tensor, k: float) -> Tensor:
    """Let every expert choose its tokens, bool, (T, E)."""
    share = mask_T.sum().double() * k / probs_TE.shape[1]
    # Without the margin a rounding error would add a token.
    capacity = (share - 1e-6).ceil()
    # Padding comes last, and the capacity may exceed the real tokens: `from_selection` drops it.
    scores_TE = torch.where(mask_T[:, None], probs_TE, -1.0)
    order_TE = scores_TE.argsort(dim=0, descending=True, stable=True)
    taken_TE = (torch.arange(len(probs_TE), device=probs_TE.device) < capacity)[:, None]
    return torch.zeros_like(probs_TE, dtype=torch.bool).scatter(0, order_TE, taken_TE.expand_as(order_TE))
