"""The fewest experts whose probabilities sum to more than p, with an entropy loss (Dynamic MoE)."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import (
    Combine,
    Router,
    balance_of_shares,
    combine_weights,
    mean_rows,
    one_hot,
)
from repro.moe.routing import Routing


@settings
class Config:
    """Options of top-p gating."""

    p: float = bounded(0.4, low=0, high=1)
    """Experts are added, best first, until their probabilities sum to more than this."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is their probabilities; see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss."""
    entropy: float = bounded(1e-4, low=0)
    """Coefficient of the entropy loss, against a flat router that selects everything."""


class Gate(base.Gate[Config]):
    """S(x) = the shortest run of best experts with p_1 + ... + p_r > p; at least one expert.

    Weights p_i, not rescaled. Balance loss: E sum_e f_e P_e, f_e the share of tokens that selected e (so f
    sums to the mean number of experts). Entropy loss: the mean over tokens of -sum_e p_e log p_e.

    Source: "Harder Tasks Need More Experts: Dynamic Routing in MoE Models" (Huang et al., 2024,
    https://arxiv.org/abs/2403.07652): rule and weights section 2 and algorithm 1 of the version of ACL 2024
    (second-hand) and the released code, which has no losses; losses second-hand, without a number. "XMoE:
    Sparse Models with Fine-grained and Adaptive Expert Selection" (Yang et al., 2024,
    https://arxiv.org/abs/2403.18926) has the same rule but for a sum of exactly p; its code has p = 0.9 and
    balances first choices.

    Defaults: p = 0.4 is one of the paper's two values (0.5 the other), 1e-2 and 1e-4 its coefficients (all
    second-hand; p also in the released code).

    Differences: none known; which choices its f counts was not checked.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        probs_TE = self.router(x_TD, mask_T)
        # A stable sort keeps the lowest of equal experts first.
        ranked_TE, order_TE = probs_TE.detach().sort(dim=1, descending=True, stable=True)
        sums_TE = ranked_TE.cumsum(1)
        before_TE = torch.cat([torch.zeros_like(sums_TE[:, :1]), sums_TE[:, :-1]], dim=1)
        chosen_TE = before_TE <= self.config.p
        if force_top1:
            chosen_TE = one_hot(torch.zeros_like(order_TE[:, 0]), chosen_TE)
        selected_TE = torch.zeros_like(chosen_TE).scatter(1, order_TE, chosen_TE)
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine)
        loss = self.config.balance * balance_of_shares(
            mean_rows(selected_TE.float(), mask_T), probs_TE, mask_T
        )
        loss = loss + self.config.entropy * mean_rows(entropy_terms(probs_TE), mask_T).sum()
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, loss)


def entropy_terms(probs_TE: Tensor) -> Tensor:
    """Compute -p log p of every probability, 0 with a finite gradient where p underflowed to 0."""
    return -probs_TE * probs_TE.clamp(min=torch.finfo(probs_TE.dtype).tiny).log()
