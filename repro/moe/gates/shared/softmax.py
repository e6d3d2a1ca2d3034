"""What gates share: the router, ordered selection, combine weights, balance losses."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from repro.moe.processes import sum_over_batch

Combine: TypeAlias = Literal["raw", "renormalised", "straight-through"]
"""Weights of the selected experts S of a token, with p their probabilities.

* `raw`: w_i = p_i, Adaptive Gating, eq. (3).
* `renormalised`: w_i = p_i / sum_S p_j, as g1 / (g1 + g2) of GShard (https://arxiv.org/abs/2006.16668,
  algorithm 1), for any number of experts. One expert has weight 1 and gives the router no gradient.
* `straight-through`: the value of `renormalised` with the gradient of `raw`,
  w_i = p_i + sg(p_i / sum_S p_j - p_i), sg without gradient; one expert has w = 1 + p - sg(p). The estimator
  is that of Bengio et al. (2013, https://arxiv.org/abs/1308.3432), its use for several experts ours.
"""


class Router(nn.Module):
    """Linear router with softmax, R(x) = softmax(W x): Adaptive Gating, eq. (2). Without a bias.

    Computed in fp32, as in Switch Transformers (https://arxiv.org/abs/2101.03961, "Selective precision with
    large sparse models"). Weights start as N(0, logit_std^2 / D), ours: on layer-normed input the logits
    then have standard deviation `logit_std`, which sets how many tokens start with two experts
    (docs/open-points.md). `fit` keeps that behind a norm with other gains and biases than 1 and 0.
    """

    def __init__(self, d_model: int, num_experts: int, logit_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, d_model))
        nn.init.normal_(self.weight, std=logit_std / d_model**0.5)

    def fit(self, rms: float) -> None:
        """Divide the fresh weights by the root mean square of the entries of the tokens to come."""
        with torch.no_grad():
            self.weight.div_(rms)

    def take(self, rows_ED: Tensor) -> None:
        """Take over the rows of a trained router, whose logits are those of experts that it was trained with.

        Rows beyond these (null experts) are copies of them, from the first on, as in AdaMoE
        (https://arxiv.org/abs/2406.13233, 3.5).
        """
        with torch.no_grad():
            self.weight.copy_(cycled(rows_ED, len(self.weight)))

    def logits(self, x_TD: Tensor, mask_T: Tensor) -> Tensor:
        """Compute the router logits, shape (T, E), fp32 (fp64 for fp64 input); 0 for padding."""
        return linear_fp32(to_fp32(x_TD, mask_T), self.weight)

    def forward(self, x_TD: Tensor, mask_T: Tensor) -> Tensor:
        """Compute the gate probabilities, shape (T, E), fp32 (fp64 for fp64 input); uniform for padding."""
        with torch.autocast(x_TD.device.type, enabled=False):
            return self.logits(x_TD, mask_T).softmax(dim=-1)


def cycled(rows_ED: Tensor, count: int) -> Tensor:
    """Return so many rows: those given, then these again from the first on; shape (count, D)."""
    return rows_ED[torch.arange(count, device=rows_ED.device) % len(rows_ED)]


def to_fp32(x_TD: Tensor, mask_T: Tensor) -> Tensor:
    """Convert the input to fp32 (fp64 stays) and clear padding.

    Were padding NaN, its zero gradient times NaN would reach the weights.
    """
    dtype = torch.promote_types(x_TD.dtype, torch.float32)
    return torch.where(mask_T[:, None], x_TD, 0.0).to(dtype)


def linear_fp32(rows_TD: Tensor, weight_ED: Tensor) -> Tensor:
    """Multiply rows of `to_fp32` by a weight in their type, also under autocast; shape (T, E)."""
    with torch.autocast(rows_TD.device.type, enabled=False):
        return nn.functional.linear(rows_TD, weight_ED.to(rows_TD.dtype))


def best_experts(probs_TE: Tensor, k: int) -> Tensor:
    """Find the k most probable experts of each token, best first, shape (T, k).

    Ties go to the lowest index: `argmax` documents that, `topk` does not.
    """
    remaining_TE = probs_TE.detach()
    columns = []
    for _ in range(k):
        best_T1 = remaining_TE.argmax(dim=1, keepdim=True)
        columns.append(best_T1)
        remaining_TE = remaining_TE.scatter(1, best_T1, -1.0)
    return torch.cat(columns, dim=1)


def combine_weights(
    probs_TE: Tensor, selected_TE: Tensor, combine: Combine, best_TK: Tensor | None = None
) -> Tensor:
    """Weigh the selected experts by their probabilities, as `Combine` says; shape (T, E).

    Args:
        best_TK: the selected experts of each token, best first, where all have as many: their probabilities
            are then added up in this order, as models of `transformers` do, which decides the last bits.
    """
    if combine == "raw":
        return probs_TE
    chosen_TE = probs_TE * selected_TE
    summed = chosen_TE if best_TK is None else probs_TE.gather(1, best_TK)
    total_T1 = summed.sum(1, keepdim=True)
    # Tokens without any expert divide by 1 instead of 0; their weights are never used.
    rescaled_TE = chosen_TE / torch.where(total_T1 > 0, total_T1, 1.0)
    if combine == "renormalised":
        return rescaled_TE
    # p - sg(p) is exactly 0.
    return rescaled_TE.detach() + (probs_TE - probs_TE.detach())


def mean_rows(values_TE: Tensor, mask_T: Tensor) -> Tensor:
    """Average the rows where the mask is True, over all processes of the batch, shape (E,); 0 without any."""
    # `where`, not a product: a value that is NaN at a padding position must not survive.
    total_E, count = sum_over_batch(torch.where(mask_T[:, None], values_TE, 0.0).sum(0), mask_T.sum())
    return total_E / count.clamp(min=1)


def balance_of_shares(f_E: Tensor, probs_TE: Tensor, mask_T: Tensor) -> Tensor:
    """Compute E * sum_e f_e P_e, scalar; P_e is the mean of column e over the real tokens.

    Eq. (4) of Switch Transformers (https://arxiv.org/abs/2101.03961) without its coefficient; P is its
    eq. (6). What f counts differs from gate to gate.
    """
    return probs_TE.shape[1] * (f_E * mean_rows(probs_TE, mask_T)).sum()


def balance_loss(first_T: Tensor, counted_T: Tensor, probs_TE: Tensor, mask_T: Tensor) -> Tensor:
    """Compute E * sum_e f_e P_e, scalar: 1 for uniform routing, E when all goes to one expert.

    f_e is the share of the counted tokens whose first choice is e; P_e the mean probability of e
    over all real tokens. If all are counted, eq. (4) to (6) of Switch Transformers
    (https://arxiv.org/abs/2101.03961); if those with one expert are, Adaptive Gating, eq. (4).
    Without counted tokens the loss is 0, with zero gradient (ours: the share is not defined).

    Args:
        first_T: first choice of each token.
        counted_T: which tokens enter f (padding never does).
        probs_TE: gate probabilities.
        mask_T: real tokens.
    """
    counted_T = counted_T & mask_T
    one_hot_TE = nn.functional.one_hot(first_T, probs_TE.shape[1]) * counted_T[:, None]
    first_E, counted = sum_over_batch(one_hot_TE.sum(0), counted_T.sum())
    f_E = first_E / counted.clamp(min=1)
    return balance_of_shares(f_E, probs_TE, mask_T)


def one_hot(index_T: Tensor, like_TE: Tensor) -> Tensor:
    """Select one expert for each token, bool, in the shape of `like_TE`."""
    return torch.zeros_like(like_TE, dtype=torch.bool).scatter(1, index_T[:, None], True)
