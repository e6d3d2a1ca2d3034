"""One to K experts: the paper's rule beyond two, adding experts while neighbouring ranks are close."""

from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.gaps import Normalisation, require_two_experts, route_while_close
from repro.moe.gates.shared.softmax import Combine, Router
from repro.moe.routing import Routing


@settings
class Config:
    """Options of adaptive gating with up to k experts."""

    k: int = bounded(4, low=2)
    """K: most experts of a token; 2 is the gate `adaptive`. More than there are means all."""
    threshold: float = bounded(0.1, low=0, high=1)
    """T: rank r+1 follows rank r if the gap between them is at most T."""
    normalisation: Normalisation = "pair"
    """How a gap is normalised before it is compared with T; see `shared.gaps.neighbour_gaps`."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is Adaptive Gating, eq. (3); see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (Adaptive Gating, 4.3)."""


class Gate(base.Gate[Config]):
    """S(x) = the ranks 1 ... r, r the largest rank <= K with every gap before it at most T.

    K = 2 is `adaptive` exactly. Balance loss: that of `adaptive`, f counts only tokens with one expert.

    Source: ours. It generalises 3.1 of "Adaptive Gating in Mixture-of-Experts based Language Models" (Li
    et al., 2023, https://arxiv.org/abs/2310.07188), whose section "Limitations" names the bound of two
    experts; weights eq. (3), balance loss eq. (4).

    Defaults: K = 4 is ours, the others are those of `adaptive`.

    Raises:
        ValueError: there are fewer than two experts.
    """

    adaptive = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        require_two_experts(num_experts)
        self.k = min(config.k, num_experts)
        self.router = Router(d_model, num_experts, config.logit_std)

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True; with `force_top1` each to its best expert alone."""
        return route_while_close(
            self.router(x_TD, mask_T),
            mask_T,
            k=self.k,
            threshold=self.config.threshold,
            normalisation=self.config.normalisation,
            combine=self.config.combine,
            balance=self.config.balance,
            force_top1=force_top1,
        )
