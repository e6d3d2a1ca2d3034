"""What every gate must give, whatever its rule: consistent routings that see no padding."""

import dataclasses

import pytest
import torch
from gate_cases import (
    D_MODEL,
    Batch,
    batches,
    call,
    check_consistent,
    every_gate,
    few_examples,
    forced_or_not,
    gate_of,
    padded_batch,
    route_with_gradients,
)
from gates_by_hand import assignments
from hypothesis import assume, given
from hypothesis import strategies as st

from repro.moe.gates import base

TOKENS_COMPETE = {"expert_choice"}
"""Gates in which equal tokens may be routed otherwise: the first of them is taken."""


# --- the routing as a value --------------------------------------------------------------------------


COEFFICIENTS = {"balance", "entropy", "diversity", "efficiency", "penalty"}
"""Options by which gates multiply parts of their loss."""


@every_gate
@forced_or_not
@few_examples
@given(batch=batches())
def test_routing_is_consistent(name: str, force_top1: bool, batch: Batch) -> None:
    x_TD, mask_T, num_experts = batch
    routing, grads, grad_x_TD = route_with_gradients(gate_of(name, num_experts), x_TD, mask_T, force_top1)
    check_consistent(routing, mask_T, num_experts)
    assert bool(grad_x_TD.isfinite().all())
    for key, grad in grads.items():
        assert bool(grad.isfinite().all()), key


@every_gate
@forced_or_not
@few_examples
@given(batch=batches())
def test_the_loss_is_multiplied_by_the_coefficients(name: str, force_top1: bool, batch: Batch) -> None:
    x_TD, mask_T, num_experts = batch
    defaults = dataclasses.asdict(base.load(name).Config())
    twice = {key: 2 * defaults[key] for key in COEFFICIENTS & defaults.keys()}
    single = call(gate_of(name, num_experts), x_TD, mask_T, force_top1).loss
    double = call(gate_of(name, num_experts, **twice), x_TD, mask_T, force_top1).loss
    torch.testing.assert_close(double, 2 * single, rtol=1e-5, atol=1e-12)


@every_gate
def test_a_gate_without_coefficients_has_no_loss(name: str) -> None:
    torch.manual_seed(0)
    routing = call(gate_of(name), torch.randn(200, D_MODEL), torch.ones(200, dtype=torch.bool))
    has_loss = bool(COEFFICIENTS & {field.name for field in dataclasses.fields(base.load(name).Config)})
    assert (routing.loss.item() > 0) is has_loss


@every_gate
@few_examples
@given(batch=batches())
def test_force_top1_gives_at_most_one_expert(name: str, batch: Batch) -> None:
    x_TD, mask_T, num_experts = batch
    routing, _, _ = route_with_gradients(gate_of(name, num_experts), x_TD, mask_T, force_top1=True)
    assert int(routing.count_T.sum()) == routing.expert_A.numel()
    assert all(count <= 1 for count in routing.count_T.tolist())


@every_gate
@forced_or_not
@few_examples
@given(batch=batches(min_tokens=1), seed=st.integers(0, 10_000))
def test_order_of_tokens_does_not_matter(name: str, force_top1: bool, batch: Batch, seed: int) -> None:
    x_TD, mask_T, num_experts = batch
    order = torch.randperm(mask_T.numel(), generator=torch.Generator().manual_seed(seed))
    if name in TOKENS_COMPETE:
        assume(len(torch.unique(x_TD, dim=0)) == len(x_TD))
    gate = gate_of(name, num_experts).eval()
    routing, grads, grad_x_TD = route_with_gradients(gate, x_TD, mask_T, force_top1)
    moved, moved_grads, moved_grad_x_TD = route_with_gradients(gate, x_TD[order], mask_T[order], force_top1)

    # Row t of the moved batch is token order[t].
    back = sorted((expert, int(order[token])) for expert, token in assignments(moved))
    assert back == assignments(routing)
    weight = dict(zip(assignments(routing), routing.weight_A.tolist(), strict=True))
    for (expert, token), value in zip(assignments(moved), moved.weight_A.tolist(), strict=True):
        assert value == pytest.approx(weight[expert, int(order[token])], abs=1e-5)
    assert torch.equal(moved.count_T, routing.count_T[order])
    assert torch.equal(moved.load_E, routing.load_E)
    torch.testing.assert_close(moved.loss, routing.loss, rtol=1e-5, atol=1e-6)
    if routing.extra_TD is not None:
        torch.testing.assert_close(moved.extra_TD, routing.extra_TD[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moved_grad_x_TD, grad_x_TD[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved_grads, grads, rtol=1e-4, atol=1e-5)


# --- padding -----------------------------------------------------------------------------------------

GARBAGE = [0.0, 1e4, -1e30, torch.inf, torch.nan]


@every_gate
@forced_or_not
@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_changes_no_decision(name: str, force_top1: bool, garbage: float) -> None:
    x_TD, other_TD, mask_T = padded_batch(garbage)
    with torch.no_grad():
        routing = call(gate_of(name), x_TD, mask_T, force_top1)
        other = call(gate_of(name), other_TD, mask_T, force_top1)
    check_consistent(other, mask_T, 6)
    assert assignments(other) == assignments(routing)
    assert torch.equal(other.weight_A, routing.weight_A)
    assert torch.equal(other.probs_TE[mask_T], routing.probs_TE[mask_T])
    assert torch.equal(other.loss, routing.loss)


@every_gate
@forced_or_not
@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_changes_no_gradient(name: str, force_top1: bool, garbage: float) -> None:
    x_TD, other_TD, mask_T = padded_batch(garbage)
    _, grads, grad_x_TD = route_with_gradients(gate_of(name), x_TD, mask_T, force_top1)
    _, other_grads, other_grad_x_TD = route_with_gradients(gate_of(name), other_TD, mask_T, force_top1)
    torch.testing.assert_close(other_grads, grads, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other_grad_x_TD[mask_T], grad_x_TD[mask_T], rtol=1e-5, atol=1e-6)
    assert other_grad_x_TD[~mask_T].abs().sum().item() == 0.0


@every_gate
@forced_or_not
@few_examples
@given(batch=batches())
def test_padding_might_as_well_not_be_there(name: str, force_top1: bool, batch: Batch) -> None:
    x_TD, mask_T, num_experts = batch
    gate = gate_of(name, num_experts).eval()
    routing, grads, grad_x_TD = route_with_gradients(gate, x_TD, mask_T, force_top1)
    dense, dense_grads, dense_grad_x_TD = route_with_gradients(
        gate, x_TD[mask_T], torch.ones(int(mask_T.sum()), dtype=torch.bool), force_top1
    )
    place = mask_T.nonzero().flatten().tolist()
    assert [(expert, place[token]) for expert, token in assignments(dense)] == assignments(routing)
    torch.testing.assert_close(dense.weight_A, routing.weight_A, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dense.loss, routing.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dense_grads, grads, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dense_grad_x_TD, grad_x_TD[mask_T], rtol=1e-4, atol=1e-5)
    assert grad_x_TD[~mask_T].abs().sum().item() == 0.0


@every_gate
@forced_or_not
@pytest.mark.parametrize("mask", [[], [True], [False], [False] * 5], ids=["none", "one", "padding", "all"])
def test_the_smallest_batches(name: str, force_top1: bool, mask: list[bool]) -> None:
    mask_T = torch.tensor(mask, dtype=torch.bool)
    routing, grads, grad_x_TD = route_with_gradients(
        gate_of(name), torch.ones(len(mask), D_MODEL), mask_T, force_top1
    )
    check_consistent(routing, mask_T, 6)
    assert grad_x_TD.shape == (len(mask), D_MODEL)
    for grad in grads.values():
        assert bool(grad.isfinite().all())
    if not any(mask):
        # Nothing was routed: no loss, and no gradient.
        assert routing.expert_A.numel() == 0
        assert routing.loss.item() == 0.0
        assert all(grad.abs().sum().item() == 0.0 for grad in grads.values())
