"""What gates that compare neighbouring probabilities share: gaps, and routing to a run of best experts."""

from typing import Literal

import torch
from torch import Tensor

from repro.moe.gates.shared.softmax import Combine, balance_loss, best_experts, combine_weights
from repro.moe.routing import Routing

Normalisation = Literal["pair", "raw", "max", "minmax"]


def neighbour_gaps(probs_TE: Tensor, best_TK: Tensor, normalisation: Normalisation) -> Tensor:
    """Measure the distance of each of the K best experts to the next one, in [0, 1]; shape (T, K-1).

    With p1 >= p2 >= ... >= pE, between the ranks r and r+1: `pair` (pr-pr+1)/(pr+pr+1), `raw`
    pr-pr+1, `max` (pr-pr+1)/p1, `minmax` (pr-pr+1)/(p1-pE). Experts that are equal have gap 0.

    Adaptive Gating compares the difference of the two best (3.1) of normalised probabilities (4.3) and
    does not say how they are normalised: the four are our readings, and so are ranks beyond the second.
    """
    ranked_TK = probs_TE.gather(1, best_TK)
    higher_TR, lower_TR = ranked_TK[:, :-1], ranked_TK[:, 1:]
    difference_TR = higher_TR - lower_TR
    if normalisation == "raw":
        return difference_TR
    if normalisation == "pair":
        # Both can underflow to 0 beyond the first rank.
        total_TR = higher_TR + lower_TR
        return torch.where(total_TR > 0, difference_TR / total_TR, 0.0)
    first_T1 = ranked_TK[:, :1]
    if normalisation == "max":
        return difference_TR / first_T1
    spread_T1 = first_T1 - probs_TE.amin(1, keepdim=True)
    return torch.where(spread_T1 > 0, difference_TR / spread_T1, 0.0)


def gap(probs_TE: Tensor, normalisation: Normalisation) -> Tensor:
    """Measure the distance of each token's two best experts, in [0, 1]; shape (T,). See `neighbour_gaps`.

    `pair` depends on two logits alone: it is tanh((z1-z2)/2), so gap <= T iff z1-z2 <= 2 atanh(T). With
    g2 = p2/(p1+p2) it is 1 - 2 g2: up to a gap of exactly T this is the `threshold` policy for second
    experts of Mesh TensorFlow (mesh_tensorflow/transformer/moe.py), g2 > tau with tau = (1-T)/2.
    """
    return neighbour_gaps(probs_TE, best_experts(probs_TE, 2), normalisation)[:, 0]


def route_while_close(
    probs_TE: Tensor,
    mask_T: Tensor,
    *,
    k: int,
    threshold: float | Tensor,
    normalisation: Normalisation,
    combine: Combine,
    balance: float,
    force_top1: bool,
) -> Routing:
    """Route to the best expert, and to the next ones up to k while every gap is at most the threshold.

    Adaptive Gating, 3.1, for k = 2.
    """
    best_TK = best_experts(probs_TE, k)
    close_TR = neighbour_gaps(probs_TE.detach(), best_TK, normalisation) <= threshold
    return route_run(probs_TE, best_TK, close_TR, mask_T, combine, balance, force_top1)


def route_run(
    probs_TE: Tensor,
    best_TK: Tensor,
    close_TR: Tensor,
    mask_T: Tensor,
    combine: Combine,
    balance: float,
    force_top1: bool,
) -> Routing:
    """Route to the best expert, and to the next ones while they are close to the one before.

    Balance loss: Adaptive Gating, eq. (4), in which f counts only tokens that are given one expert.

    Args:
        best_TK: experts of each token, best first.
        close_TR: whether the ranks 2, 3, ... may follow the rank before, R = K - 1.
        force_top1: route to the best expert alone.
    """
    if force_top1:
        close_TR = torch.zeros_like(close_TR)
    more_TR = close_TR.cumprod(1).bool()
    chosen_TK = torch.cat([torch.ones_like(best_TK[:, :1], dtype=torch.bool), more_TR], dim=1)
    selected_TE = torch.zeros_like(probs_TE, dtype=torch.bool).scatter(1, best_TK, chosen_TK)
    weights_TE = combine_weights(probs_TE, selected_TE, combine)
    loss = balance_loss(best_TK[:, 0], ~more_TR[:, 0], probs_TE, mask_T)
    return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, balance * loss)


def require_two_experts(num_experts: int) -> None:
    """Check that there is a gap.

    Raises:
        ValueError: there are fewer than two experts.
    """
    if num_experts < 2:
        raise ValueError("a gate that compares experts needs at least 2 experts (experts.count)")
