"""Top-any gating: three tokens in two dimensions, its three losses, its straight-through gradient."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from gates_by_hand import assignments, route

from repro.moe.gates import top_any
from repro.moe.routing import Routing

# W = ((1, 0), (0, 2)): the cosines are the coordinates of x / |x|, whatever the lengths.
#   t0 = ( 3,  4)   0.6, 0.8           both
#   t1 = ( 1, -1)   0.71, -0.71        {0}
#   t2 = (-1, -2)   -0.45, -0.89       none; the best is 0
X = torch.tensor([[3.0, 4.0], [1.0, -1.0], [-1.0, -2.0]])
OFF: dict[str, Any] = {"balance": 0.0, "diversity": 0.0, "efficiency": 0.0}


def _gate(weight: Sequence[tuple[float, float]] = ((1.0, 0.0), (0.0, 2.0)), **options: Any) -> Any:
    gate = top_any.Gate(top_any.Config(**options), 2, len(weight))
    with torch.no_grad():
        gate.weight.copy_(torch.tensor(weight))
    return gate


def _route(force_top1: bool = False, training: bool = True, **options: Any) -> Routing:
    return route(_gate(**options).train(training), X, force_top1=force_top1)


def test_selection_and_equal_weights_by_hand() -> None:
    routing = _route()
    assert assignments(routing) == [(0, 0), (0, 1), (1, 0)]
    assert routing.weight_A.tolist() == [0.5, 1.0, 0.5]
    assert routing.count_T.tolist() == [2, 1, 0]


def test_in_evaluation_a_token_without_experts_gets_the_best() -> None:
    routing = _route(training=False)
    assert assignments(routing) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert routing.weight_A.tolist() == [0.5, 1.0, 1.0, 0.5]


def test_force_top1_is_one_expert() -> None:
    routing = _route(force_top1=True)
    assert assignments(routing) == [(0, 1), (0, 2), (1, 0)]
    assert routing.weight_A.tolist() == [1.0, 1.0, 1.0]


def test_a_threshold_is_a_bound_on_the_cosine() -> None:
    # 0.7 is above 0.6 and below 0.71 and 0.8.
    assert _route(threshold=0.7).count_T.tolist() == [1, 1, 0]


def test_balance_loss_by_hand() -> None:
    # Over t0 and t1: g / K = (1/2, 1/2) and (1, 0), so f = P = (3/4, 1/4); 2 * (9 + 1) / 16.
    assert _route(**OFF | {"balance": 1.0}).loss.item() == pytest.approx(1.25, rel=1e-6)


def test_efficiency_loss_by_hand() -> None:
    # 3 of 3 * 2 pairs.
    assert _route(**OFF | {"efficiency": 1.0}).loss.item() == pytest.approx(0.5, rel=1e-6)


def test_diversity_loss_by_hand() -> None:
    # Orthogonal rows: 0 + (1 + 2) / 2. Parallel ones: |((0, 1), (1, 0))| = sqrt 2, + (1 + 3) / 2.
    assert _route(**OFF | {"diversity": 1.0}).loss.item() == pytest.approx(1.5, rel=1e-6)
    weight = ((1.0, 0.0), (3.0, 0.0))
    loss = _gate(weight, **OFF | {"diversity": 1.0})(X, torch.ones(3, dtype=torch.bool)).loss.item()
    assert loss == pytest.approx(2**0.5 + 2, rel=1e-6)


def test_default_coefficients() -> None:
    # 0.01 * (1.25 + 0.5 + 1.5)
    assert _route().loss.item() == pytest.approx(0.0325, rel=1e-5)


def test_gradients_pass_the_sign_by_hand() -> None:
    # t0 has both experts: w_0 = g_0 / 2, and backward d g_0 / d G_0 = -sigmoid'(0) = -1/4.
    gate = _gate(**OFF)
    gate(X[:1], torch.tensor([True])).weight_A[0].backward()
    torch.testing.assert_close(gate.threshold.grad, torch.tensor([-1 / 8, 0.0]))
    # d s_0 = s_0 (1 - s_0) d cos; cos changes with W_0 by the part of x / |x| across W_0: (0, 0.8).
    score = torch.sigmoid(torch.tensor(0.6))
    expected = torch.zeros(2, 2)
    expected[0, 1] = 0.5 * score * (1 - score) * 0.8
    torch.testing.assert_close(gate.weight.grad, expected)


def test_an_expert_that_is_not_selected_gets_no_gradient() -> None:
    gate = _gate(**OFF)
    gate(X[1:2], torch.tensor([True])).weight_A.sum().backward()
    assert gate.threshold.grad[1].item() == 0.0
    assert gate.weight.grad[1].tolist() == [0.0, 0.0]


def test_straight_through_all_experts_have_a_gradient_by_hand() -> None:
    """The selection, weights and task's gradient are as released; the losses reach what is not selected."""
    straight: dict[str, Any] = {"gradient": "straight-through"}
    assert assignments(_route(**straight)) == assignments(_route())
    assert torch.equal(_route(**straight).weight_A, _route().weight_A)
    assert _route(**straight).loss.item() == _route().loss.item()
    # Efficiency is the mean of g over 3 tokens and 2 experts: d loss / d G_i = -(number of tokens) / 6 / 4,
    # sigmoid'(0) = 1/4. As released, expert 0 has two tokens and expert 1 one; straight-through both have 3.
    for gradient, tokens in (("as_released", [2, 1]), ("straight-through", [3, 3])):
        gate = _gate(**OFF | {"efficiency": 1.0}, gradient=gradient)
        gate(X, torch.ones(3, dtype=torch.bool)).loss.backward()
        torch.testing.assert_close(gate.threshold.grad, -torch.tensor(tokens) / 24)
    # What is not selected is not computed: the task's gradient cannot reach it.
    gate = _gate(**OFF, **straight)
    gate(X[1:2], torch.tensor([True])).weight_A.sum().backward()
    assert gate.threshold.grad.tolist() == [-0.25, 0.0]


def test_the_global_seed_is_left_alone() -> None:
    torch.manual_seed(1234)
    first = top_any.Gate(top_any.Config(), 8, 4)
    second = top_any.Gate(top_any.Config(), 8, 4)
    assert torch.initial_seed() == 1234
    assert not torch.equal(first.weight, second.weight)
