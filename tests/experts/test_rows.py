"""The order of a token's assignments, the rows that back-ends compute, and the grouped product of GPUs."""

import pytest
import torch
from expert_cases import (
    EDGES,
    NUM_EXPERTS,
    assert_bf16_close,
    assert_same,
    edge_selection,
    every_activation,
    every_backend,
    far_from_kink,
    forward_and_gradients,
    random_selection,
    routing_of,
    tensors_of,
)
from torch import Tensor

from repro.moe.experts import base, grouped, loop
from repro.moe.experts.shared.rows import token_bags
from repro.moe.ffn import FFN
from repro.moe.routing import Routing

# --- helpers and accounting --------------------------------------------------------------------------


def test_token_bags_by_hand() -> None:
    # Token 0 has experts 0 and 2, token 1 none, token 2 expert 0, token 3 experts 0, 1 and 2.
    selected_TE = torch.tensor(
        [[True, False, True], [False, False, False], [True, False, False], [True, True, True]]
    )
    # Assignments (expert, token): 0:(0,0) 1:(0,2) 2:(0,3) 3:(1,3) 4:(2,0) 5:(2,3).
    # By token: token 0 has 0 and 4, token 2 has 1, token 3 has 2, 3 and 5.
    order_A, starts_T = token_bags(routing_of(selected_TE))
    assert order_A.tolist() == [0, 4, 1, 2, 3, 5]
    assert starts_T.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize(
    ("backend", "load", "rows"),
    [
        # Without padding: the sum of the loads.
        ("loop", [3, 0, 5, 1], 9),
        ("grouped", [3, 0, 5, 1], 9),
        # Four experts with room for five rows each.
        ("padded", [3, 0, 5, 1], 20),
        ("loop", [0, 0], 0),
        ("grouped", [0, 0], 0),
        ("padded", [0, 0], 0),
        # An even load wastes nothing.
        ("padded", [4, 4, 4], 12),
        ("loop", [], 0),
        ("grouped", [], 0),
        ("padded", [], 0),
    ],
)
def test_rows_computed_by_hand(backend: str, load: list[int], rows: int) -> None:
    load_E = torch.tensor(load, dtype=torch.int64)
    assert base.load(backend).rows_computed(load_E, torch.float32) == rows


def test_rows_computed_by_grouped_in_bf16_by_hand() -> None:
    # Multiples of 16, nothing for idle experts.
    assert grouped.rows_computed(torch.tensor([3, 0, 16, 17]), torch.bfloat16) == 16 + 0 + 16 + 32
    assert grouped.rows_computed(torch.tensor([0, 0]), torch.bfloat16) == 0
    assert grouped.rows_computed(torch.tensor([3, 0, 16, 17]), torch.float32) == 36


@every_backend
def test_rows_computed_covers_every_assignment(backend: str) -> None:
    routing = routing_of(random_selection(50, 17))
    for dtype in (torch.float32, torch.bfloat16):
        rows = base.load(backend).rows_computed(routing.load_E, dtype)
        assert rows >= routing.expert_A.numel() == routing.load_E.sum()


# --- the grouped product, which GPUs use in bf16 -----------------------------------------------------


def _grouped_product(x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
    order_A, starts_T = token_bags(routing)
    return grouped.grouped_product(x_TD, routing, weights, order_A, starts_T)


@every_activation
def test_grouped_product_equals_loop_in_fp32(activation: str) -> None:
    tensors = tensors_of(64, 18, torch.float32, shape=(6, 16, 32))
    selected_TE = random_selection(64, 18, num_experts=6)
    selected_TE[:, 2] = False
    routing = routing_of(selected_TE, torch.float32)
    result = forward_and_gradients(_grouped_product, tensors, routing, activation)
    assert_same(
        result, forward_and_gradients(loop.forward, tensors, routing, activation), rtol=1e-4, atol=1e-4
    )
    assert all(grad[2].abs().sum().item() == 0.0 for grad in result[1][2:])


@every_activation
def test_grouped_product_is_close_to_loop_in_bf16(activation: str) -> None:
    tensors = far_from_kink(tensors_of(64, 19, torch.float32, shape=(6, 16, 32)), activation)
    selected_TE = random_selection(64, 19, num_experts=6)
    selected_TE[:, 2] = False
    routing = routing_of(selected_TE, torch.float32)
    reference = forward_and_gradients(loop.forward, tensors, routing, activation)

    def product(x_TD: Tensor, routing: Routing, weights: FFN) -> Tensor:
        y_TD = _grouped_product(x_TD.bfloat16(), routing, weights)
        assert y_TD.dtype == torch.bfloat16
        return y_TD.float()

    result = forward_and_gradients(product, tensors, routing, activation)
    assert_bf16_close(result, reference)
    assert all(grad[2].abs().sum().item() == 0.0 for grad in result[1][2:])


def test_grouped_product_does_not_leak_nan_of_an_unused_expert() -> None:
    tensors = tensors_of(64, 21, torch.float32, shape=(6, 16, 32))
    selected_TE = random_selection(64, 21, num_experts=6)
    selected_TE[:, 2] = False
    routing = routing_of(selected_TE, torch.float32)
    expected = forward_and_gradients(loop.forward, tensors, routing, "gelu")
    for tensor in tensors[1:]:
        tensor[2] = torch.nan
    assert_same(
        forward_and_gradients(_grouped_product, tensors, routing, "gelu"), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("edge", EDGES)
def test_grouped_product_edge_cases(edge: str) -> None:
    selected_TE = edge_selection(edge)
    tensors = tensors_of(selected_TE.shape[0], 20, torch.float32, shape=(NUM_EXPERTS, 16, 32))
    routing = routing_of(selected_TE, torch.float32)
    result = forward_and_gradients(_grouped_product, tensors, routing, "gelu")
    assert_same(result, forward_and_gradients(loop.forward, tensors, routing, "gelu"), rtol=1e-4, atol=1e-4)
