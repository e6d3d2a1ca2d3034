"""Zero, copy and constant experts: three tokens on paper."""

from typing import Any

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route

from repro.moe.gates import zero_compute
from repro.moe.routing import Routing

# Two FFN experts, a zero, a copy and a constant one; the router is the identity (D = 5), a token is log p.
#
#            f0    f1    zero  copy  const     k = 2
#   t0      0.40  0.10  0.30  0.12  0.08      f0, zero
#   t1      0.10  0.15  0.05  0.40  0.30      copy, const
#   t2      0.10  0.50  0.10  0.25  0.05      f1, copy
PROBS = torch.tensor(
    [[0.40, 0.10, 0.30, 0.12, 0.08], [0.10, 0.15, 0.05, 0.40, 0.30], [0.10, 0.50, 0.10, 0.25, 0.05]]
)
X = PROBS.log()
VECTOR = torch.tensor([1.0, -2.0, 3.0, 0.5, 0.0])


def _gate(**options: object) -> Any:
    gate = identity_gate(zero_compute, 2, 5, **{"constants": 1} | options)
    with torch.no_grad():
        gate.vectors.copy_(VECTOR[:, None])
    return gate


def _route(force_top1: bool = False, mask: list[bool] | None = None, **options: object) -> Routing:
    return route(_gate(**options), X, mask, force_top1=force_top1)


def test_ffn_experts_by_hand() -> None:
    routing = _route()
    assert assignments(routing) == [(0, 0), (1, 2)]
    torch.testing.assert_close(routing.weight_A, torch.tensor([0.40, 0.50]))
    assert routing.count_T.tolist() == [1, 0, 1]
    assert routing.probs_TE.shape == (3, 2)


def test_cheap_experts_by_hand() -> None:
    # The mixture starts at 1/2: t1 gets 0.4 x + 0.3 (x / 2 + v / 2).
    expected = torch.stack([torch.zeros(5), 0.55 * X[1] + 0.15 * VECTOR, 0.25 * X[2]])
    torch.testing.assert_close(_route().extra_TD, expected)


def test_the_mixture_is_a_softmax() -> None:
    gate = _gate()
    with torch.no_grad():
        # Of v x = log 3 and 0: 3/4 and 1/4, for t1.
        gate.mixture[0] = X[1] / X[1].square().sum() * torch.tensor(3.0).log()
    extra_D = gate(X, torch.ones(3, dtype=torch.bool)).extra_TD[1]
    torch.testing.assert_close(extra_D, (0.4 + 0.3 * 0.75) * X[1] + 0.3 * 0.25 * VECTOR)


def test_renormalised_without_the_zero_expert() -> None:
    # t0: f0 alone, 1; t1: 4/7 and 3/7; t2: 2/3 and 1/3.
    routing = _route(combine="renormalised")
    torch.testing.assert_close(routing.weight_A, torch.tensor([1.0, 2 / 3]))
    mixed = (4 / 7 + 3 / 14) * X[1] + 3 / 14 * VECTOR
    torch.testing.assert_close(routing.extra_TD, torch.stack([torch.zeros(5), mixed, X[2] / 3]))


def test_heterogeneous_balance_loss_by_hand() -> None:
    # f = (1, 1, 1, 2, 1) / 3, P = (0.60, 0.75, 0.45, 0.77, 0.43) / 3, eta = (1, 1, 0.75, 0.75, 0.75):
    # 5 * (0.60 + 0.75 + 0.75 * (0.45 + 1.54 + 0.43)) / 9 = 5 * 3.165 / 9.
    assert _route().loss.item() == pytest.approx(0.01 * 5 * 3.165 / 9, rel=1e-5)
    # With tau = 1 it is that of all experts alike: 5 * (1.35 + 2.42) / 9.
    assert _route(tau=1.0, balance=1.0).loss.item() == pytest.approx(5 * 3.77 / 9, rel=1e-5)


def test_padding_gets_nothing() -> None:
    routing = _route(mask=[True, False, True])
    assert routing.count_T.tolist() == [1, 0, 1]
    assert routing.extra_TD is not None
    assert routing.extra_TD[1].tolist() == [0.0] * 5


def test_force_top1_is_one_expert_of_any_kind() -> None:
    routing = _route(force_top1=True)
    assert assignments(routing) == [(0, 0), (1, 2)]
    torch.testing.assert_close(routing.extra_TD, torch.stack([torch.zeros(5), 0.4 * X[1], torch.zeros(5)]))


def test_without_cheap_experts_it_is_top_k() -> None:
    gate = identity_gate(zero_compute, 5, zeros=0, copies=0, constants=0)
    routing = gate(X, torch.ones(3, dtype=torch.bool))
    assert routing.count_T.tolist() == [2, 2, 2]
    assert routing.extra_TD.abs().sum().item() == 0.0


def test_costs_by_hand() -> None:
    # Router 5 * 5; constant expert: 2 * 5 for the mixture, 5 for its vector.
    assert _gate().macs_per_token == 40


def test_more_than_all_experts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"gate\.k = 6 is more than the 5 experts"):
        _gate(k=6)
