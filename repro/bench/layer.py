"""Time the MoE layer alone: every back-end, the experts of `transformers`, and one dense FFN, side by side.

All implementations get the same tokens, weights and routing, in one process, one after the other
within every repeat, so that ratios do not depend on what else the machine does. The router is not
part of what is timed: it is the same for all.
"""

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import linear

from repro import plugins
from repro.bench.cases import PRECISIONS, SHARES, SIZES, Case, forced_routing, layer_weights
from repro.machine import Stopwatch, current_environment
from repro.moe.experts.base import ExpertBackend
from repro.moe.experts.base import load as load_backend
from repro.moe.ffn import FFN
from repro.moe.routing import Routing
from repro.results.bench import BenchCase, LayerTiming

_TRANSFORMERS = ("eager", "grouped_mm", "batched_mm")
_COPIED_WEIGHTS = 2**31
"""`batched_mm` copies the weights of its expert for every row; beyond this many bytes it is left out."""
_EAGER_WEIGHTS = 2**26
"""The backward pass of `eager` allocates a gradient of all experts for each. With matrices of so many numbers
the process grew to 24 GB, and it is left out on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One implementation of the layer."""

    forward: Callable[[Tensor, Routing], Tensor]
    parameters: tuple[Tensor, ...]


def names() -> list[str]:
    """List all implementations: back-ends, `transformers-*`, and `dense`."""
    return [*plugins.names("experts"), *(f"transformers-{name}" for name in _TRANSFORMERS), "dense"]


def implementations(case: Case, device: torch.device, only: Collection[str] = ()) -> dict[str, Layer]:
    """Build all layers by name, on the same weights; those that cannot run here are left out.

    `dense` is one FFN over as many rows as there are assignments: the floor of any routed layer.

    Args:
        only: these; all by default.
    """
    weights = layer_weights(case, device)
    layers: dict[str, Layer] = {}
    for name in plugins.names("experts"):
        backend = load_backend(name)
        if backend.available(device) is None:
            layers[name] = _of_backend(backend, weights)
    for name in _TRANSFORMERS:
        if _fits(name, case, weights):
            layers[f"transformers-{name}"] = _of_transformers(name, case, weights)
    layers["dense"] = _dense(weights)
    return {name: layer for name, layer in layers.items() if name in only or not only}


def _fits(name: str, case: Case, weights: FFN) -> bool:
    """Tell whether the memory that an implementation of `transformers` takes is sane."""
    matrices = weights.w1
    if name == "batched_mm":  # copies, with k experts for every token
        copied = case.k * case.tokens * matrices[0].numel() * matrices.element_size()
        return copied <= _COPIED_WEIGHTS
    return name != "eager" or matrices.is_cuda or matrices.numel() < _EAGER_WEIGHTS


def _of_backend(backend: ExpertBackend, weights: FFN) -> Layer:
    def forward(x_TD: Tensor, routing: Routing) -> Tensor:
        y_TD: Tensor = backend.forward(x_TD, routing, weights)
        return y_TD

    return Layer(forward=forward, parameters=weights.tensors)


def _of_transformers(name: str, case: Case, weights: FFN) -> Layer:
    """Wrap the experts of a `transformers` model; they have no biases.

    They take the same number of experts for every token. Where that differs, every assignment is
    given to them as a token of its own, and the outputs are summed afterwards.
    """
    with torch.device("meta"):
        experts = _transformers_experts(name, case)
    matrices = ("gate_up_proj" if weights.is_gated else "up_proj", "down_proj")
    for matrix, own in zip(matrices, (weights.w1, weights.w2), strict=True):
        setattr(experts, matrix, own)

    def forward(x_TD: Tensor, routing: Routing) -> Tensor:
        most = int(routing.count_T.max())
        if int(routing.count_T.min()) == most:
            order_A = routing.token_A.argsort(stable=True)
            expert_TK = routing.expert_A[order_A].view(-1, most)
            weight_TK = routing.weight_A[order_A].view(-1, most)
            y_TD: Tensor = experts(x_TD, expert_TK, weight_TK)
            return y_TD
        x_AD = x_TD.index_select(0, routing.token_A)
        y_AD = experts(x_AD, routing.expert_A[:, None], routing.weight_A[:, None])
        return torch.zeros_like(x_TD).index_add(0, routing.token_A, y_AD)

    return Layer(forward=forward, parameters=(weights.w1, weights.w2))


def _transformers_experts(name: str, case: Case) -> Any:
    """Build such experts of a model: OLMoE's own, Mixtral's for others with gates, Nemotron's without."""
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts
    from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts
    from transformers.models.olmoe.modeling_olmoe import OlmoeExperts

    size = SIZES[case.size]
    common = {"hidden_size": size.d_model, "_experts_implementation": name}
    if not size.is_gated:
        config = SimpleNamespace(
            n_routed_experts=case.experts,
            moe_intermediate_size=size.d_hidden,
            moe_latent_size=None,
            mlp_hidden_act="gelu",
            **common,
        )
        return NemotronHExperts(config)
    config = SimpleNamespace(
        num_local_experts=case.experts, intermediate_size=size.d_hidden, hidden_act="silu", **common
    )
    return {"olmoe": OlmoeExperts}.get(case.size, MixtralExperts)(config)


def _dense(weights: FFN) -> Layer:
    one = weights.map(lambda stack: Parameter(stack[0].detach().clone()))

    def forward(x_TD: Tensor, routing: Routing) -> Tensor:
        x_AD = x_TD.index_select(0, routing.token_A)
        return linear(one.hidden(linear(x_AD, one.w1, one.b1)), one.w2, one.b2)

    return Layer(forward=forward, parameters=one.tensors)


def measure(
    case: Case,
    device: torch.device,
    *,
    repeats: int,
    only: Collection[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> list[LayerTiming]:
    """Time forward, and forward with backward, at every share of `SHARES`.

    Args:
        repeats: rounds over all implementations and shares, after one round to warm up.
        progress: called after every round.

    Returns:
        One timing per implementation and share.
    """
    dtype = PRECISIONS[case.precision]
    layers = implementations(case, device, only)
    routings = {
        share: forced_routing(case.tokens, case.experts, share, dtype, device, k=case.k) for share in SHARES
    }
    generator = torch.Generator().manual_seed(2)
    x_TD = torch.randn(case.tokens, SIZES[case.size].d_model, generator=generator).to(device, dtype)
    timings: dict[tuple[str, float], list[tuple[float, float]]]
    timings = {(name, share): [] for share in SHARES for name in layers}
    for repeat in range(repeats + 1):
        for (name, share), measured in timings.items():
            seconds = _time(layers[name], x_TD, routings[share], device)
            if repeat > 0:
                measured.append(seconds)
        progress()
    return [
        LayerTiming(
            implementation=name,
            share_top1=share,
            rows=routings[share].expert_A.numel(),
            forward_seconds=statistics.median(forward for forward, _ in measured),
            forward_spread=quartile_distance([forward for forward, _ in measured]),
            both_seconds=statistics.median(both for _, both in measured),
            both_spread=quartile_distance([both for _, both in measured]),
        )
        for (name, share), measured in timings.items()
    ]


def measured_case(
    case: Case,
    device: torch.device,
    *,
    repeats: int,
    only: Collection[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> BenchCase:
    """Do the same as `measure`, and add the circumstances."""
    rows = measure(case, device, repeats=repeats, only=only, progress=progress)
    size = SIZES[case.size]
    return BenchCase(
        size=case.size,
        d_model=size.d_model,
        d_hidden=size.d_hidden,
        experts=case.experts,
        tokens=case.tokens,
        precision=case.precision,
        repeats=repeats,
        environment=current_environment(device),
        rows=rows,
    )


def _time(layer: Layer, x_TD: Tensor, routing: Routing, device: torch.device) -> tuple[float, float]:
    """Measure the seconds of a forward pass without gradient, and of one with its backward pass."""
    watch = Stopwatch(device)
    with torch.no_grad(), watch:
        layer.forward(x_TD, routing)
    seconds = watch.seconds
    x_TD = x_TD.detach().requires_grad_()
    routing = replace(routing, weight_A=routing.weight_A.detach().requires_grad_())
    inputs = (x_TD, routing.weight_A, *layer.parameters)
    with watch:
        y_TD = layer.forward(x_TD, routing)
        torch.autograd.grad(y_TD, inputs, y_TD.detach(), allow_unused=True)
    return seconds, watch.seconds


def quartile_distance(seconds: Sequence[float]) -> float | None:
    """Return the distance of the quartiles; None of fewer than two values."""
    if len(seconds) < 2:
        return None
    low, _, high = statistics.quantiles(seconds, n=4)
    return high - low
