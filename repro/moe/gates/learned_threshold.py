"""All experts above a threshold that is learned for each token (AdaMoLE)."""

from typing import Literal

import torch
from torch import Tensor, nn

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import (
    Combine,
    Router,
    balance_of_shares,
    best_experts,
    combine_weights,
    linear_fp32,
    mean_rows,
    one_hot,
    to_fp32,
)
from repro.moe.routing import Routing


@settings
class Config:
    """Options of the learned threshold."""

    highest: float = bounded(1.0, above=0)
    """Largest threshold, in units of 1/E: tau_max = highest / E. Up to 1 the best expert always
    qualifies (3.2); above, a token may get none."""
    combine: Combine = "renormalised"
    """Weights of the selected experts: `raw` is p - tau; see `Combine`."""
    balance_on: Literal["probabilities", "shifted"] = "probabilities"
    """What the balance loss averages: p, or p - tau as in the released code, which can be negative."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss; the paper has 1e-3 (4.3), its released trainer 1e-2."""


class Gate(base.Gate[Config]):
    """S(x) = {i : p_i >= tau(x)}, tau(x) = tau_max sigmoid(v x + b), with tau_max = highest / E.

    Weights: (p_i - tau)_+ rescaled to sum 1; a token without experts gets 0. Balance loss: E sum_i f_i P_i,
    f_i the share of tokens that selected i.

    With `force_top1` a token gets its best expert if that one qualifies.

    Source: "AdaMoLE: Fine-Tuning Large Language Models with Adaptive Mixture of Low-Rank Adaptation
    Experts" (Liu and Luo, 2024, https://arxiv.org/abs/2405.00361), 3.2: tau eq. (5), weights eq. (6). For
    the balance loss it names Switch Transformers (3.1), whose f counts one expert per token; f over all
    selected experts is that of the released code.

    Defaults: tau_max = 1/E and weights with sum 1 are the paper's (3.2). The coefficient is that of the other
    gates here.

    Differences: experts are FFNs, not adapters. v and b start at 0 (ours), so tau starts at half of its
    largest value. The released code balances p - tau, here `balance_on`.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        self.highest = config.highest / num_experts
        self.router = Router(d_model, num_experts, config.logit_std)
        self.threshold_weight = nn.Parameter(torch.zeros(1, d_model))
        self.threshold_bias = nn.Parameter(torch.zeros(1))
        self.macs_per_token = d_model * (num_experts + 1)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        probs_TE = self.router(x_TD, mask_T)
        level_T1 = linear_fp32(to_fp32(x_TD, mask_T), self.threshold_weight) + self.threshold_bias
        shifted_TE = probs_TE - self.highest * level_T1.sigmoid()
        above_TE = shifted_TE >= 0
        selected_TE = above_TE
        if force_top1:
            selected_TE = above_TE & one_hot(best_experts(probs_TE, 1)[:, 0], probs_TE)
        weights_TE = combine_weights(shifted_TE.clamp(min=0), selected_TE, self.config.combine)
        values_TE = probs_TE if self.config.balance_on == "probabilities" else shifted_TE
        loss = balance_of_shares(mean_rows(above_TE.float(), mask_T), values_TE, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, self.config.balance * loss)
