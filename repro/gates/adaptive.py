"""One expert or two, by how close the two best are: the gate of the paper (3.1)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from repro.config import bounded
from repro.gates._softmax import Router, balance_loss, best_experts, combine_weights
from repro.routing import Routing

ADAPTIVE = True

Normalisation = Literal["pair", "raw", "max", "minmax"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of adaptive gating."""

    threshold: float = bounded(0.1, low=0, high=1)
    """T: a token is given its second expert if the gap between its two best is at most T (4.3)."""
    normalisation: Normalisation = "pair"
    """How the gap is normalised before it is compared with T; see `gap`."""
    combine: Literal["raw", "renormalised"] = "raw"
    """Weights of the selected experts: softmax probabilities (eq. 3), or rescaled to sum 1."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (paper 4.3)."""


def gap(probs_TE: Tensor, normalisation: Normalisation) -> Tensor:
    """Distance of the two best experts of each token, in [0, 1]; shape (T,).

    With p1 >= p2 >= ... >= pE: `pair` (p1-p2)/(p1+p2), `raw` p1-p2, `max` (p1-p2)/p1,
    `minmax` (p1-p2)/(p1-pE), where a token whose experts are all equal has gap 0.

    `pair` depends on two logits alone: it is tanh((z1-z2)/2), so gap <= T iff z1-z2 <= 2 atanh(T).
    """
    best_T2 = probs_TE.gather(1, best_experts(probs_TE, 2))
    first_T, second_T = best_T2.unbind(1)
    difference_T = first_T - second_T
    if normalisation == "raw":
        return difference_T
    if normalisation == "pair":
        return difference_T / (first_T + second_T)
    if normalisation == "max":
        return difference_T / first_T
    spread_T = first_T - probs_TE.amin(1)
    return torch.where(spread_T > 0, difference_T / spread_T, 0.0)


class Gate(nn.Module):
    """S(x) = {i, j} if gap(R_i, R_j) <= T else {i}, for the two best experts i and j.

    The balance loss is eq. (4): f counts only tokens handled by one expert, P all tokens; decisions
    for two experts carry no constraint.

    Raises:
        ValueError: there are fewer than two experts.
    """

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError("the adaptive gate needs at least 2 experts (experts.count)")
        self.config = config
        self.router = Router(d_model, num_experts, config.logit_std)

    def forward(self, x_TD: Tensor, mask_T: Tensor, best_only: bool = False) -> Routing:
        """Route the tokens where `mask_T` is True; with `best_only` each to its best expert alone."""
        probs_TE = self.router(x_TD, mask_T)
        best_T2 = best_experts(probs_TE, 2)
        two_T = gap(probs_TE.detach(), self.config.normalisation) <= self.config.threshold
        if best_only:
            two_T = torch.zeros_like(two_T)
        chosen_T2 = torch.stack([torch.ones_like(two_T), two_T], dim=1)
        selected_TE = torch.zeros_like(probs_TE, dtype=torch.bool).scatter(1, best_T2, chosen_T2)
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine)
        loss = balance_loss(best_T2[:, 0], ~two_T, probs_TE, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, self.config.balance * loss)
