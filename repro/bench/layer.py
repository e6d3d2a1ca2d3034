"""Time the MoE layer alone: every back-end, the experts of `transformers`, and one dense FFN, side by side.

All implementations get the same tokens, weights and routing, in one process, one after the other
within every repeat, so that ratios do not depend on what else the machine does. The router is not
part of what is timed: it is the same for all.
"""

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from repro import plugins
from repro.machine import Stopwatch, current_environment
from repro.moe.experts.base import ExpertBackend, FFNWeights
from repro.moe.experts.base import load as load_backend
from repro.moe.experts.shared.ffn import activate
from repro.moe.routing import Routing
from repro.results.bench import BenchCase, LayerTiming

SIZES = {"bert": (768, 3072), "gpt2": (1024, 4096), "fsmt": (1024, 8192)}
"""Width and hidden width of the layers of the paper's models (Table 2)."""
SHARES = (1.0, 0.8, 0.5, 0.2, 0.0)
"""Shares of tokens sent to one expert, the others to two: the rows of Table 1, and top-2."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRANSFORMERS = ("eager", "grouped_mm", "batched_mm")
_ACTIVATION = "gelu"
_COPIED_WEIGHTS = 2**31
"""`batched_mm` copies the weights of its expert for every row; beyond this many bytes it is left out."""
_EAGER_WEIGHTS = 2**26
"""The backward pass of `eager` allocates a gradient of all experts for each. With matrices of so many numbers
the process grew to 24 GB, and it is left out."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One implementation of the layer."""

    forward: Callable[[Tensor, Routing], Tensor]
    parameters: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting in which all implementations are compared."""

    size: str
    """A name in `SIZES`."""
    tokens: int
    experts: int
    precision: str
    """A name in `PRECISIONS`."""


def forced_routing(
    tokens: int, experts: int, share_top1: float, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> Routing:
    """Build a routing in which exactly this share of the tokens has one expert and the others have two.

    Experts and tokens are drawn uniformly; weights are 1, or 0.5 each. The tokens with one expert
    keep their first choice when the share changes.
    """
    generator = torch.Generator().manual_seed(seed)
    order_TE = torch.rand(tokens, experts, generator=generator).argsort(1)
    rank_T = torch.rand(tokens, generator=generator).argsort().argsort()
    two_T = rank_T >= round(share_top1 * tokens)
    selected_TE = torch.zeros(tokens, experts, dtype=torch.bool)
    chosen_T2 = torch.stack([torch.ones_like(two_T), two_T], dim=1)
    selected_TE.scatter_(1, order_TE[:, :2], chosen_T2)
    weights_TE = selected_TE / selected_TE.sum(1, keepdim=True)
    mask_T = torch.ones(tokens, dtype=torch.bool)
    return Routing.from_selection(
        selected_TE.to(device),
        weights_TE.to(device, dtype),
        weights_TE.to(device),
        mask_T.to(device),
        torch.zeros((), device=device),
    )


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


def layer_weights(case: Case, device: torch.device) -> FFNWeights:
    """Draw the weights of a layer, the same every time."""
    d_model, d_hidden = SIZES[case.size]
    generator = torch.Generator().manual_seed(1)

    def parameter(*shape: int, std: float) -> nn.Parameter:
        values = torch.randn(shape, generator=generator) * std
        return nn.Parameter(values.to(device, PRECISIONS[case.precision]))

    return FFNWeights(
        parameter(case.experts, d_hidden, d_model, std=d_model**-0.5),
        parameter(case.experts, d_hidden, std=0.02),
        parameter(case.experts, d_model, d_hidden, std=d_hidden**-0.5),
        parameter(case.experts, d_model, std=0.02),
        _ACTIVATION,
    )


def _fits(name: str, case: Case, weights: FFNWeights) -> bool:
    """Tell whether the memory that an implementation of `transformers` takes is sane."""
    matrices = weights.w1_EFD
    if name == "batched_mm":  # copies, at top-2
        return 2 * case.tokens * matrices[0].numel() * matrices.element_size() <= _COPIED_WEIGHTS
    return name != "eager" or matrices.numel() < _EAGER_WEIGHTS


def _of_backend(backend: ExpertBackend, weights: FFNWeights) -> Layer:
    def forward(x_TD: Tensor, routing: Routing) -> Tensor:
        y_TD: Tensor = backend.forward(x_TD, routing, weights)
        return y_TD

    parameters = (weights.w1_EFD, weights.b1_EF, weights.w2_EDF, weights.b2_ED)
    return Layer(forward=forward, parameters=parameters)


def _of_transformers(name: str, case: Case, weights: FFNWeights) -> Layer:
    """Wrap the experts of a `transformers` model without gated units; they have no biases.

    They take the same number of experts for every token. Where that differs, every assignment is
    given to them as a token of its own, and the outputs are summed afterwards.
    """
    from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts

    d_model, d_hidden = SIZES[case.size]
    config = SimpleNamespace(
        n_routed_experts=case.experts,
        hidden_size=d_model,
        moe_intermediate_size=d_hidden,
        moe_latent_size=None,
        mlp_hidden_act=_ACTIVATION,
        _experts_implementation=name,
    )
    with torch.device("meta"):
        experts = NemotronHExperts(config)
    experts.up_proj, experts.down_proj = weights.w1_EFD, weights.w2_EDF

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

    return Layer(forward=forward, parameters=(weights.w1_EFD, weights.w2_EDF))


def _dense(weights: FFNWeights) -> Layer:
    stacks = (weights.w1_EFD, weights.b1_EF, weights.w2_EDF, weights.b2_ED)
    parameters = tuple(nn.Parameter(stack[0].detach().clone()) for stack in stacks)
    w1_FD, b1_F, w2_DF, b2_D = parameters

    def forward(x_TD: Tensor, routing: Routing) -> Tensor:
        x_AD = x_TD.index_select(0, routing.token_A)
        return linear(activate(linear(x_AD, w1_FD, b1_F), _ACTIVATION), w2_DF, b2_D)

    return Layer(forward=forward, parameters=parameters)


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
    routings = {share: forced_routing(case.tokens, case.experts, share, dtype, device) for share in SHARES}
    generator = torch.Generator().manual_seed(2)
    x_TD = torch.randn(case.tokens, SIZES[case.size][0], generator=generator).to(device, dtype)
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
    d_model, d_hidden = SIZES[case.size]
    return BenchCase(
        size=case.size,
        d_model=d_model,
        d_hidden=d_hidden,
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
