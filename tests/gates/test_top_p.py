"""Top-p gating on three tokens worked on paper, and its entropy loss."""

import math

import pytest
import torch
from gates_by_hand import FixedRouter, assignments, identity_gate, route
from torch import Tensor

from repro import plugins
from repro.moe.gates import top_p
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p, so its probabilities are p.
PROBS = torch.tensor([[0.60, 0.20, 0.10, 0.10], [0.32, 0.08, 0.36, 0.24], [0.10, 0.50, 0.10, 0.30]])


def _route(
    probs: Tensor = PROBS, force_top1: bool = False, exact: bool = False, **options: object
) -> Routing:
    gate = identity_gate(top_p, **options)
    if exact:  # without the rounding of log and softmax
        gate.router = FixedRouter(probs)
    return route(gate, probs.log(), force_top1=force_top1)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # Sums of the ranks: t0 0.6 0.8 0.9 1, t1 0.36 0.68 0.92 1, t2 0.5 0.8 0.9 1.
        (0.0, [{0}, {2}, {1}]),
        (0.4, [{0}, {0, 2}, {1}]),
        (0.55, [{0}, {0, 2}, {1, 3}]),
        (0.75, [{0, 1}, {0, 2, 3}, {1, 3}]),
        # The experts 2 and 3 of t0, and 0 and 2 of t2, are equal: the lower one is taken.
        (0.85, [{0, 1, 2}, {0, 2, 3}, {0, 1, 3}]),
        (0.95, [{0, 1, 2, 3}] * 3),
    ],
)
def test_selected_experts_by_hand(p: float, expected: list[set[int]]) -> None:
    selected: list[set[int]] = [set(), set(), set()]
    for expert, token in assignments(_route(p=p)):
        selected[token].add(expert)
    assert selected == expected


def test_the_sum_must_exceed_p() -> None:
    probs = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    counts = [_route(probs, exact=True, p=p).count_T.item() for p in (0.49, 0.5, 0.75, 0.875)]
    assert counts == [1, 2, 3, 4]


def test_weights_by_hand() -> None:
    torch.testing.assert_close(_route(p=0.55).weight_A, torch.tensor([0.60, 0.32, 0.50, 0.36, 0.30]))
    expected = torch.tensor([1.0, 8 / 17, 5 / 8, 9 / 17, 3 / 8])
    torch.testing.assert_close(_route(p=0.55, combine="renormalised").weight_A, expected)


def test_balance_loss_by_hand() -> None:
    # f = (2, 1, 1, 1) / 3, P = (1.02, 0.78, 0.56, 0.64) / 3; 4 * (2.04 + 0.78 + 0.56 + 0.64) / 9 * 0.01.
    assert _route(p=0.55, entropy=0.0).loss.item() == pytest.approx(0.01 * 16.08 / 9, rel=1e-5)


def test_entropy_loss_by_hand() -> None:
    # (1/2, 1/4, 1/8, 1/8): 1/2 + 2/4 + 3/8 + 3/8 = 1.75 bits; uniform: 2 bits; mean 1.875.
    probs = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]])
    loss = _route(probs, balance=0.0, entropy=1.0).loss.item()
    assert loss == pytest.approx(1.875 * math.log(2), rel=1e-5)


def test_the_entropy_of_a_certain_router_is_0_with_a_finite_gradient() -> None:
    logits_TE = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True)
    loss = top_p.entropy_terms(logits_TE.softmax(1)).sum()
    (grad_TE,) = torch.autograd.grad(loss, logits_TE)
    assert loss.item() == 0.0
    assert bool(grad_TE.isfinite().all())


def test_force_top1_is_one_expert() -> None:
    assert assignments(_route(p=0.95, force_top1=True)) == [(0, 0), (1, 2), (2, 1)]


def test_the_name_is_not_top_k() -> None:
    assert plugins.resolve("gates", "top-p") == ("top_p", {})
    assert plugins.resolve("gates", "top-any") == ("top_any", {})
