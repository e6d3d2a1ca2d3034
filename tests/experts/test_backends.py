"""Every expert back-end computes the same sum: values, gradients, edge cases, precision."""

import dataclasses
import inspect

import pytest
import torch
from expert_cases import (
    BACKENDS,
    NAMES,
    NUM_EXPERTS,
    assert_bf16_close,
    assert_same,
    every_activation,
    every_backend,
    far_from_kink,
    forward_and_gradients,
    random_selection,
    routing_of,
    run,
    tensors_of,
)
from torch import Tensor

from repro.moe.experts import base, grouped, loop, padded
from repro.moe.ffn import FFN, activate, activate_backward_into, activate_into
from repro.moe.routing import Routing

MODULES: list[base.ExpertBackend] = [grouped, loop, padded]
"""All back-ends, so that mypy holds each against the contract."""


def test_every_back_end_is_held_against_the_contract() -> None:
    assert [base.load(name) for name in BACKENDS] == MODULES
    for module in MODULES:
        for name in ("available", "forward", "rows_computed"):
            own, contract = (
                inspect.signature(getattr(owner, name)) for owner in (module, base.ExpertBackend)
            )
            assert list(own.parameters) == list(contract.parameters)[1:]  # without `self`


@every_backend
def test_back_ends_run_on_the_cpu(backend: str) -> None:
    assert base.load(backend).available(torch.device("cpu")) is None


# --- worked on paper ---------------------------------------------------------------------------------

# D = F = 2, relu, x0 = (1, 2), x1 = (3, -1).
# Expert 0: W1 = I, b1 = (0, -1), W2 = [[1, 1], [2, 0]], b2 = (0.5, 0).
#   x0: pre (1, 1),      hidden (1, 1),   out (1 + 1, 2) + b2 = (2.5, 2)
# Expert 1: W1 = [[1, -1], [-1, 1]], b1 = (0, 0.5), W2 = [[1, 0], [0, 2]], b2 = (0, -1).
#   x0: pre (-1, 1.5),   hidden (0, 1.5), out (0, 3) + b2 = (0, 2)
#   x1: pre (4, -3.5),   hidden (4, 0),   out (4, 0) + b2 = (4, -1)
# x0 goes to expert 0 with weight 0.5 and to expert 1 with 0.25, x1 to expert 1 with 0.5:
#   y0 = 0.5 (2.5, 2) + 0.25 (0, 2) = (1.25, 1.5)      y1 = 0.5 (4, -1) = (2, -0.5)
PAPER = [
    torch.tensor([[1.0, 2.0], [3.0, -1.0]]),
    torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]]),
    torch.tensor([[0.0, -1.0], [0.0, 0.5]]),
    torch.tensor([[[1.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]]),
    torch.tensor([[0.5, 0.0], [0.0, -1.0]]),
]


def _paper_routing() -> Routing:
    selected_TE = torch.tensor([[True, True], [False, True]])
    weights_TE = torch.tensor([[0.5, 0.25], [0.0, 0.5]])
    mask_T = torch.tensor([True, True])
    return Routing.from_selection(selected_TE, weights_TE, weights_TE, mask_T, torch.zeros(()))


@every_backend
def test_output_by_hand(backend: str) -> None:
    y_TD, _ = run(backend, PAPER, _paper_routing(), "relu")
    assert y_TD.tolist() == [[1.25, 1.5], [2.0, -0.5]]


@every_backend
def test_gradients_by_hand(backend: str) -> None:
    _, grads = run(backend, PAPER, _paper_routing(), "relu", grad_y_TD=torch.ones(2, 2))
    expected = {
        # Hidden gradient = weight * W2^T (1, 1), zero where relu is off:
        #   expert 0, x0: 0.5 (3, 1) = (1.5, 0.5), both on
        #   expert 1, x0: 0.25 (1, 2) = (0.25, 0.5), second on: (0, 0.5)
        #   expert 1, x1: 0.5 (1, 2) = (0.5, 1), first on: (0.5, 0)
        # x0: I (1.5, 0.5) + W1^T (0, 0.5) = (1.5, 0.5) + (-0.5, 0.5); x1: W1^T (0.5, 0) = (0.5, -0.5).
        "x": [[1.0, 1.0], [0.5, -0.5]],
        # The sum of each output row: 2.5 + 2, 0 + 2, 4 - 1.
        "weight_A": [4.5, 2.0, 3.0],
        # Outer products of hidden gradient and input, summed over the expert's tokens:
        #   expert 0: (1.5, 0.5) x (1, 2); expert 1: (0, 0.5) x (1, 2) + (0.5, 0) x (3, -1).
        "w1": [[[1.5, 3.0], [0.5, 1.0]], [[1.5, -0.5], [0.5, 1.0]]],
        "b1": [[1.5, 0.5], [0.5, 0.5]],
        # Each row: weight * hidden; expert 0: 0.5 (1, 1); expert 1: 0.25 (0, 1.5) + 0.5 (4, 0).
        "w2": [[[0.5, 0.5], [0.5, 0.5]], [[2.0, 0.375], [2.0, 0.375]]],
        # The sum of weights: expert 0: 0.5; expert 1: 0.25 + 0.5.
        "b2": [[0.5, 0.5], [0.75, 0.75]],
    }
    assert {name: grad.tolist() for name, grad in zip(NAMES, grads, strict=True)} == expected


# --- equal to the reference --------------------------------------------------------------------------


@every_backend
@every_activation
@pytest.mark.parametrize(("tokens", "seed"), [(23, 0), (23, 1), (8, 2), (64, 3)])
def test_values_and_gradients_equal_loop_in_fp64(
    backend: str, activation: str, tokens: int, seed: int
) -> None:
    tensors, routing = tensors_of(tokens, seed), routing_of(random_selection(tokens, seed))
    if tokens > 8:
        assert set(routing.count_T.tolist()) == {0, 1, 2, 3}
    result = run(backend, tensors, routing, activation)
    assert_same(result, run("loop", tensors, routing, activation), rtol=1e-10, atol=1e-10)
    # Tokens without an expert: output and gradient are exactly 0.
    idle_T = routing.count_T == 0
    assert result[0][idle_T].abs().sum().item() == 0.0
    assert result[1][0][idle_T].abs().sum().item() == 0.0


@every_activation
def test_loop_equals_the_definition(activation: str) -> None:
    """y_t = sum_e w_te (W2_e act(W1_e x_t + b1_e) + b2_e), all experts for all tokens, weight 0 if unused."""
    tensors, routing = tensors_of(20, 4), routing_of(random_selection(20, 4))

    def definition(x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
        weight_TE = torch.zeros(20, NUM_EXPERTS, dtype=x_TD.dtype)
        weight_TE = weight_TE.index_put((routing.token_A, routing.expert_A), routing.weight_A)
        w1_EFD, b1_EF, w2_EDF, b2_ED = weights.tensors
        pre_TEF = torch.einsum("td,efd->tef", x_TD, w1_EFD) + b1_EF
        hidden_TEF = {
            "gelu": torch.nn.functional.gelu(pre_TEF),
            "gelu_tanh": torch.nn.functional.gelu(pre_TEF, approximate="tanh"),
            "relu": torch.relu(pre_TEF),
            "silu": pre_TEF * torch.sigmoid(pre_TEF),
        }[activation]
        out_TED = torch.einsum("tef,edf->ted", hidden_TEF, w2_EDF) + b2_ED
        return torch.einsum("te,ted->td", weight_TE, out_TED)

    assert_same(
        run("loop", tensors, routing, activation),
        forward_and_gradients(definition, tensors, routing, activation),
        rtol=1e-10,
        atol=1e-10,
    )


@every_backend
@every_activation
def test_gradients_equal_finite_differences(backend: str, activation: str) -> None:
    forward = base.load(backend).forward
    routing = routing_of(random_selection(6, 5, num_experts=3))
    # With this seed no relu input lies within the step of the differences (1e-6) of its kink.
    tensors = [tensor.requires_grad_() for tensor in tensors_of(6, 5, shape=(3, 3, 4))]
    weight_A = routing.weight_A.clone().requires_grad_()

    def function(weight_A: Tensor, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return forward(x, dataclasses.replace(routing, weight_A=weight_A), FFN(w1, b1, w2, b2, activation))

    assert torch.autograd.gradcheck(function, (weight_A, *tensors))


@every_activation
def test_activation_backward_equals_autograd(activation: str) -> None:
    pre = torch.linspace(-4, 4, 101, dtype=torch.float64).requires_grad_()
    grad = torch.cos(torch.arange(101.0, dtype=torch.float64))
    value = activate(pre, activation)
    (expected,) = torch.autograd.grad(value, pre, grad)
    activate_backward_into(grad, pre.detach(), activation)
    torch.testing.assert_close(grad, expected)
    written = torch.empty_like(pre)
    activate_into(written, pre.detach(), activation)
    assert torch.equal(written, value)


@every_backend
@pytest.mark.parametrize(
    "needed", [["x"], ["weight_A"], ["w1", "b1", "w2", "b2"]], ids=["x", "weight", "experts"]
)
def test_gradients_of_some_inputs_alone(backend: str, needed: list[str]) -> None:
    tensors, routing = tensors_of(12, 6), routing_of(random_selection(12, 6))
    _, everything = run("loop", tensors, routing)
    inputs = dict(zip(["x", "w1", "b1", "w2", "b2"], (tensor.clone() for tensor in tensors), strict=True))
    inputs["weight_A"] = routing.weight_A.clone()
    for name in needed:
        inputs[name].requires_grad_()
    y_TD = base.load(backend).forward(
        inputs["x"],
        dataclasses.replace(routing, weight_A=inputs["weight_A"]),
        FFN(inputs["w1"], inputs["b1"], inputs["w2"], inputs["b2"], "gelu"),
    )
    torch.autograd.backward(y_TD, torch.cos(torch.arange(y_TD.numel()).view(y_TD.shape)).double())
    for name, expected in zip(NAMES, everything, strict=True):
        if name in needed:
            torch.testing.assert_close(inputs[name].grad, expected, rtol=1e-10, atol=1e-10)
        else:
            assert inputs[name].grad is None


# --- precision and determinism -----------------------------------------------------------------------


@every_backend
@every_activation
def test_fp32_is_close_to_fp64(backend: str, activation: str) -> None:
    selected_TE = random_selection(64, 14)
    exact = run("loop", tensors_of(64, 14), routing_of(selected_TE), activation)
    single = run(
        backend, tensors_of(64, 14, torch.float32), routing_of(selected_TE, torch.float32), activation
    )
    assert all(tensor.dtype == torch.float32 for tensor in (single[0], *single[1]))
    exact = (exact[0].float(), [grad.float() for grad in exact[1]])
    assert_same(single, exact, rtol=1e-4, atol=2e-5)


@every_backend
@every_activation
def test_bf16_autocast_is_close_to_fp32(backend: str, activation: str) -> None:
    tensors = far_from_kink(tensors_of(64, 15, torch.float32), activation)
    routing = routing_of(random_selection(64, 15), torch.float32)
    reference = run("loop", tensors, routing, activation)

    def forward(x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return base.load(backend).forward(x_TD, routing, weights)

    assert_bf16_close(forward_and_gradients(forward, tensors, routing, activation), reference)


@every_backend
def test_two_runs_are_bit_identical(backend: str) -> None:
    tensors = tensors_of(300, 16, torch.float32, shape=(16, 32, 64))
    routing = routing_of(random_selection(300, 16, num_experts=16), torch.float32)
    first, second = (run(backend, tensors, routing) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(left, right) for left, right in zip(first[1], second[1], strict=True))
