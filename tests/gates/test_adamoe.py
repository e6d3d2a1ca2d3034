"""Null experts: three tokens on paper, the two balance losses, the load at perfect balance."""

from typing import Any

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route

from repro.moe.gates import adamoe
from repro.moe.routing import Routing

# Two true and two null experts; the router is the identity (D = 4) and a token is log p.
#
#            e0   e1   n0   n1     k = 2      true
#   t0      0.4  0.3  0.2  0.1     e0 e1      {0, 1}
#   t1      0.1  0.2  0.4  0.3     n0 n1      none
#   t2      0.3  0.1  0.5  0.1     n0 e0      {0}
PROBS = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.4, 0.3], [0.3, 0.1, 0.5, 0.1]])


def _gate(**options: object) -> Any:
    return identity_gate(adamoe, 2, 4, **{"nulls": 2, "k": 2} | options)


def _route(force_top1: bool = False, mask: list[bool] | None = None, **options: object) -> Routing:
    return route(_gate(**options), PROBS.log(), mask, force_top1=force_top1)


def test_true_experts_by_hand() -> None:
    routing = _route()
    assert assignments(routing) == [(0, 0), (0, 2), (1, 0)]
    assert routing.count_T.tolist() == [2, 0, 1]
    assert routing.load_E.tolist() == [2, 1]
    torch.testing.assert_close(routing.probs_TE, PROBS[:, :2])


def test_weights_are_renormalised_over_the_true_experts() -> None:
    # t0: 0.4 / 0.7 and 0.3 / 0.7; t2: its one true expert has weight 1.
    torch.testing.assert_close(_route().weight_A, torch.tensor([4 / 7, 1.0, 3 / 7]))
    torch.testing.assert_close(_route(combine="raw").weight_A, torch.tensor([0.4, 0.3, 0.3]))


@pytest.mark.parametrize(
    ("rule", "loss"),
    [
        # f = (2, 1, 2, 1) / 3 and P = (0.8, 0.6, 1.1, 0.5) / 3.
        # As released: 4 * (1.6 + 0.6 + 2.2 + 0.5) / 9 = 19.6 / 9.
        ("as_released", 19.6 / 9),
        # Both null experts have the mean 1/2: 4 * ((1.6 + 0.6) / 9 + (1.1 + 0.5) / 6) = 18.4 / 9.
        ("corrected", 18.4 / 9),
    ],
)
def test_balance_losses_by_hand(rule: str, loss: float) -> None:
    assert _route(balance_rule=rule).loss.item() == pytest.approx(0.01 * loss, rel=1e-5)
    assert _route(balance_rule=rule, balance=1.0).loss.item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("rule", "equal"), [("corrected", True), ("as_released", False)])
def test_which_null_expert_is_taken_matters_only_as_released(rule: str, equal: bool) -> None:
    # t1 and t2 twice, and once with the null experts of the second pair swapped: the load moves from
    # n0 to n1, that of the true experts stays.
    same, swapped = PROBS[1:].repeat(2, 1), torch.cat([PROBS[1:], PROBS[1:][:, [0, 1, 3, 2]]])
    gate, mask_T = _gate(balance_rule=rule, balance=1.0), torch.ones(4, dtype=torch.bool)
    losses = [gate(probs_TE.log(), mask_T).loss.item() for probs_TE in (same, swapped)]
    assert (losses[0] == pytest.approx(losses[1], rel=1e-6)) is equal


def test_corrected_is_the_default() -> None:
    assert adamoe.Config().balance_rule == "corrected"


def test_shares_of_the_null_experts_are_averaged() -> None:
    f_M = torch.tensor([2 / 3, 1 / 3, 2 / 3, 1 / 3])
    torch.testing.assert_close(adamoe.average_nulls(f_M, 2), torch.tensor([2 / 3, 1 / 3, 1 / 2, 1 / 2]))


@pytest.mark.parametrize("rule", ["corrected", "as_released"])
@pytest.mark.parametrize(("nulls", "k", "load"), [(4, 3, 1.5), (4, 4, 2.0), (12, 4, 1.0)])
def test_the_load_and_the_loss_at_perfect_balance(rule: str, nulls: int, k: int, load: float) -> None:
    # Token t takes the experts t, t+1, ... t+k-1 (modulo n+m) with probability 1/k each.
    total = 4 + nulls
    gate = identity_gate(adamoe, 4, total, nulls=nulls, k=k, balance_rule=rule, balance=1.0)
    x_TD = sum(torch.eye(total).roll(shift, 1) for shift in range(k))
    routing = gate(100 * x_TD, torch.ones(total, dtype=torch.bool))
    assert float(routing.count_T.double().mean()) == pytest.approx(load)
    assert load == pytest.approx(k * 4 / (4 + nulls))
    assert routing.loss.item() == pytest.approx(k, rel=1e-5)


def test_padding_is_neither_routed_nor_counted() -> None:
    routing = _route(mask=[True, True, False])
    assert routing.count_T.tolist() == [2, 0, 0]
    # f = 1/2 each, P sums to 1: 4 * 1/2 * 1.
    assert routing.loss.item() == pytest.approx(0.02, rel=1e-5)


def test_force_top1_is_the_best_true_expert() -> None:
    routing = _route(force_top1=True)
    assert assignments(routing) == [(0, 0), (0, 2), (1, 1)]
    assert routing.weight_A.tolist() == [1.0, 1.0, 1.0]


def test_more_than_all_experts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"gate\.k = 5 is more than the 2 true and 2 null experts"):
        _gate(k=5)
