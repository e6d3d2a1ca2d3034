"""One expert or two, by how close the two best are: the gate of the paper (3.1)."""

from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.gaps import Normalisation, require_two_experts, route_while_close
from repro.moe.gates.shared.softmax import Combine, Router
from repro.moe.routing import Routing


@settings
class Config:
    """Options of adaptive gating."""

    threshold: float = bounded(0.1, low=0, high=1)
    """T: a token is given its second expert if the gap between its two best is at most T (3.1, 4.3)."""
    normalisation: Normalisation = "pair"
    """How the gap is normalised before it is compared with T: `pair` (p1-p2)/(p1+p2), `raw` p1-p2,
    `max` (p1-p2)/p1, `minmax` (p1-p2)/(p1-pE)."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is their probabilities (eq. 3); see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (4.3)."""


class Gate(base.Gate[Config]):
    """S(x) = {i, j} if gap(R_i, R_j) <= T else {i}, for the two best experts i and j.

    R(x) = softmax(W x); the output is the sum over S of R_i(x) E_i(x). Balance loss: E sum_e f_e P_e, f_e
    the share of the tokens with one expert that went to e, P_e the mean of R_e over all tokens;
    decisions for two experts carry no constraint.

    Source: "Adaptive Gating in Mixture-of-Experts based Language Models" (Li et al., 2023,
    https://arxiv.org/abs/2310.07188): rule 3.1, R eq. (2), output eq. (3), balance loss eq. (4).

    Defaults: T = 0.1 and the coefficient are those of 4.3, the weights those of eq. (3). 4.3 normalises the
    probabilities without saying how; `pair` is our reading, and `logit_std` ours
    (docs/open-points.md).

    Differences: if no token of a batch has one expert, the share of eq. (4) is not defined; the loss is 0.

    Raises:
        ValueError: there are fewer than two experts.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        require_two_experts(num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        return route_while_close(
            self.router(x_TD, mask_T),
            mask_T,
            k=2,
            threshold=self.config.threshold,
            normalisation=self.config.normalisation,
            combine=self.config.combine,
            balance=self.config.balance,
            force_top1=force_top1,
        )
