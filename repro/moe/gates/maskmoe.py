"""Rare tokens see one fixed expert, frequent ones all: a mask of the router by token frequency (MaskMoE)."""

from typing import Any

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.hashing import hashed
from repro.moe.gates.shared.softmax import (
    Combine,
    Router,
    balance_loss,
    best_experts,
    combine_weights,
    one_hot,
)
from repro.moe.routing import Routing


@settings
class Config:
    """Options of masked routing."""

    k: int = bounded(2, low=1)
    """Experts of a frequent token; a rare one has its own alone."""
    rare: float = bounded(0.5, low=0, high=1)
    """Share of the training split's tokens that are rare, at most: the mean is k - (k-1) rare experts."""
    salt: int = bounded(0, low=0, high=2**31 - 1)
    """Another salt gives rare tokens other experts; the same one for all layers."""
    combine: Combine = "raw"
    """Weights of the selected experts: `raw` is the softmax over the visible ones; see `Combine`."""
    logit_std: float = bounded(1.0, low=0)
    """Standard deviation of the router's logits at the start, on layer-normed input."""
    balance: float = bounded(0.01, low=0)
    """Coefficient of the balance loss (Adaptive Gating, 4.3)."""


class Gate(base.Gate[Config]):
    """S(x) = the k best visible experts: one fixed expert for a rare token, all for a frequent one.

    R(x) = softmax(W x + m), with m = 0 for the experts that the token's id sees and -inf for the others; a
    rare token has weight 1. Balance loss: E sum_e f_e P_e, f_e the share of the tokens whose first choice is
    e, P_e the mean of R_e, over rare tokens too: what they fill is left to them by the others. The
    probabilities it reports are the router's own, before the mask.

    Rare are the ids with the lowest counts in the training split that make up at most the share `rare` of its
    tokens, each stack by itself; ids of equal count are rare together or not at all. An id that was never
    counted is rare. While nothing was counted, ids are rare by a hash, with probability `rare`.

    Source: "MaskMoE: Boosting Token-Level Learning via Routing Mask in Mixture-of-Experts" (Su et al., 2024,
    https://arxiv.org/abs/2407.09816): a mask over the experts for every token id, made before training; an
    infrequent id sees one expert, a frequent one several (second-hand, from a review of the paper, without
    numbers).

    Defaults: ours. k = 2 is that of top-2, the coefficient that of `top-k`.

    Differences: a frequent id sees all experts; in the paper it sees some, drawn at random. A rare one sees
    the hash of its id, the same in all layers. Where the paper draws the line between rare and frequent
    ids, whether it has a mask for each layer, and its own loss, were not seen.

    Raises:
        ValueError: k is larger than the number of experts, or it is called without token ids.
    """

    adaptive = True
    needs_token_ids = True
    needs_frequencies = True
    rare_V: Tensor

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        if config.k > num_experts:
            raise ValueError(f"gate.k = {config.k} is more than the {num_experts} experts there are")
        self.num_experts = num_experts
        self.router = Router(d_model, num_experts, config.logit_std)
        # By token id; the last entry is of all ids beyond. One entry alone: nothing was counted.
        self.register_buffer("rare_V", torch.ones(1, dtype=torch.bool))

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True by their ids; with `force_top1` each to its best expert."""
        if ids_T is None:
            raise ValueError("the gate 'maskmoe' needs token ids: call the model with input_ids")
        logits_TE = self.router.logits(x_TD, mask_T)
        own_TE = one_hot(hashed(ids_T, self.config.salt) % self.num_experts, logits_TE)
        visible_TE = own_TE | ~self.is_rare(ids_T)[:, None]
        probs_TE = logits_TE.masked_fill(~visible_TE, -torch.inf).softmax(1)
        best_TK = best_experts(probs_TE, 1 if force_top1 else self.config.k)
        chosen_TE = torch.zeros_like(visible_TE).scatter(1, best_TK, True)
        selected_TE = chosen_TE & visible_TE
        weights_TE = combine_weights(probs_TE, selected_TE, self.config.combine)
        loss = self.config.balance * balance_loss(best_TK[:, 0], mask_T, probs_TE, mask_T)
        return Routing.from_selection(selected_TE, weights_TE, logits_TE.softmax(1), mask_T, loss)

    def is_rare(self, ids_T: Tensor) -> Tensor:
        """Tell which tokens see one expert alone, bool, (T,)."""
        last = len(self.rare_V) - 1
        if last == 0:
            return hashed(ids_T, self.config.salt + 1) < int(self.config.rare * 2**32)
        return self.rare_V[ids_T.clamp(max=last)]

    def learn_frequencies(self, counts_V: Tensor) -> None:
        """Keep which ids are rare."""
        rare_V = rare_ids(counts_V, self.config.rare)
        self.rare_V = torch.cat([rare_V, rare_V.new_ones(1)]).to(self.rare_V.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the size of the vocabulary over from what is loaded."""
        saved = state_dict.get(f"{prefix}rare_V")
        if saved is not None:
            self.rare_V = torch.ones_like(saved, device=self.rare_V.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def rare_ids(counts_V: Tensor, share: float) -> Tensor:
    """Find the rarest ids that make up at most a share of all tokens, bool, (V,); equal counts go together.

    Args:
        counts_V: occurrences of each token id, int64.
    """
    ordered_V = counts_V.sort().values
    # Tokens of all ids that are at most as frequent as this one.
    last_V = torch.searchsorted(ordered_V, counts_V, right=True) - 1
    tokens_V = ordered_V.cumsum(0)[last_V]
    return tokens_V.double() <= share * int(counts_V.sum())
