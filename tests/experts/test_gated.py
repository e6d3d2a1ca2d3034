"""Gated experts: worked on paper, all back-ends equal to `loop`, and to the experts of transformers."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from expert_cases import (
    Result,
    edge_selection,
    every_activation,
    every_backend,
    random_selection,
    routing_of,
)
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from repro.moe.experts import base, grouped
from repro.moe.experts.shared.rows import token_bags
from repro.moe.ffn import FFN, activate, hidden_backward, hidden_into
from repro.moe.routing import Routing

EXPERTS, D_MODEL, D_HIDDEN = 5, 6, 7


def gated(seed: int = 0, *, biased: bool = False, dtype: torch.dtype = torch.float64, wide: int = 1) -> FFN:
    """Random gated experts."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    d_model, d_hidden = wide * D_MODEL, wide * D_HIDDEN
    w1, w2 = draw(EXPERTS, 2 * d_hidden, d_model), draw(EXPERTS, d_model, d_hidden)
    biases = (draw(EXPERTS, 2 * d_hidden), draw(EXPERTS, d_model)) if biased else (None, None)
    return FFN(w1, biases[0], w2, biases[1], "silu")


def tokens(count: int, seed: int = 1, dtype: torch.dtype = torch.float64, wide: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, wide * D_MODEL, generator=generator, dtype=torch.float64).to(dtype)


def outcome(backend: Any, x_TD: Tensor, routing: Routing, ffn: FFN) -> Result:
    """Output, and gradients of x, the weights of the routing, and all weights that the experts have."""
    forward = getattr(backend, "forward", backend)
    x_TD = x_TD.clone().requires_grad_()
    weight_A = routing.weight_A.detach().clone().requires_grad_()
    y_TD = forward(x_TD, dataclasses.replace(routing, weight_A=weight_A), ffn)
    grad_y_TD = torch.cos(torch.arange(y_TD.numel()).view(y_TD.shape)).to(y_TD.dtype)
    return y_TD.detach(), list(torch.autograd.grad(y_TD, (x_TD, weight_A, *ffn.tensors), grad_y_TD))


def assert_equal(result: Result, expected: Result, tolerance: float) -> None:
    torch.testing.assert_close(result[0], expected[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(result[1], expected[1], rtol=tolerance, atol=tolerance)


# --- worked on paper ------------------------------------------------------------------------------

# D = 2, F = 1, relu, x0 = (1, 2), x1 = (3, -1); one expert per token, weights 0.5 and 2.
# Expert 0: W_gate = (1, 1), W_up = (2, -1), W_down = (1, 3)^T.
#   x0: gate 3, up 0, hidden 3 * 0 = 0, out (0, 0)
# Expert 1: W_gate = (1, -1), W_up = (0, 4), W_down = (1, -1)^T.
#   x1: gate 4, up -4, hidden -16, out (-16, 16)
PAPER = FFN(
    torch.tensor([[[1.0, 1.0], [2.0, -1.0]], [[1.0, -1.0], [0.0, 4.0]]], requires_grad=True),
    None,
    torch.tensor([[[1.0], [3.0]], [[1.0], [-1.0]]], requires_grad=True),
    None,
    "relu",
)


@every_backend
def test_values_and_gradients_by_hand(backend: str) -> None:
    selected_TE = torch.tensor([[True, False], [False, True]])
    weights_TE = torch.tensor([[0.5, 0.0], [0.0, 2.0]])
    mask_T = torch.tensor([True, True])
    routing = Routing.from_selection(selected_TE, weights_TE, weights_TE, mask_T, torch.zeros(()))
    x_TD = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    y_TD = base.load(backend).forward(x_TD, routing, PAPER)
    assert y_TD.tolist() == [[0.0, 0.0], [-32.0, 32.0]]
    grad_x, grad_w1, grad_w2 = torch.autograd.grad(y_TD.sum(), (x_TD, PAPER.w1, PAPER.w2))
    # Gradient at hidden = weight * the sum of W_down: 0.5 * 4 = 2, and 2 * 0 = 0.
    # Expert 0, x0: at gate 2 * up = 0, at up 2 * gate = 6; expert 1: 0.
    assert grad_w1.tolist() == [[[0.0, 0.0], [6.0, 12.0]], [[0.0, 0.0], [0.0, 0.0]]]
    # x0: 6 (2, -1).
    assert grad_x.tolist() == [[12.0, -6.0], [0.0, 0.0]]
    # weight * hidden, in both rows: 0.5 * 0, and 2 * -16.
    assert grad_w2.tolist() == [[[0.0], [0.0]], [[-32.0], [-32.0]]]


def test_what_tells_a_gated_network() -> None:
    ffn = gated()
    assert (ffn.is_gated, ffn.d_model, ffn.d_hidden, len(ffn.tensors)) == (True, D_MODEL, D_HIDDEN, 2)
    plain = FFN(torch.zeros(7, 6), torch.zeros(7), torch.zeros(6, 7), None, "relu")
    assert (plain.is_gated, plain.d_model, plain.d_hidden, len(plain.tensors)) == (False, 6, 7, 3)


# --- equal to the reference -----------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_equal_loop_in_fp64(backend: str, biased: bool) -> None:
    ffn, x_TD = gated(biased=biased), tokens(23)
    routing = routing_of(random_selection(23, 2))
    assert len(ffn.tensors) == (4 if biased else 2)
    result = outcome(base.load(backend), x_TD, routing, ffn)
    assert_equal(result, outcome(base.load("loop"), x_TD, routing, ffn), 1e-10)
    assert result[0][routing.count_T == 0].abs().sum() == 0


@every_activation
def test_loop_equals_the_definition(activation: str) -> None:
    """y_t = sum_e w_te W_down_e (act(W_gate_e x_t) * (W_up_e x_t)), all experts for all tokens."""
    ffn, x_TD = dataclasses.replace(gated(3), activation=activation), tokens(20)
    routing = routing_of(random_selection(20, 4))

    def definition(x_TD: Tensor, routing: Routing, ffn: FFN) -> Tensor:
        weight_TE = torch.zeros(20, EXPERTS, dtype=x_TD.dtype)
        weight_TE = weight_TE.index_put((routing.token_A, routing.expert_A), routing.weight_A)
        gate_TEF = torch.einsum("td,efd->tef", x_TD, ffn.w1[:, :D_HIDDEN])
        up_TEF = torch.einsum("td,efd->tef", x_TD, ffn.w1[:, D_HIDDEN:])
        return torch.einsum("te,tef,edf->td", weight_TE, activate(gate_TEF, activation) * up_TEF, ffn.w2)

    expected = outcome(definition, x_TD, routing, ffn)
    assert_equal(outcome(base.load("loop"), x_TD, routing, ffn), expected, 1e-10)


@every_backend
def test_experts_of_transformers_on_the_same_stacks(backend: str) -> None:
    ffn, x_TD = gated(5, dtype=torch.float32), tokens(12, dtype=torch.float32)
    config = SimpleNamespace(
        num_local_experts=EXPERTS,
        hidden_size=D_MODEL,
        intermediate_size=D_HIDDEN,
        hidden_act="silu",
        _experts_implementation="eager",
    )
    experts = MixtralExperts(config)
    experts.gate_up_proj, experts.down_proj = (torch.nn.Parameter(part.detach()) for part in ffn.tensors)
    order_TE = torch.rand(12, EXPERTS, generator=torch.Generator().manual_seed(6)).argsort(1)
    selected_TE = torch.zeros(12, EXPERTS, dtype=torch.bool).scatter(1, order_TE[:, :2], True)
    routing = routing_of(selected_TE, torch.float32)
    by_token_A = routing.token_A.argsort(stable=True)
    y_TD = base.load(backend).forward(x_TD, routing, ffn)
    expected = experts(
        x_TD, routing.expert_A[by_token_A].view(12, 2), routing.weight_A[by_token_A].view(12, 2)
    )
    torch.testing.assert_close(y_TD, expected, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad(y_TD.square().sum(), ffn.tensors)
    theirs = torch.autograd.grad(expected.square().sum(), (experts.gate_up_proj, experts.down_proj))
    torch.testing.assert_close(grads, theirs, rtol=1e-4, atol=1e-3)


@every_backend
def test_gradients_equal_finite_differences(backend: str) -> None:
    routing, x_TD = routing_of(random_selection(5, 5)), tokens(5).requires_grad_()
    ffn = gated(7)
    forward = base.load(backend).forward

    def function(x_TD: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        return forward(x_TD, routing, dataclasses.replace(ffn, w1=w1, w2=w2))

    assert torch.autograd.gradcheck(function, (x_TD, ffn.w1, ffn.w2))


@pytest.mark.parametrize("gated_too", [False, True])
@every_activation
def test_the_gradient_at_the_first_matrix_equals_autograd(activation: str, gated_too: bool) -> None:
    rows = 2 if gated_too else 1
    generator = torch.Generator().manual_seed(8)
    pre = torch.randn(9, rows * 7, generator=generator, dtype=torch.float64).requires_grad_()
    ffn = FFN(torch.zeros(rows * 7, 3), None, torch.zeros(3, 7), None, activation)
    value, grad = ffn.hidden(pre), torch.randn(9, 7, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(value, pre, grad)
    written = torch.empty(9, 7, dtype=torch.float64)
    hidden_into(written, pre.detach(), activation)
    assert torch.equal(written, value)
    torch.testing.assert_close(hidden_backward(grad, pre.detach(), activation), expected)


# --- edges and precision --------------------------------------------------------------------------


@every_backend
def test_idle_experts_get_zero_gradients(backend: str) -> None:
    selected_TE = random_selection(20, 9)
    selected_TE[:, [0, 3]] = False
    _, (_, _, *grads) = outcome(base.load(backend), tokens(20), routing_of(selected_TE), gated())
    for grad in grads:
        assert grad[[0, 3]].abs().sum() == 0
        assert all(grad[expert].abs().sum() > 0 for expert in (1, 2, 4))


@every_backend
@pytest.mark.parametrize("edge", ["no-tokens", "no-assignments", "one-token"])
def test_edges_equal_loop(backend: str, edge: str) -> None:
    selected_TE = edge_selection(edge)
    x_TD, routing = tokens(len(selected_TE)), routing_of(selected_TE)
    result = outcome(base.load(backend), x_TD, routing, gated())
    assert_equal(result, outcome(base.load("loop"), x_TD, routing, gated()), 1e-10)


@every_backend
def test_bf16_autocast_is_close_to_fp32(backend: str) -> None:
    ffn, x_TD = gated(10, dtype=torch.float32, wide=4), tokens(64, dtype=torch.float32, wide=4)
    routing = routing_of(random_selection(64, 11), torch.float32)

    def forward(x_TD: Tensor, routing: Routing, ffn: FFN) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return base.load(backend).forward(x_TD, routing, ffn)

    result, expected = outcome(forward, x_TD, routing, ffn), outcome(base.load("loop"), x_TD, routing, ffn)
    for one, other in zip([result[0], *result[1]], [expected[0], *expected[1]], strict=True):
        assert one.dtype == torch.float32
        # One more product than a plain network has, so a little more than its 1.5 %.
        assert 1e-4 < float((one - other).norm() / other.norm()) < 0.025


def test_the_grouped_product_of_gpus_equals_loop() -> None:
    ffn, x_TD = gated(12, dtype=torch.float32, wide=4), tokens(64, dtype=torch.float32, wide=4)
    selected_TE = random_selection(64, 13)
    selected_TE[:, 2] = False
    routing = routing_of(selected_TE, torch.float32)

    def product(x_TD: Tensor, routing: Routing, ffn: FFN) -> Tensor:
        return grouped.grouped_product(x_TD, routing, ffn, *token_bags(routing))

    result, expected = outcome(product, x_TD, routing, ffn), outcome(base.load("loop"), x_TD, routing, ffn)
    for one, other in zip([result[0], *result[1]], [expected[0], *expected[1]], strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5
    assert all(grad[2].abs().sum() == 0 for grad in result[1][2:])
