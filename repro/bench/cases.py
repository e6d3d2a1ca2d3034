"""What layers are compared on: their sizes, forced routings, weights."""

from dataclasses import dataclass

import torch
from torch import nn

from repro.errors import notice
from repro.machine import available_memory
from repro.moe.ffn import FFN
from repro.moe.routing import Routing


@dataclass(frozen=True, kw_only=True)
class Size:
    """The layer of a model."""

    d_model: int
    d_hidden: int
    experts: int = 16
    k: int = 2
    """Experts of a token; tokens that are forced to fewer have half as many."""
    is_gated: bool = False

    @property
    def parameters(self) -> int:
        """Numbers in the matrices of one expert."""
        return (3 if self.is_gated else 2) * self.d_model * self.d_hidden


SIZES = {
    "bert": Size(d_model=768, d_hidden=3072),
    "gpt2": Size(d_model=1024, d_hidden=4096),
    "fsmt": Size(d_model=1024, d_hidden=8192),
    "mixtral": Size(d_model=4096, d_hidden=14336, experts=8, is_gated=True),
    "olmoe": Size(d_model=2048, d_hidden=1024, experts=64, k=8, is_gated=True),
}
"""Layers of the paper's models (Table 2), and those of Mixtral-8x7B and OLMoE-1B-7B."""
SHARES = (1.0, 0.8, 0.5, 0.2, 0.0)
"""Shares of tokens sent to one expert, the others to two: the rows of Table 1, and top-2. Of layers of top-8,
to four and to eight."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting in which all implementations are compared."""

    size: str
    """A name in `SIZES`."""
    tokens: int
    experts: int
    precision: str
    """A name in `PRECISIONS`."""

    @property
    def k(self) -> int:
        """Experts of a token that is not given half of them."""
        return SIZES[self.size].k


def forced_routing(
    tokens: int,
    experts: int,
    share_top1: float,
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
    k: int = 2,
) -> Routing:
    """Build a routing in which exactly this share of the tokens has k / 2 experts and the others have k.

    Experts and tokens are drawn uniformly; the weights of a token are equal and add up to 1. The tokens with
    fewer experts keep their first choices when the share changes.
    """
    generator = torch.Generator().manual_seed(seed)
    order_TE = torch.rand(tokens, experts, generator=generator).argsort(1)
    rank_T = torch.rand(tokens, generator=generator).argsort().argsort()
    all_T = rank_T >= round(share_top1 * tokens)
    selected_TE = torch.zeros(tokens, experts, dtype=torch.bool)
    chosen_TK = all_T[:, None].repeat(1, k)
    chosen_TK[:, : k // 2] = True
    selected_TE.scatter_(1, order_TE[:, :k], chosen_TK)
    weights_TE = selected_TE / selected_TE.sum(1, keepdim=True)
    mask_T = torch.ones(tokens, dtype=torch.bool)
    return Routing.from_selection(
        selected_TE.to(device),
        weights_TE.to(device, dtype),
        weights_TE.to(device),
        mask_T.to(device),
        torch.zeros((), device=device),
    )


def layer_weights(case: Case, device: torch.device) -> FFN:
    """Draw the weights of a layer, the same every time; gated ones have no biases."""
    size = SIZES[case.size]
    generator = torch.Generator().manual_seed(1)

    def parameter(*shape: int, std: float) -> nn.Parameter:
        values = torch.randn(shape, generator=generator).mul_(std)
        return nn.Parameter(values.to(device, PRECISIONS[case.precision]))

    def bias(width: int) -> nn.Parameter | None:
        return None if size.is_gated else parameter(case.experts, width, std=0.02)

    rows = (2 if size.is_gated else 1) * size.d_hidden
    return FFN(
        parameter(case.experts, rows, size.d_model, std=size.d_model**-0.5),
        bias(rows),
        parameter(case.experts, size.d_model, size.d_hidden, std=size.d_hidden**-0.5),
        bias(size.d_model),
        "silu" if size.is_gated else "gelu",
    )


def fitting_experts(size: str) -> int:
    """Return the experts of a model's layer, or half as many, again and again, where memory is too small.

    There are its weights in fp32, their gradients, and a copy of both for the implementation that is timed.
    """
    layer = SIZES[size]
    experts, memory = layer.experts, available_memory()
    while memory is not None and experts > layer.k and 16 * experts * layer.parameters > memory:
        experts //= 2
    if experts < layer.experts:
        notice(f"--sizes: {size}: {experts} of {layer.experts} experts, as many as fit into memory")
    return experts
