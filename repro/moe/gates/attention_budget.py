"""As many experts as a token is important, by the attention before the layer (DA-MoE)."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.softmax import Combine, Router, balance_loss, combine_weights
from repro.moe.processes import sum_over_batch
from repro.moe.routing import Routing

_LARGEST = 1e6
"""Scale above which it is steered no further; peaks of attention over a million positions are below 1."""


@settings
class Config:
    """Options of gating by attention."""

    k: float | None = bounded(None, low=1)
    """Target mean number of experts per token, of every layer, which steers the scale; None keeps it."""
    scale: float | None = bounded(None, low=1)
    """N: a token of importance I has ceil(I N) experts. With `k` the value at the start. None: the number of
    experts, or `k` if that is set."""
    rate: float = bounded(0.2, above=0, high=1)
    """Exponent of the factor by which one batch corrects the scale."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is their probabilities; see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (Adaptive Gating, 4.3)."""


class Gate(base.Gate[Config]):
    """S(x) = the ceil(I(x) N) most probable experts, at least one and at most all.

    I(x) is the largest weight with which the token attends to any one position in the self-attention of its
    own block, mean over heads, in (0, 1]. Balance loss: E sum_e f_e P_e, f_e the share of the tokens whose
    first choice is e, P_e the mean of p_e.

    With a target k, N <- N c^rate after every training batch, c = (k - 1) / (mean experts - 1), in
    [1/2, 2]; N is at least 1. Each layer has its own N.

    Source: "DA-MoE: Towards Dynamic Expert Allocation for Mixture-of-Experts Models" (Aghdam et al., 2024,
    https://arxiv.org/abs/2409.06669): importance from attention, K = ceil(importance N), the top K experts
    (second-hand, without numbers; there N is the number of experts, which is our default too).

    Defaults: N is the paper's (second-hand); the coefficient is that of `top-k`, the steering ours.

    Differences: our source has as importance the largest attention weight that a token takes part in, mean
    over heads, and leaves open on which side. Here it is what the token itself pays, never what later ones
    pay to it, so that it can stand in a decoder. A first token, which can attend to itself alone, has
    importance 1. The paper has no target; its losses were not seen.

    Raises:
        ValueError: k is larger than the number of experts, or it is called without attention.
    """

    adaptive = True
    needs_attention = True
    scale: Tensor

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        if config.k is not None and config.k > num_experts:
            raise ValueError(f"gate.k = {config.k:g} is more than the {num_experts} experts there are")
        self.num_experts = num_experts
        self.router = Router(d_model, num_experts, config.logit_std)
        start = config.scale or config.k or num_experts
        self.register_buffer("scale", torch.tensor(float(start)))

    def forward(
        self,
        x_TD: Tensor,
        mask_T: Tensor,
        *,
        force_top1: bool = False,
        ids_T: Tensor | None = None,
        attention_T: Tensor | None = None,
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        if attention_T is None:
            raise ValueError(
                "the gate 'attention-budget' needs the weights of the attention before it:"
                " call the whole model, with the attention implementation that conversion has set"
            )
        probs_TE = self.router(x_TD, mask_T)
        # `where`, not a product: what padding attends to may be NaN.
        importance_T = torch.where(mask_T, attention_T, 0.0)
        count_T = (importance_T * self.scale).ceil().clamp(1, 1 if force_top1 else self.num_experts)
        # A stable sort keeps the lowest of equal experts first.
        order_TE = probs_TE.detach().sort(dim=1, descending=True, stable=True).indices
        ranks_E = torch.arange(self.num_experts, device=x_TD.device)
        chosen_TE = ranks_E < count_T[:, None]
        selected_TE = torch.zeros_like(chosen_TE).scatter(1, order_TE, chosen_TE)
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine)
        loss = self.config.balance * balance_loss(order_TE[:, 0], mask_T, probs_TE, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, loss)

    @torch.no_grad()
    def update_state(self, routing: Routing) -> None:
        """Move the scale towards the target by the experts per token of one training batch."""
        if self.config.k is None:
            return
        tokens, assignments = sum_over_batch(routing.mask_T.sum(), routing.load_E.sum())
        extra = ((assignments - tokens) / tokens.clamp(min=1)).clamp(min=1e-9)
        correction = ((self.config.k - 1) / extra).clamp(0.5, 2) ** self.config.rate
        moved = (self.scale * correction).clamp(1, _LARGEST)
        self.scale.copy_(torch.where(tokens > 0, moved, self.scale))
