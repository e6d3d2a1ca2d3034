"""FFN experts beside zero, copy and constant experts, which cost next to nothing (MoE++)."""

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
    to_fp32,
)
from repro.moe.routing import Routing


@settings
class Config:
    """Options of zero-computation experts."""

    k: int = bounded(2, low=1)
    """Experts chosen for every token, cheap ones included."""
    zeros: int = bounded(1, low=0)
    """Experts that give 0."""
    copies: int = bounded(1, low=0)
    """Experts that give x."""
    constants: int = bounded(2, low=0)
    """Experts that give a mixture of x and a learned vector."""
    tau: float = bounded(0.75, above=0)
    """Weight of the cheap experts in the balance loss; the smaller, the more tokens they get (3.3)."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is their probabilities; see `Combine`. What sums to 1 is
    without the zero experts; `renormalised` is so in the released code."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (beta of eq. 9)."""


class Gate(base.Gate[Config]):
    """S(x) = the k most probable of all experts: FFN experts, then zero, copy and constant ones.

    A zero expert gives 0, a copy expert x, a constant expert a1 x + a2 v with (a1, a2) = softmax(W_c x)
    and v learned. Balance loss: N sum_i eta_i f_i P_i over all N experts, eta 1 for FFN experts and tau
    for cheap ones, f_i the share of tokens that chose i.

    Counts and loads are of FFN experts. What the cheap ones give is `Routing.extra_TD`; the constant
    ones are computed for every token, with the router, and counted so.

    With `force_top1` a token gets its best expert of any kind.

    Source: "MoE++: Accelerating Mixture-of-Experts Methods with Zero-Computation Experts" (Jin et al., 2024,
    https://arxiv.org/abs/2410.07348): choice and weights eq. (1), cheap experts eq. (3) to (5) in 3.1,
    balance loss eq. (7) in 3.3.

    Defaults: k = 2 (4.1), 1 zero, 1 copy and 2 constant experts (table 2, as beside 16 FFN experts), tau =
    0.75 (table 3, its largest model), coefficient 0.01 (appendix B.2).

    Differences: no capacities, eq. (8), as no token is dropped here; no gating residuals between layers,
    eq. (6), as a gate sees its own layer alone. Eq. (7) is without the factor N, which all losses here
    have. The released code rescales the weights (here `combine`), has a router of two layers and
    doubles the input of the layer. W_c and v start at 0 (ours): a constant expert starts as x / 2.

    Raises:
        ValueError: k is larger than the number of experts.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        total = num_experts + config.zeros + config.copies + config.constants
        if config.k > total:
            raise ValueError(f"gate.k = {config.k} is more than the {total} experts there are")
        self.sizes = [num_experts, config.zeros, config.copies, config.constants]
        self.router = Router(d_model, total, config.logit_std)
        self.macs_per_token = d_model * (total + 3 * config.constants)
        if config.constants:
            self.mixture = nn.Parameter(torch.zeros(2 * config.constants, d_model))
            self.vectors = nn.Parameter(torch.zeros(d_model, config.constants))

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        all_probs_TN = self.router(x_TD, mask_T)
        best_TK = best_experts(all_probs_TN, 1 if force_top1 else self.config.k)
        chosen_TN = torch.zeros_like(all_probs_TN, dtype=torch.bool).scatter(1, best_TK, True)
        chosen_TN = chosen_TN & mask_T[:, None]
        ffns, zeros, _, _ = self.sizes
        useful_TN = chosen_TN.clone()
        useful_TN[:, ffns : ffns + zeros] = False
        weights_TN = combine_weights(all_probs_TN, useful_TN, self.config.combine)
        return Routing.from_selection(
            chosen_TN[:, :ffns],
            weights_TN[:, :ffns],
            all_probs_TN[:, :ffns],
            mask_T,
            self.config.balance * self._balance_loss(chosen_TN, all_probs_TN, mask_T),
            self._extra(x_TD, torch.where(useful_TN, weights_TN, 0.0), mask_T),
        )

    def _balance_loss(self, chosen_TN: Tensor, probs_TN: Tensor, mask_T: Tensor) -> Tensor:
        f_N = mean_rows(chosen_TN.float(), mask_T)
        ffns = self.sizes[0]
        return balance_of_shares(torch.cat([f_N[:ffns], self.config.tau * f_N[ffns:]]), probs_TN, mask_T)

    def _extra(self, x_TD: Tensor, weights_TN: Tensor, mask_T: Tensor) -> Tensor:
        """Weighted sum of the copy and constant experts, (T, D) in the type of the input; 0 for padding."""
        rows_TD = to_fp32(x_TD, mask_T)
        _, _, copies_TC, constants_TJ = torch.split(weights_TN, self.sizes, dim=1)
        of_x_T1 = copies_TC.sum(1, keepdim=True)
        if not self.config.constants:
            return (of_x_T1 * rows_TD).to(x_TD.dtype)
        logits_TJ, other_TJ = linear_fp32(rows_TD, self.mixture).chunk(2, dim=1)
        # The softmax of two numbers.
        share_TJ = (logits_TJ - other_TJ).sigmoid()
        of_x_T1 = of_x_T1 + (constants_TJ * share_TJ).sum(1, keepdim=True)
        mixed_TD = linear_fp32(constants_TJ * (1 - share_TJ), self.vectors)
        return (of_x_T1 * rows_TD + mixed_TD).to(x_TD.dtype)
