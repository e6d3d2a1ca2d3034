"""The k most probable experts for every token: Switch for k = 1, GShard for k = 2 (paper 4.2)."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import (
    Combine,
    Router,
    balance_loss,
    best_experts,
    combine_weights,
)
from repro.moe.routing import Routing


@settings
class Config:
    """Options of top-k gating."""

    k: int = bounded(2, low=1)
    """Experts of every token."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is Adaptive Gating, eq. (3); see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (Adaptive Gating, 4.3)."""


class Gate(base.Gate[Config]):
    """S(x) = the k experts with the highest probability.

    Balance loss: E sum_e f_e P_e, f_e the share of the tokens whose first choice is e, P_e the mean of p_e.

    Source: k = 1 is "Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient
    Sparsity" (Fedus et al., 2021, https://arxiv.org/abs/2101.03961), balance loss eq. (4) to (6).
    k = 2 is "GShard: Scaling Giant Models with Conditional Computation and Automatic Sharding" (Lepikhin
    et al., 2020, https://arxiv.org/abs/2006.16668), 2.2, algorithm 1. They are the baselines of Adaptive
    Gating, 4.2, with its weights, eq. (3).

    Defaults: k = 2 is the baseline that Adaptive Gating measures against (table 3); the coefficient is that
    of its 4.3, and alpha of Switch Transformers, eq. (4).

    Differences: no capacity, so no token is dropped (Adaptive Gating, 4.3), and no noise. GShard rescales
    its two weights (here `combine`), takes the second expert at random in proportion to its weight, and
    has a loss of 1/E^2 of this one; its loss counts first choices only, too.

    Raises:
        ValueError: k is larger than the number of experts.
    """

    adaptive = False

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        if config.k > num_experts:
            raise ValueError(f"gate.k = {config.k} is more than the {num_experts} experts there are")
        self.router = Router(d_model, num_experts, config.logit_std)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        probs_TE = self.router(x_TD, mask_T)
        best_TK = best_experts(probs_TE, 1 if force_top1 else self.config.k)
        selected_TE = torch.zeros_like(probs_TE, dtype=torch.bool).scatter(1, best_TK, True)
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine, best_TK)
        loss = balance_loss(best_TK[:, 0], mask_T, probs_TE, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, self.config.balance * loss)
