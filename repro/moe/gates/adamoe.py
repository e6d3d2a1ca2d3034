"""Null experts that cost nothing: top-k of n true and m null experts (AdaMoE)."""

from typing import Literal

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import (
    Combine,
    Router,
    balance_of_shares,
    best_experts,
    combine_weights,
    mean_rows,
    one_hot,
)
from repro.moe.routing import Routing


@settings
class Config:
    """Options of null experts."""

    nulls: int = bounded(16, low=1)
    """m: null experts beside the n true ones (experts.count); the paper has 8 beside 8 (4.2.2)."""
    k: int = bounded(3, low=1)
    """Experts chosen for every token, null ones included."""
    balance_rule: Literal["corrected", "as_released"] = "corrected"
    """`corrected`: the loss sees the mean load of the null experts, as in eq. (6). `as_released`: it
    balances every null expert alone, as the released code does by slicing the wrong axis."""
    combine: Combine = "renormalised"
    """Weights of the selected true experts: `raw` is the softmax over all n+m; see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient alpha of the balance loss; the paper has 0.02, in the second epoch 1e-4 (4.2.1)."""


class Gate(base.Gate[Config]):
    """S(x) = the true ones among the k most probable of n true and m null experts.

    A null expert gives 0 at no cost. Weights are renormalised over the true experts selected; a
    token whose k experts are all null gets 0 and lives on the residual. Loss: (n+m) sum_i f~_i P_i,
    f_i the share of tokens that chose i, f~_i = f_i for a true expert and the mean of f over all
    null experts for a null one; P_i the mean of the softmax over all n+m. At perfect balance it is k,
    and a token has k n/(n+m) true experts on average (n = m = 8, k = 3: 1.5).

    With `force_top1` a token gets its most probable true expert.

    Source: "AdaMoE: Token-Adaptive Routing with Null Experts for Mixture-of-Experts Language Models" (Zeng
    et al., 2024, https://arxiv.org/abs/2406.13233): rule 3.3, weights 3.4 ("Normalization of routing
    probabilities", option 2), loss eq. (6) in 3.4, with f of eq. (4) and P of eq. (5) in 3.1.

    Defaults: k = 3 and as many null as true experts are the main setting (4.2.2), at 16 experts here. The
    coefficient is ours, one value where the paper lowers its own from tight to loose.

    Differences: none known. Of a trained router the null experts get copies of the rows, as in the paper
    (3.5, 4.2.1; see `repro.moe.pretrained`).

    Raises:
        ValueError: k is larger than the number of true and null experts.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        if config.k > num_experts + config.nulls:
            raise ValueError(
                f"gate.k = {config.k} is more than the {num_experts} true and {config.nulls} null experts"
            )
        self.num_experts = num_experts
        self.router = Router(d_model, num_experts + config.nulls, config.logit_std)
        self.macs_per_token = d_model * (num_experts + config.nulls)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best true expert alone."""
        all_probs_TM = self.router(x_TD, mask_T)
        probs_TE = all_probs_TM[:, : self.num_experts]
        best_TK = best_experts(all_probs_TM, self.config.k)
        chosen_TM = torch.zeros_like(all_probs_TM, dtype=torch.bool).scatter(1, best_TK, True)
        selected_TE = chosen_TM[:, : self.num_experts]
        if force_top1:
            selected_TE = one_hot(best_experts(probs_TE, 1)[:, 0], probs_TE)
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine)
        f_M = mean_rows(chosen_TM.float(), mask_T)
        if self.config.balance_rule == "corrected":
            f_M = average_nulls(f_M, self.num_experts)
        loss = balance_of_shares(f_M, all_probs_TM, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, self.config.balance * loss)


def average_nulls(f_M: Tensor, num_experts: int) -> Tensor:
    """Replace the shares of the null experts, which stand behind the true ones, by their mean."""
    nulls_M = f_M[num_experts:]
    return torch.cat([f_M[:num_experts], nulls_M.mean().expand_as(nulls_M)])
