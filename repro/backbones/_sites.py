"""Where a model keeps a feed-forward network."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class FFNSite:
    """One feed-forward network of a model: its weights, and how to put another module in its place."""

    stack: str
    """`encoder` or `decoder`: which mask its tokens have."""
    w1_FD: Tensor
    b1_F: Tensor
    w2_DF: Tensor
    b2_D: Tensor
    activation: str
    """As the Hugging Face configuration names it."""
    replace: Callable[[nn.Module], None]
