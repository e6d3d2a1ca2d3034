"""The MoE layer: gate, experts and their weighted sum."""

import importlib
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from repro.config import ExpertsConfig
from repro.moe.attention import AttentionPeaks
from repro.moe.backbones.base import FFNSite
from repro.moe.experts.base import ExpertBackend
from repro.moe.experts.shared.rows import compute_dtype
from repro.moe.ffn import FFN, activation_name
from repro.moe.gates.base import Gate
from repro.moe.routing import LayerRouting, Routing, RoutingLayer
from repro.moe.spread import Spread
from repro.moe.stack_inputs import StackInputs

ROUTER, EXPERTS = "repro: router", "repro: experts"
"""Names of the two parts of a layer in a profile."""


class Experts(nn.Module):
    """The experts of one layer, computed by a back-end; `initialize_experts` fills the stacked weights.

    Those of a site that is an MoE block already are taken as they are: the same memory under the names of
    `FFN`. Spread over processes, each holds some of them, in the order of their ranks (`spread_experts`).
    """

    w1: nn.Parameter
    b1: nn.Parameter | None
    w2: nn.Parameter
    b2: nn.Parameter | None

    def __init__(self, site: FFNSite, config: ExpertsConfig, backend: ExpertBackend) -> None:
        super().__init__()
        named = "relu" if config.activation == "relu" else site.ffn.activation
        self.activation = activation_name(named)
        self.backend = backend
        self.spread: Spread | None = None
        for name in ("w1", "b1", "w2", "b2"):
            own: Tensor | None = getattr(site.ffn, name)
            if own is not None and site.router_ED is None:
                own = own.detach().new_empty(config.count, *own.shape)
            self.register_parameter(name, None if own is None else nn.Parameter(own.detach()))

    def __getstate__(self) -> dict[str, Any]:
        # The back-end is a module of Python, which can neither be copied nor pickled: its name can.
        return self.__dict__ | {"backend": cast(ModuleType, self.backend).__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(  # type: ignore[no-untyped-call]
            state | {"backend": importlib.import_module(state["backend"])}
        )

    def weights(self) -> FFN:
        """Return the stacked weights, as back-ends take them."""
        return FFN(self.w1, self.b1, self.w2, self.b2, self.activation)

    def forward(self, x_TD: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
        """Compute the weighted sum of every token's experts.

        Returns:
            The sum, (T, D); rows that were multiplied in this process, padding slots included, a scalar.
        """
        if self.spread is None:
            y_TD, load_E = self._compute(x_TD, routing), routing.load_E
        else:
            y_TD, load_E = self.spread.forward(x_TD, routing, self._compute)
        return y_TD, self.backend.rows_computed(load_E, compute_dtype(x_TD))

    def _compute(self, x_TD: Tensor, routing: Routing) -> Tensor:
        return self.backend.forward(x_TD, routing, self.weights())


class MoELayer(RoutingLayer):
    """Gate, experts and their weighted sum, in the place of one FFN (paper eq. 1-3).

    Input and output have the same shape, two leading axes and D. Padding gives zeros.
    """

    def __init__(
        self,
        layer: int,
        gate: Gate[Any],
        experts: Experts,
        inputs: StackInputs,
        time_major: bool,
        attention: AttentionPeaks | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.gate = gate
        self.experts = experts
        self._inputs = inputs
        self._time_major = time_major
        self._attention = attention

    def forward(self, hidden: Tensor) -> Tensor:
        """Route, compute and combine; the routing goes to the tape, if one is recording."""
        shape = (hidden.shape[0], hidden.shape[1])
        x_TD = hidden.reshape(-1, hidden.shape[-1])
        with record_function(ROUTER):
            mask_T = self._inputs.mask_T(shape, hidden.device)
            if self.is_idle:
                mask_T = torch.zeros_like(mask_T)
            ids_T = self._inputs.ids_T(shape) if self.gate.needs_token_ids else None
            more = {}
            if self._attention is not None:
                more["attention_T"] = self._attention.take_T(shape, self._time_major)
            routing: Routing = self.gate(x_TD, mask_T, force_top1=self.force_top1, ids_T=ids_T, **more)
        with record_function(EXPERTS):
            y_TD: Tensor
            y_TD, rows_computed = self.experts(x_TD, routing)
            if routing.extra_TD is not None:
                y_TD = y_TD + routing.extra_TD
        if self.tape is not None:
            entry = LayerRouting(
                self.layer, routing, shape, self._time_major, rows_computed, self.gate.update_state
            )
            self.tape.entries.append(entry)
        output: Tensor = y_TD.view(hidden.shape)
        return output


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """List the MoE layers of a model, or of a part of it, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, MoELayer)]
