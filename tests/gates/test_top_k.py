"""Top-k gating on three tokens worked on paper."""

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route
from torch import Tensor

from repro.moe.gates import top_k
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p, so its probabilities are p.
#
#            e0    e1    e2    e3     first  second
#   t0      0.60  0.20  0.10  0.10      0      1
#   t1      0.32  0.08  0.36  0.24      2      0
#   t2      0.10  0.50  0.10  0.30      1      3
PROBS = torch.tensor([[0.60, 0.20, 0.10, 0.10], [0.32, 0.08, 0.36, 0.24], [0.10, 0.50, 0.10, 0.30]])

# First choices 0, 2, 1: f = (1/3, 1/3, 1/3, 0).
# P = ((0.60 + 0.32 + 0.10) / 3, (0.20 + 0.08 + 0.50) / 3, (0.10 + 0.36 + 0.10) / 3, ...)
#   = (0.34, 0.26, 0.56 / 3, ...).
# E sum f P = 4 * (0.34 + 0.26 + 0.186667) / 3 = 4 * 0.786667 / 3 = 1.0488889; times 0.01:
LOSS = 0.010488889


def _route(
    force_top1: bool = False,
    mask: list[bool] | None = None,
    probs: Tensor = PROBS,
    **options: object,
) -> Routing:
    return route(identity_gate(top_k, **options), probs.log(), mask, force_top1=force_top1)


def test_probabilities_are_those_on_paper() -> None:
    torch.testing.assert_close(_route().probs_TE, PROBS)


def test_top_2_selects_the_two_best() -> None:
    routing = _route(k=2)
    assert assignments(routing) == [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (3, 2)]
    assert routing.load_E.tolist() == [2, 2, 1, 1]
    assert routing.count_T.tolist() == [2, 2, 2]


def test_top_2_raw_weights_are_probabilities() -> None:
    expected = torch.tensor([0.60, 0.32, 0.20, 0.50, 0.36, 0.30])
    torch.testing.assert_close(_route(k=2).weight_A, expected)


def test_top_2_renormalised_weights() -> None:
    # Selected totals: t0 0.60 + 0.20 = 0.80, t1 0.36 + 0.32 = 0.68, t2 0.50 + 0.30 = 0.80.
    # (e0,t0) 0.60/0.80 = 0.75, (e0,t1) 0.32/0.68 = 8/17, (e1,t0) 0.20/0.80 = 0.25,
    # (e1,t2) 0.50/0.80 = 0.625, (e2,t1) 0.36/0.68 = 9/17, (e3,t2) 0.30/0.80 = 0.375.
    expected = torch.tensor([0.75, 8 / 17, 0.25, 0.625, 9 / 17, 0.375])
    torch.testing.assert_close(_route(k=2, combine="renormalised").weight_A, expected)


def test_top_1_is_switch() -> None:
    routing = _route(k=1)
    assert assignments(routing) == [(0, 0), (1, 2), (2, 1)]
    torch.testing.assert_close(routing.weight_A, torch.tensor([0.60, 0.50, 0.36]))
    torch.testing.assert_close(_route(k=1, combine="renormalised").weight_A, torch.ones(3))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("combine", ["raw", "renormalised"])
def test_balance_loss_counts_first_choices_whatever_k(k: int, combine: str) -> None:
    assert _route(k=k, combine=combine).loss.item() == pytest.approx(LOSS, rel=1e-6)


def test_balance_coefficient_multiplies_the_loss() -> None:
    assert _route(balance=0.5).loss.item() == pytest.approx(50 * LOSS, rel=1e-6)
    assert _route(balance=0.0).loss.item() == 0.0


def test_padding_is_neither_routed_nor_counted() -> None:
    routing = _route(k=2, mask=[True, False, True])
    assert assignments(routing) == [(0, 0), (1, 0), (1, 2), (3, 2)]
    assert routing.count_T.tolist() == [2, 0, 2]
    # f = (1/2, 1/2, 0, 0); P_0 = (0.60 + 0.10) / 2 = 0.35, P_1 = (0.20 + 0.50) / 2 = 0.35.
    # 4 * (0.35 + 0.35) / 2 = 1.4; times 0.01.
    assert routing.loss.item() == pytest.approx(0.014, rel=1e-6)


def test_all_experts_can_be_chosen() -> None:
    routing = _route(k=4)
    assert routing.load_E.tolist() == [3, 3, 3, 3]
    # Ordered by expert, then token: the probabilities column by column; they sum to 1 per token.
    torch.testing.assert_close(routing.weight_A, PROBS.t().reshape(-1))


def test_ties_choose_the_lowest_experts() -> None:
    routing = _route(k=2, probs=torch.full((3, 4), 0.25))
    assert assignments(routing) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("combine", ["raw", "renormalised"])
def test_force_top1_is_top_1(combine: str) -> None:
    best, top_1 = _route(k=2, combine=combine, force_top1=True), _route(k=1, combine=combine)
    assert assignments(best) == assignments(top_1) == [(0, 0), (1, 2), (2, 1)]
    assert torch.equal(best.weight_A, top_1.weight_A)
    assert torch.equal(best.loss, top_1.loss)


def test_the_weights_carry_gradient_to_the_router() -> None:
    gate = identity_gate(top_k, k=1, balance=0.0)
    x_TD = PROBS[:1].log()
    gate(x_TD, torch.tensor([True])).weight_A.sum().backward()
    # d p_0 / d z_e = p_0 ([e = 0] - p_e) = 0.6 * (0.4, -0.2, -0.1, -0.1); times x for the weights.
    grad_E = torch.tensor([0.24, -0.12, -0.06, -0.06])
    torch.testing.assert_close(gate.router.weight.grad, grad_E[:, None] * x_TD)


def test_more_than_all_experts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"gate\.k = 5 is more than the 4 experts"):
        top_k.Gate(top_k.Config(k=5), 4, 4)


def test_one_expert_is_enough_for_top_1() -> None:
    routing = top_k.Gate(top_k.Config(k=1), 4, 1)(torch.randn(3, 4), torch.ones(3, dtype=torch.bool))
    # The softmax over one expert is 1; f = P = 1, so the loss is 1 * 0.01.
    assert routing.weight_A.tolist() == [1.0, 1.0, 1.0]
    assert routing.loss.item() == pytest.approx(0.01)
