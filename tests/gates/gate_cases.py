"""What is done with every gate: random batches, routings with gradients, and what must hold for each."""

import copy
from typing import Any, TypeAlias

import pytest
import torch
from gates_by_hand import assignments
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from repro import plugins
from repro.moe.gates import base
from repro.moe.routing import Routing

GATES = [name for name in plugins.names("gates") if name != "dense"]
D_MODEL = 8

Batch: TypeAlias = tuple[Tensor, Tensor, int]
"""Inputs, mask and number of experts."""

every_gate = pytest.mark.parametrize("name", GATES)
forced_or_not = pytest.mark.parametrize("force_top1", [False, True], ids=["same", "force-top1"])
few_examples = settings(deadline=None, derandomize=True, max_examples=40)


def class_of(name: str) -> base.GateClass:
    gate_class = base.load(name).Gate
    assert gate_class is not None
    return gate_class


def gate_of(name: str, num_experts: int = 6, **options: object) -> base.Gate[Any]:
    torch.manual_seed(7)
    return class_of(name)(base.load(name).Config(**options), D_MODEL, num_experts)


def call(gate: base.Gate[Any], x_TD: Tensor, mask_T: Tensor, force_top1: bool = False) -> Routing:
    """Call a gate; token ids and peaks of attention follow from the tokens themselves."""
    rows_TD = x_TD.detach().float().nan_to_num().clamp(-50, 50)
    ids_T = rows_TD.sum(1).mul(1000).long().abs()
    routing: Routing = gate(x_TD, mask_T, force_top1=force_top1, ids_T=ids_T, **attention_for(gate, rows_TD))
    return routing


def attention_for(gate: base.Gate[Any], rows_TD: Tensor) -> dict[str, Tensor]:
    """The further argument of gates that decide by attention."""
    return {"attention_T": rows_TD.sum(1).sigmoid()} if gate.needs_attention else {}


def route_with_gradients(
    gate: base.Gate[Any], x_TD: Tensor, mask_T: Tensor, force_top1: bool = False
) -> tuple[Routing, dict[str, Tensor], Tensor]:
    """Route with a copy of the gate, and gradients of a task-like loss to all its parameters and to x."""
    gate, x_TD = copy.deepcopy(gate), x_TD.clone().requires_grad_()
    torch.manual_seed(11)
    routing = call(gate, x_TD, mask_T, force_top1)
    # The value of an assignment depends on its token and its expert, as a task's loss would.
    value_A = torch.sin(1.0 + 3.0 * routing.expert_A) * (1.0 + x_TD.detach()[routing.token_A].sum(1))
    loss = (routing.weight_A * value_A).sum() + routing.loss
    if routing.extra_TD is not None:
        loss = loss + (routing.extra_TD * torch.arange(1.0, D_MODEL + 1).cos()).sum()
    # Zero gradients for a gate whose weights do not depend on its input.
    loss = loss + 0.0 * x_TD.sum()
    parameters = dict(gate.named_parameters())
    *grads, grad_x_TD = torch.autograd.grad(loss, [*parameters.values(), x_TD])
    return routing, dict(zip(parameters, grads, strict=True)), grad_x_TD


def check_consistent(routing: Routing, mask_T: Tensor, num_experts: int) -> None:
    tokens, size = mask_T.numel(), routing.expert_A.numel()
    assert routing.expert_A.shape == routing.token_A.shape == routing.weight_A.shape == (size,)
    assert routing.load_E.shape == (num_experts,)
    assert routing.count_T.shape == routing.mask_T.shape == (tokens,)
    assert routing.probs_TE.shape == (tokens, num_experts)
    assert routing.loss.shape == ()
    for integers in (routing.expert_A, routing.token_A, routing.load_E, routing.count_T):
        assert integers.dtype == torch.int64
    assert routing.weight_A.dtype == routing.probs_TE.dtype == routing.loss.dtype == torch.float32
    assert routing.mask_T.dtype == torch.bool
    assert torch.equal(routing.mask_T, mask_T)
    if routing.extra_TD is not None:
        assert routing.extra_TD.shape == (tokens, D_MODEL)
        assert bool((routing.extra_TD[~mask_T] == 0).all())

    pairs = assignments(routing)
    # Sorted by expert, then token, and no pair twice.
    assert pairs == sorted(set(pairs))
    assert routing.load_E.tolist() == routing.expert_A.bincount(minlength=num_experts).tolist()
    assert routing.count_T.tolist() == routing.token_A.bincount(minlength=tokens).tolist()
    assert bool(mask_T[routing.token_A].all())
    assert bool(routing.weight_A.isfinite().all())
    assert bool(routing.loss.isfinite())


@st.composite
def batches(draw: st.DrawFn, min_tokens: int = 0) -> Batch:
    """Inputs, mask and number of experts; some inputs repeat, so that some decisions are equal."""
    tokens = draw(st.integers(min_tokens, 12))
    mask_T = torch.tensor(draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)), dtype=torch.bool)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0]))
    x_TD = scale * torch.randn(tokens, D_MODEL, generator=generator)
    if tokens > 1 and draw(st.booleans()):
        x_TD[-1] = x_TD[0]
    return x_TD, mask_T, draw(st.integers(2, 9))


def padded_batch(garbage: float) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    x_TD = torch.randn(40, D_MODEL)
    mask_T = torch.rand(40) < 0.6
    other_TD = torch.where(mask_T[:, None], x_TD, garbage * torch.randn(40, D_MODEL))
    return x_TD, other_TD, mask_T
