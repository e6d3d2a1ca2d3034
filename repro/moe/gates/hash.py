"""A fixed hash of the token id, without a router: a control that cannot learn where to send a token."""

import torch
from torch import Tensor

from repro.config import bounded, settings
from repro.moe.gates import base
from repro.moe.gates.shared.hashing import hashed
from repro.moe.gates.shared.softmax import one_hot
from repro.moe.routing import Routing


@settings
class Config:
    """Options of hash routing."""

    salt: int = bounded(0, low=0, high=2**31 - 1)
    """Another salt is another hash; the same one for all layers."""
    weight: float = bounded(1.0, above=0)
    """Weight of the one expert. The raw weights of a token start at a sum of 0.25 under top-1 of 16 experts,
    of 0.39 under top-2, on average."""


class Gate(base.Gate[Config]):
    """S(x) = {hash(token id) mod E} with one weight for all, no loss and no parameters.

    A random but fixed map from the vocabulary to the experts. The probabilities it reports are uniform.

    Source: "Hash Layers For Large Sparse Models" (Roller et al., 2021, https://arxiv.org/abs/2106.04426),
    the hash layer h_t = FFN_hash(x_t) of the input token x_t, with a random hash (second-hand, without a
    number).

    Defaults: the weight 1 is the paper's, which has no gate value; the salt is ours.

    Differences: the map is computed, not drawn into a table, so it needs no vocabulary and is the same on
    every machine. Balanced hashes, hashes of several tokens and several hashes per token are not here.

    Raises:
        ValueError: called without token ids.
    """

    adaptive = False
    needs_token_ids = True

    def __init__(self, config: Config, d_model: int, num_experts: int) -> None:
        super().__init__(config, d_model, num_experts)
        self.num_experts = num_experts
        self.macs_per_token = 0

    def forward(
        self, x_TD: Tensor, mask_T: Tensor, *, force_top1: bool = False, ids_T: Tensor | None = None
    ) -> Routing:
        """Route the tokens where `mask_T` is True by their ids; `force_top1` changes nothing."""
        if ids_T is None:
            raise ValueError("the gate 'hash' needs token ids: call the model with input_ids")
        dtype = torch.promote_types(x_TD.dtype, torch.float32)
        probs_TE = x_TD.new_full((len(ids_T), self.num_experts), 1 / self.num_experts, dtype=dtype)
        selected_TE = one_hot(hashed(ids_T, self.config.salt) % self.num_experts, probs_TE)
        weights_TE = torch.full_like(probs_TE, self.config.weight)
        return Routing.from_selection(selected_TE, weights_TE, probs_TE, mask_T, probs_TE.new_zeros(()))
