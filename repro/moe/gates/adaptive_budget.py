"""One expert or two, with the paper's threshold steered to a target share of two-expert tokens."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.gaps import Normalisation, require_two_experts, route_while_close
from repro.moe.gates.shared.softmax import Combine, Router
from repro.moe.processes import sum_over_batch
from repro.moe.routing import Routing


@settings
class Config:
    """Options of adaptive gating with a budget."""

    share: float = bounded(0.25, low=0, high=1)
    """Target share of two-expert tokens of every layer; mean experts are 1 + share."""
    threshold: float = bounded(0.1, low=0, high=1)
    """T at the start."""
    rate: float = bounded(0.03, low=0, high=1)
    """Change of T per batch and unit of the difference between target and measured share."""
    normalisation: Normalisation = "pair"
    """How the gap is normalised before it is compared with T; see `shared.gaps.neighbour_gaps`."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is Adaptive Gating, eq. (3); see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (Adaptive Gating, 4.3)."""


class Gate(base.Gate[Config]):
    """The gate `adaptive` with T <- T + rate (target - share) after every training batch, T in [0, 1].

    The controller integrates, so while T stays inside (0, 1) the mean share of n batches differs
    from the target by at most 1 / (rate n), however the router drifts. Each layer has its own T.

    Source: the controller is ours; the gate is that of "Adaptive Gating in Mixture-of-Experts based
    Language Models" (Li et al., 2023, https://arxiv.org/abs/2310.07188): rule 3.1, weights eq. (3), balance
    loss eq. (4). DTop-p (Jin et al., 2025, https://arxiv.org/abs/2512.13996) steers the p of top-p routing
    with a proportional-integral controller.

    Defaults: `share` and `rate` are ours, the others are those of `adaptive`.

    Raises:
        ValueError: there are fewer than two experts.
    """

    adaptive = True
    threshold: Tensor

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        require_two_experts(num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)
        self.register_buffer("threshold", torch.tensor(config.threshold))

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        return route_while_close(
            self.router(x_TD, mask_T),
            mask_T,
            k=2,
            threshold=self.threshold,
            normalisation=self.config.normalisation,
            combine=self.config.combine,
            balance=self.config.balance,
            force_top1=force_top1,
        )

    @torch.no_grad()
    def update_state(self, routing: Routing) -> None:
        """Move T towards the target by the share of two-expert tokens of one training batch."""
        tokens, multi_expert = sum_over_batch(routing.mask_T.sum(), (routing.count_T >= 2).sum())
        error = self.config.share - multi_expert / tokens.clamp(min=1)
        step = torch.where(tokens > 0, self.config.rate * error, 0.0)
        self.threshold.copy_((self.threshold + step).clamp(0, 1))
