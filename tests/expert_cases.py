"""Layers of random experts and routings for the tests of expert back-ends."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from repro import plugins
from repro.moe.experts import base
from repro.moe.ffn import FFN
from repro.moe.routing import Routing

BACKENDS = plugins.names("experts")
NUM_EXPERTS, D_MODEL, D_HIDDEN = 5, 6, 7

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_activation = pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])

NAMES = ["x", "weight_A", "w1", "b1", "w2", "b2"]
Forward: TypeAlias = Callable[[Tensor, Routing, FFN], Tensor]
Result: TypeAlias = tuple[Tensor, list[Tensor]]
"""Output, and gradients in the order of `NAMES`."""


def routing_of(selected_TE: Tensor, dtype: torch.dtype = torch.float64, seed: int = 0) -> Routing:
    """A routing with random weights for a choice of experts; nothing but assignments matters here."""
    tokens, num_experts = selected_TE.shape
    generator = torch.Generator().manual_seed(seed)
    weights_TE = torch.rand(tokens, num_experts, generator=generator, dtype=torch.float64).to(dtype)
    mask_T = torch.ones(tokens, dtype=torch.bool)
    return Routing.from_selection(selected_TE, weights_TE, weights_TE, mask_T, torch.zeros(()))


def random_selection(tokens: int, seed: int, num_experts: int = NUM_EXPERTS) -> Tensor:
    """0, 1, 2 or 3 experts for each token, drawn without replacement."""
    generator = torch.Generator().manual_seed(seed)
    rank_TE = torch.rand(tokens, num_experts, generator=generator).argsort(1).argsort(1)
    return rank_TE < torch.randint(0, 4, (tokens, 1), generator=generator)


def tensors_of(
    tokens: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, int, int] = (NUM_EXPERTS, D_MODEL, D_HIDDEN),
) -> list[Tensor]:
    """The values x, w1, b1, w2, b2."""
    experts, d_model, d_hidden = shape
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (tokens, d_model),
        (experts, d_hidden, d_model),
        (experts, d_hidden),
        (experts, d_model, d_hidden),
        (experts, d_model),
    ]
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in shapes]


def forward_and_gradients(
    function: Forward,
    tensors: Sequence[Tensor],
    routing: Routing,
    activation: str,
    grad_y_TD: Tensor | None = None,
) -> Result:
    """Output, and the gradients of sum(output * grad_y) in the order of `NAMES`."""
    x, w1, b1, w2, b2 = (tensor.clone().requires_grad_() for tensor in tensors)
    weight_A = routing.weight_A.detach().clone().requires_grad_()
    routing = dataclasses.replace(routing, weight_A=weight_A)
    y_TD = function(x, routing, FFN(w1, b1, w2, b2, activation))
    if grad_y_TD is None:
        grad_y_TD = torch.cos(torch.arange(y_TD.numel()).view(y_TD.shape)).to(y_TD.dtype)
    inputs = (x, weight_A, w1, b1, w2, b2)
    return y_TD.detach(), list(torch.autograd.grad(y_TD, inputs, grad_y_TD))


def run(
    backend: str,
    tensors: Sequence[Tensor],
    routing: Routing,
    activation: str = "gelu",
    grad_y_TD: Tensor | None = None,
) -> Result:
    return forward_and_gradients(base.load(backend).forward, tensors, routing, activation, grad_y_TD)


def assert_same(result: Result, reference: Result, rtol: float, atol: float) -> None:
    torch.testing.assert_close(result[0], reference[0], rtol=rtol, atol=atol)
    for name, grad, expected in zip(NAMES, result[1], reference[1], strict=True):
        torch.testing.assert_close(grad, expected, rtol=rtol, atol=atol, msg=partial("{}: {}".format, name))


def edge_selection(name: str) -> Tensor:
    selected_TE = torch.zeros({"no-tokens": 0, "one-token": 1}.get(name, 9), NUM_EXPERTS, dtype=torch.bool)
    if name == "one-token":
        selected_TE[0, 3] = True
    if name == "one-expert":
        selected_TE[:, 2] = True
    if name == "all-experts":
        selected_TE[:] = True
    if name == "first-and-last":
        selected_TE[0, 0] = selected_TE[8, NUM_EXPERTS - 1] = True
    return selected_TE


EDGES = ["no-tokens", "no-assignments", "one-token", "one-expert", "all-experts", "first-and-last"]


def far_from_kink(tensors: Sequence[Tensor], activation: str) -> list[Tensor]:
    """For relu, biases that decide the sign: rounding must not switch a unit on or off."""
    x_TD, w1_EFD, b1_EF, w2_EDF, b2_ED = tensors
    return [x_TD, w1_EFD, 16 * b1_EF.sign() if activation == "relu" else b1_EF, w2_EDF, b2_ED]


def assert_bf16_close(result: Result, reference: Result) -> None:
    """bf16 keeps 8 bits: one rounding is off by at most 2^-9 = 0.2 %, and a handful of them add up."""
    for name, tensor, expected in zip(
        ["y", *NAMES], [result[0], *result[1]], [reference[0], *reference[1]], strict=True
    ):
        assert tensor.dtype == torch.float32, name
        error = float((tensor - expected).norm() / expected.norm())
        assert error < 0.015, (name, error)
    # An output without rounding errors was not computed in bf16 at all.
    assert float((result[0] - reference[0]).norm() / reference[0].norm()) > 1e-4
