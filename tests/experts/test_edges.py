"""Expert back-ends at the edges: idle experts, tokens without any, NaN that must not leak, odd layouts."""

import pytest
import torch
from expert_cases import (
    D_HIDDEN,
    D_MODEL,
    EDGES,
    NAMES,
    assert_same,
    edge_selection,
    every_backend,
    random_selection,
    routing_of,
    run,
    tensors_of,
)


@every_backend
@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_equal_loop(backend: str, edge: str) -> None:
    selected_TE = edge_selection(edge)
    tensors, routing = tensors_of(selected_TE.shape[0], 7), routing_of(selected_TE)
    result = run(backend, tensors, routing)
    assert_same(result, run("loop", tensors, routing), rtol=1e-10, atol=1e-10)
    if routing.expert_A.numel() == 0:
        assert result[0].abs().sum().item() == 0.0
        assert all(grad.abs().sum().item() == 0.0 for grad in result[1])


@every_backend
def test_one_expert_in_the_layer(backend: str) -> None:
    tensors = tensors_of(9, 8, shape=(1, D_MODEL, D_HIDDEN))
    routing = routing_of(torch.ones(9, 1, dtype=torch.bool))
    assert_same(run(backend, tensors, routing), run("loop", tensors, routing), rtol=1e-10, atol=1e-10)


@every_backend
def test_idle_experts_get_zero_gradients(backend: str) -> None:
    selected_TE = random_selection(20, 9)
    selected_TE[:, [0, 3]] = False
    _, (_, _, *expert_grads) = run(backend, tensors_of(20, 9), routing_of(selected_TE))
    for name, grad in zip(NAMES[2:], expert_grads, strict=True):
        assert torch.equal(grad[[0, 3]], torch.zeros_like(grad[[0, 3]])), name
        assert all(grad[expert].abs().sum().item() > 0 for expert in (1, 2, 4)), name


@every_backend
def test_nan_in_an_unused_expert_does_not_leak(backend: str) -> None:
    selected_TE = random_selection(20, 10)
    selected_TE[:, 1] = False
    tensors, routing = tensors_of(20, 10), routing_of(selected_TE)
    expected_y_TD, expected = run("loop", tensors, routing)
    for tensor in tensors[1:]:
        tensor[1] = torch.nan
    y_TD, grads = run(backend, tensors, routing)
    if backend == "padded":
        # It multiplies the unused expert's weights too, with the zero gradients of its empty slots, and
        # 0 * NaN is NaN: that expert's own gradient is left out here. Nothing else may see the NaN.
        for grad in grads[2:]:
            grad[1] = 0.0
    assert_same((y_TD, grads), (expected_y_TD, expected), rtol=1e-10, atol=1e-10)


@every_backend
def test_nan_in_a_token_without_experts_does_not_leak(backend: str) -> None:
    selected_TE = random_selection(20, 11)
    selected_TE[4] = False
    tensors, routing = tensors_of(20, 11), routing_of(selected_TE)
    expected = run("loop", tensors, routing)
    tensors[0][4] = torch.nan
    assert_same(run(backend, tensors, routing), expected, rtol=1e-10, atol=1e-10)


@every_backend
def test_inputs_are_left_alone(backend: str) -> None:
    tensors, routing = tensors_of(20, 12), routing_of(random_selection(20, 12))
    copies = [tensor.clone() for tensor in tensors]
    grad_y_TD = torch.ones(20, D_MODEL, dtype=torch.float64)
    run(backend, tensors, routing, grad_y_TD=grad_y_TD)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
    assert torch.equal(grad_y_TD, torch.ones(20, D_MODEL, dtype=torch.float64))


@every_backend
def test_non_contiguous_inputs_and_gradients(backend: str) -> None:
    tensors, routing = tensors_of(20, 13), routing_of(random_selection(20, 13))
    reference = run("loop", tensors, routing, grad_y_TD=torch.ones(20, D_MODEL, dtype=torch.float64))
    strided = [tensor.mT.contiguous().mT for tensor in tensors[:2]] + tensors[2:]
    # The gradient of a sum is one number expanded to every place.
    ones_TD = torch.ones((), dtype=torch.float64).expand(20, D_MODEL)
    assert_same(run(backend, strided, routing, grad_y_TD=ones_TD), reference, rtol=1e-10, atol=1e-10)
