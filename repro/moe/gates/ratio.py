"""A second expert if its probability is at least beta times the best one's; beta fixed or calibrated."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.gaps import require_two_experts, route_run
from repro.moe.gates.shared.softmax import Combine, Router, best_experts
from repro.moe.processes import gather_over_batch
from repro.moe.routing import Routing


@settings
class Config:
    """Options of ratio gating."""

    beta: float = bounded(9 / 11, low=0, high=1)
    """A token is given its second expert if p2 >= beta p1; 9/11 is `adaptive` with T = 0.1. With
    `share` the value at the start."""
    share: float | None = bounded(None, low=0, high=1)
    """Target share of two-expert tokens, by which beta is calibrated; None keeps beta."""
    rate: float = bounded(0.02, above=0, high=1)
    """Weight of the newest batch in the running quantile."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is their probabilities; see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (Adaptive Gating, 4.3)."""


class Gate(base.Gate[Config]):
    """S(x) = {1, 2} if p2 >= beta p1 else {1}, for the two highest probabilities p1 >= p2.

    It is `adaptive` with `pair`: (p1-p2)/(p1+p2) <= T iff p2/p1 >= (1-T)/(1+T). With a target share, beta
    follows the (1 - share) quantile of p2/p1: the mean over the first batches, later an exponential
    mean. Balance loss: that of `adaptive`, f counts only tokens with one expert.

    Source: "Not All Experts are Equal: Efficient Expert Pruning and Skipping for Mixture-of-Experts Large
    Language Models" (Lu et al., 2024, https://arxiv.org/abs/2402.14800), 3.3, "Dynamic Skipping During
    Inference" (no equation number), with beta of each layer the median of p2/p1 on calibration data:
    `share` 0.5. Balance loss: Adaptive Gating, eq. (4).

    Defaults: ours. beta is the threshold of `adaptive`, the weights and the coefficient are its own.

    Differences: the rule acts in training too, where the source skips experts of a trained top-2 model;
    beta is a running quantile of the training batches. Its released code rescales the weights of what
    is left, here `combine`.

    Raises:
        ValueError: there are fewer than two experts.
    """

    adaptive = True
    beta: Tensor
    batches: Tensor

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        require_two_experts(num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)
        self.register_buffer("beta", torch.tensor(config.beta))
        self.register_buffer("batches", torch.tensor(0))

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        probs_TE = self.router(x_TD, mask_T)
        best_T2 = best_experts(probs_TE, 2)
        first_T1, second_T1 = probs_TE.detach().gather(1, best_T2).chunk(2, dim=1)
        close_T1 = second_T1 >= self.beta * first_T1
        return route_run(
            probs_TE, best_T2, close_T1, mask_T, self.config.combine, self.config.balance, force_top1
        )

    @torch.no_grad()
    def update_state(self, routing: Routing) -> None:
        """Move beta towards the quantile of one training batch, if a share is asked for."""
        if self.config.share is None:
            return
        probs_TE = routing.probs_TE
        first_T, second_T = probs_TE.gather(1, best_experts(probs_TE, 2)).unbind(1)
        ratios_T, mask_T = gather_over_batch(second_T / first_T, routing.mask_T)
        newest = masked_quantile(ratios_T, mask_T, 1 - self.config.share)
        weight = (self.batches + 1.0).reciprocal().clamp(min=self.config.rate)
        real = mask_T.any()
        self.beta.copy_(torch.where(real, self.beta + weight * (newest - self.beta), self.beta))
        self.batches.add_(real)


def masked_quantile(values_T: Tensor, mask_T: Tensor, share: float) -> Tensor:
    """Interpolate the quantile of the values in [0, 1] where the mask is True, scalar; linearly.

    By sorting, because `torch.quantile` takes no mask and bounds the size of its input. Without
    such values it is meaningless.
    """
    if values_T.numel() == 0:
        return values_T.new_zeros(())
    # Padding goes behind all real values.
    ordered_T = torch.where(mask_T, values_T, 2.0).sort().values
    last = (mask_T.sum() - 1).clamp(min=0)
    place = share * last
    below = place.floor().long()
    # `gather`, not an index: an index that is a tensor waits for the device.
    low, high = ordered_T.gather(0, torch.stack([below, torch.minimum(below + 1, last)])).unbind()
    return low + (place - below) * (high - low)
