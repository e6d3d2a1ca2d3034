"""Weights relu(W x), experts those above 0, sparsity steered by the weight of an L1 loss (ReMoE)."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import Router, balance_of_shares, best_experts, mean_rows, one_hot
from repro.moe.processes import sum_over_batch
from repro.moe.routing import Routing


@settings
class Config:
    """Options of ReLU routing."""

    k: float = bounded(2.0, above=0)
    """Target mean number of experts per token, of every layer."""
    penalty: float = bounded(1e-8, above=0)
    """lambda at the start (3.3)."""
    factor: float = bounded(1.2, low=1)
    """alpha: lambda is multiplied by this after a batch with too many experts, else divided by it (3.3)."""
    logit_std: float = bounded(1.0, above=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""


class Gate(base.Gate[Config]):
    """S(x) = {i : w_i > 0} with weights w = relu(W x), not normalised; a token may get no expert.

    Loss: lambda E sum_i f_i mean_t w_ti, f_i the share of tokens with w_i > 0 divided by k. lambda grows by
    `factor` while tokens have more than k experts on average and shrinks otherwise.

    With `force_top1` a token gets the expert with the highest weight, if that is above 0.

    Source: "ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing" (Wang et al., 2024,
    https://arxiv.org/abs/2412.14711): w eq. (5) in 3.2, steps of lambda eq. (7), from the sparsity of
    eq. (8), in 3.3, loss eq. (10) in 3.4, whose f, E/k times the share, follows it there.

    Defaults: lambda 1e-8 and the factor 1.2 are those of 3.3; k = 2 is ours, that of top-2.

    Differences: the paper, like its released code, has one lambda for all layers, steered by the mean over
    layers; here each layer has its own lambda and target, as it computes its loss by itself. The mean
    over layers in eq. (10) is a sum here, which lambda takes up. At exactly k experts eq. (7) leaves
    lambda, here as in the released code it shrinks.
    """

    adaptive = True
    penalty: Tensor

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)
        self.register_buffer("penalty", torch.tensor(config.penalty))

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        logits_TE = self.router.logits(x_TD, mask_T)
        weights_TE = logits_TE.relu()
        active_TE = weights_TE > 0
        selected_TE = active_TE
        if force_top1:
            selected_TE = active_TE & one_hot(best_experts(weights_TE, 1)[:, 0], weights_TE)
        f_E = mean_rows(active_TE.float(), mask_T) / self.config.k
        # A copy: the buffer changes in place, perhaps before the backward pass.
        loss = self.penalty.clone() * balance_of_shares(f_E, weights_TE, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, logits_TE.softmax(1), mask_T, loss)

    @torch.no_grad()
    def update_state(self, routing: Routing) -> None:
        """Move lambda by the number of experts per token of one training batch."""
        tokens, assignments = sum_over_batch(routing.mask_T.sum(), routing.load_E.sum())
        above = assignments > self.config.k * tokens
        moved = torch.where(above, self.penalty * self.config.factor, self.penalty / self.config.factor)
        self.penalty.copy_(torch.where(tokens > 0, moved, self.penalty))
