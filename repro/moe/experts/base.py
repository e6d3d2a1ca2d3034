"""Contract of the expert back-ends: ways to compute y_t = sum over the experts e of token t of w_te E_e(x_t).

A file `experts/<name>.py` is a back-end; the module satisfies `ExpertBackend`.
"""

from typing import Protocol, cast

import torch
from torch import Tensor

from repro import plugins
from repro.moe.ffn import FFN
from repro.moe.routing import Routing


class ExpertBackend(Protocol):
    """A file `experts/<name>.py`.

    All back-ends equal `loop` in values and gradients. An expert without tokens gets zero gradients.
    """

    def available(self, device: torch.device) -> str | None:
        """Return the reason why it cannot run on a device, or None."""

    def forward(self, x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
        """Compute the weighted sum of every token's experts, (T, D); 0 for tokens without an expert.

        Differentiable in `x_TD`, `routing.weight_A` and every tensor of `weights`.

        Args:
            x_TD: input of the layer.
            routing: of its tokens.
            weights: of the experts, stacked.
        """

    def rows_computed(self, load_E: Tensor, dtype: torch.dtype) -> Tensor:
        """Count the expert rows multiplied for these loads, padding slots included; int64, a scalar.

        Args:
            load_E: assignments of each expert, on the device of the products.
            dtype: type of the products.
        """


def load(name: str) -> ExpertBackend:
    """Import a back-end.

    Raises:
        UserError: no back-end has that name.
    """
    return cast(ExpertBackend, plugins.load("experts", name))
