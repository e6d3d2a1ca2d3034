"""Every expert decides for itself: sigmoid gates with a learned threshold per expert (DynMoE)."""

from typing import Literal

import torch
from torch import Tensor, nn

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import (
    balance_of_shares,
    best_experts,
    linear_fp32,
    mean_rows,
    one_hot,
    to_fp32,
)
from repro.moe.processes import part_of_batch, sum_over_batch
from repro.moe.routing import Routing


@settings
class Config:
    """Options of top-any gating."""

    threshold: float = bounded(0.0, low=-10, high=10)
    """G of every expert at the start: an expert is selected where cos(x, W_i) > G_i, so 0 selects
    about half of them."""
    gradient: Literal["as_released", "straight-through"] = "as_released"
    """Which experts of a token have a gradient: those selected, by the relu of the released code, or, by the
    straight-through form of the paper, all; an expert that is not selected has it from the losses alone."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss of the released code."""
    diversity: float = bounded(0.01, low=0)
    """Coefficient of the loss that keeps the experts' directions orthogonal and short (eq. 8)."""
    efficiency: float = bounded(0.01, low=0)
    """Coefficient of the mean share of experts selected, a loss of the released code."""


class Gate(base.Gate[Config]):
    """S(x) = {i : sigmoid(cos(x, W_i)) > sigmoid(G_i)}; all selected experts have equal weight.

    With s and theta the two sigmoids, g_i = sign(relu(s_i - theta_i)); backward, sign is the identity, and
    with `gradient` straight-through there is no relu. Weights g_i / K for K selected experts, K constant in
    the gradient. In training a token may get no expert (output 0); in evaluation it then gets the expert with
    the highest s.

    Losses: diversity, ||U U^T - I||_F + mean_i |W_i| with U the rows of W at length 1; balance,
    E sum_i f_i P_i over tokens with experts, f and P the mean of g_i / K; efficiency, the mean of g.

    Source: "Dynamic Mixture of Experts: An Auto-Tuning Approach for Efficient Transformer Models" (Guo et
    al., 2024, https://arxiv.org/abs/2405.14297) and its released code (LINs-lab/DynMoE,
    `GAMoEGateT`, `topanygating_opt`, `diverse_and_simple_gate_loss`): s, G, g, K and output eq. (3) to
    (6), evaluation eq. (7), diversity eq. (8) (numbers second-hand). The relu, the cosines in the
    diversity loss, the balance and the efficiency loss are those of the code: eq. (8) has W W^T, and its
    straight-through gates have no relu (`gradient`).

    Defaults: G = 0 as in the code, which adds up the losses and weighs their sum with 0.01 on GLUE.

    Differences: experts are not added and removed (3.2, second-hand): all gates of a comparison have the
    same. In the balance loss of the code f is the mean of g_i, not of g_i / K, and the gradient passes
    through K. W starts at random, in the code with orthogonal rows.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        self.weight = nn.Parameter(torch.randn(num_experts, d_model) / d_model**0.5)
        self.threshold = nn.Parameter(torch.full((num_experts,), config.threshold))

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        rows_TD = to_fp32(x_TD, mask_T)
        unit_ED = nn.functional.normalize(self.weight.to(rows_TD.dtype))
        # The bound keeps the gradient of a token of zeros finite.
        scores_TE = linear_fp32(nn.functional.normalize(rows_TD, eps=1e-6), unit_ED).sigmoid()
        above_TE = scores_TE - self.threshold.sigmoid()
        if self.config.gradient == "as_released":
            above_TE = above_TE.relu()
        active_TE = above_TE > 0
        best_TE = one_hot(best_experts(scores_TE, 1)[:, 0], scores_TE)
        selected_TE = active_TE
        if force_top1:
            selected_TE = best_TE
        elif not self.training:
            selected_TE = torch.where(active_TE.any(1, keepdim=True), active_TE, best_TE)
        # The value of `selected`, the gradient of `above`.
        passed_TE = above_TE - above_TE.detach()
        weights_TE = (selected_TE + passed_TE) / selected_TE.sum(1, keepdim=True).clamp(min=1)

        gates_TE = active_TE + passed_TE
        counts_T1 = active_TE.sum(1, keepdim=True)
        shares_TE = gates_TE / counts_T1.clamp(min=1)
        counted_T = mask_T & (counts_T1[:, 0] > 0)
        f_E = mean_rows(shares_TE.detach(), counted_T)
        loss = self.config.balance * balance_of_shares(f_E, shares_TE, counted_T)
        loss = loss + self.config.efficiency * mean_rows(gates_TE, mask_T).mean()
        # A batch without tokens has no loss.
        (tokens,) = sum_over_batch(mask_T.sum())
        diversity = part_of_batch(diversity_loss(self.weight.float())) * (tokens > 0)
        loss = loss + self.config.diversity * diversity
        return Routing.from_selection(selected_TE, weights_TE, scores_TE, mask_T, loss)


def diversity_loss(weight_ED: Tensor) -> Tensor:
    """Add the Frobenius distance of the rows' cosines from the identity and the rows' mean length; scalar."""
    unit_ED = nn.functional.normalize(weight_ED)
    cosines_EE = linear_fp32(unit_ED, unit_ED)
    identity_EE = torch.eye(len(weight_ED), dtype=weight_ED.dtype, device=weight_ED.device)
    distance: Tensor = (cosines_EE - identity_EE).norm() + weight_ED.norm(dim=1).mean()
    return distance
