"""The parts that softmax gates share: router, ordered selection, combine weights, balance loss."""

from typing import Any

import pytest
import torch
from gates_by_hand import identity_gate

from repro.moe.gates import adaptive, top_k
from repro.moe.gates.base import GateModule
from repro.moe.gates.shared.softmax import Router, balance_loss, best_experts, combine_weights

KINDS: dict[str, tuple[GateModule, dict[str, int]]] = {
    "top-1": (top_k, {"k": 1}),
    "top-2": (top_k, {"k": 2}),
    "adaptive": (adaptive, {}),
}


def _gate(kind: str, num_experts: int) -> Any:
    """A gate of each kind with balance coefficient 1 and an identity router (D = E)."""
    module, options = KINDS[kind]
    return identity_gate(module, num_experts, balance=1.0, **options)


def test_router_is_softmax_of_a_linear_map() -> None:
    router = Router(2, 3, logit_std=1.0)
    with torch.no_grad():
        router.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    # Logits of (log 2, log 5) are (log 2, log 5, 0), so probabilities are (2, 5, 1) / 8.
    probs_TE = router(torch.tensor([[2.0, 5.0]]).log(), torch.tensor([True]))
    torch.testing.assert_close(probs_TE, torch.tensor([[2.0, 5.0, 1.0]]) / 8)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_router_computes_in_at_least_fp32(dtype: torch.dtype, expected: torch.dtype) -> None:
    assert (
        Router(8, 4, 1.0)(torch.randn(3, 8, dtype=dtype), torch.ones(3, dtype=torch.bool)).dtype == expected
    )


@pytest.mark.parametrize("logit_std", [0.0, 0.23, 1.0, 2.8])
def test_initial_logits_on_layer_normed_input_have_the_asked_spread(logit_std: float) -> None:
    # Layer norm gives |x|^2 = D, so a logit sum_d w_d x_d has variance D * logit_std^2 / D.
    torch.manual_seed(0)
    router = Router(256, 64, logit_std)
    x_TD = torch.nn.functional.layer_norm(torch.randn(500, 256), (256,))
    logits_TE = x_TD @ router.weight.t()
    # 64 * 256 weights: the estimate is within 1 / sqrt(2 * 16384) = 0.6 % (one sigma).
    assert logits_TE.std().item() == pytest.approx(logit_std, rel=0.03, abs=1e-12)


def test_fitted_logits_have_the_asked_spread_behind_any_norm() -> None:
    # x = gain z + bias: E |x|^2 = D (gain^2 + bias^2), here D (0.36 + 0.09), so its root mean square is 0.67.
    torch.manual_seed(0)
    router = Router(256, 64, 1.5)
    router.fit(0.45**0.5)
    x_TD = 0.6 * torch.nn.functional.layer_norm(torch.randn(500, 256), (256,)) + 0.3
    # Over the experts of each token; the bias gives every expert a constant that all tokens share.
    assert (x_TD @ router.weight.t()).std(1).mean().item() == pytest.approx(1.5, rel=0.04)
    x_TD = torch.nn.functional.layer_norm(torch.randn(500, 256), (256,))
    assert (x_TD @ router.weight.t()).std().item() == pytest.approx(1.5 / 0.45**0.5, rel=0.03)


def test_best_experts_are_ordered_by_probability() -> None:
    probs_TE = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.05, 0.15, 0.1]])
    assert best_experts(probs_TE, 1).tolist() == [[1], [0]]
    assert best_experts(probs_TE, 2).tolist() == [[1, 3], [0, 2]]
    assert best_experts(probs_TE, 4).tolist() == [[1, 3, 2, 0], [0, 2, 3, 1]]


def test_ties_go_to_the_lowest_index() -> None:
    probs_TE = torch.tensor(
        [
            [0.25, 0.25, 0.25, 0.25],
            [0.1, 0.4, 0.1, 0.4],
            [0.2, 0.2, 0.4, 0.2],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    assert best_experts(probs_TE, 3).tolist() == [[0, 1, 2], [1, 3, 0], [2, 0, 1], [3, 0, 1]]


@pytest.mark.parametrize("num_experts", [5, 16, 64, 257])
def test_ties_go_to_the_lowest_index_at_any_width(num_experts: int) -> None:
    # Widths around the vector registers of a reduction, with ties at the far end.
    probs_TE = torch.zeros(1, num_experts)
    probs_TE[0, num_experts // 2 :] = 1.0
    first = num_experts // 2
    assert best_experts(probs_TE, 2).tolist() == [[first, first + 1]]


def test_best_experts_agree_with_topk_where_there_are_no_ties() -> None:
    torch.manual_seed(0)
    probs_TE = torch.randn(200, 16).softmax(1)
    assert torch.equal(best_experts(probs_TE, 5), probs_TE.topk(5).indices)


def test_best_experts_leave_their_argument_alone() -> None:
    probs_TE = torch.tensor([[0.6, 0.4]])
    best_experts(probs_TE, 2)
    assert probs_TE.tolist() == torch.tensor([[0.6, 0.4]]).tolist()


def test_raw_weights_are_the_probabilities() -> None:
    probs_TE = torch.tensor([[0.5, 0.25, 0.25]])
    selected_TE = torch.tensor([[True, True, False]])
    assert combine_weights(probs_TE, selected_TE, "raw").tolist() == [[0.5, 0.25, 0.25]]


def test_renormalised_weights_sum_to_one_over_the_selected() -> None:
    probs_TE = torch.tensor([[0.5, 0.125, 0.375], [0.5, 0.125, 0.375], [0.5, 0.125, 0.375]])
    selected_TE = torch.tensor([[True, True, False], [False, False, True], [True, True, True]])
    # Row 0: total 5/8, weights 0.5 / 0.625 = 0.8 and 0.125 / 0.625 = 0.2.
    # Row 1: one expert, weight 1. Row 2: total 1, weights as they are.
    expected = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.0, 1.0], [0.5, 0.125, 0.375]])
    torch.testing.assert_close(combine_weights(probs_TE, selected_TE, "renormalised"), expected)


def test_renormalising_a_token_without_experts_stays_finite() -> None:
    probs_TE = torch.tensor([[0.5, 0.5], [0.25, 0.75]], requires_grad=True)
    selected_TE = torch.tensor([[False, False], [True, True]])
    weights_TE = combine_weights(probs_TE, selected_TE, "renormalised")
    assert weights_TE[0].tolist() == [0.0, 0.0]
    (grad_TE,) = torch.autograd.grad(weights_TE[:, 0].sum(), probs_TE)
    # Row 1: w0 = a / (a + b), so dw0/da = b / (a + b)^2 = 0.75 and dw0/db = -a / (a + b)^2 = -0.25.
    torch.testing.assert_close(grad_TE, torch.tensor([[0.0, 0.0], [0.75, -0.25]]))


def test_straight_through_by_hand() -> None:
    probs_TE = torch.tensor([[0.5, 0.125, 0.375], [0.5, 0.125, 0.375]], requires_grad=True)
    selected_TE = torch.tensor([[True, True, False], [False, False, True]])
    weights_TE = combine_weights(probs_TE, selected_TE, "straight-through")
    # Row 0: 0.5 / 0.625 and 0.125 / 0.625. Row 1: 1 + p - sg(p) = 1.
    assert weights_TE[selected_TE].tolist() == pytest.approx([0.8, 0.2, 1.0])
    # dw / dp is 1 for the expert's own p and 0 for all others, as of w = p.
    (grad_TE,) = torch.autograd.grad(
        2 * weights_TE[0, 0] + 3 * weights_TE[0, 1] + 5 * weights_TE[1, 2], probs_TE
    )
    assert grad_TE.tolist() == [[2.0, 3.0, 0.0], [0.0, 0.0, 5.0]]
    # One expert with a weight of sum 1 would have none.
    rescaled_TE = combine_weights(probs_TE, selected_TE, "renormalised")
    (grad_TE,) = torch.autograd.grad(rescaled_TE[1, 2], probs_TE)
    assert grad_TE.tolist() == [[0.0] * 3] * 2


def test_balance_loss_by_hand() -> None:
    # First choices 0, 1, 0; all three counted: f = (2/3, 1/3).
    # P_0 = (0.75 + 0.25 + 0.5) / 3 = 0.5, P_1 = 0.5. Loss = 2 * (2/3 * 0.5 + 1/3 * 0.5) = 1.
    probs_TE = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    first_T, real_T = torch.tensor([0, 1, 0]), torch.ones(3, dtype=torch.bool)
    assert balance_loss(first_T, real_T, probs_TE, real_T).item() == pytest.approx(1.0)
    # Only token 0 counted: f = (1, 0), P over all three as before. Loss = 2 * 1 * 0.5 = 1.
    # Only tokens 0 and 1 real, token 0 counted: P_0 = 0.5 again; with tokens 0 and 2 real, P_0 = 0.625
    # and the loss is 2 * 1 * 0.625 = 1.25.
    counted_T = torch.tensor([True, False, False])
    assert balance_loss(first_T, counted_T, probs_TE, real_T).item() == pytest.approx(1.0)
    real_T = torch.tensor([True, False, True])
    assert balance_loss(first_T, counted_T, probs_TE, real_T).item() == pytest.approx(1.25)


def test_balance_loss_gradient_by_hand() -> None:
    # d loss / d p_te = E f_e / T for real tokens: f = (1, 0), E = 2, two real tokens: 1 and 0.
    probs_TE = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.9, 0.1]], requires_grad=True)
    counted_T, mask_T = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    (grad_TE,) = torch.autograd.grad(
        balance_loss(torch.tensor([0, 0, 1]), counted_T, probs_TE, mask_T), probs_TE
    )
    assert grad_TE.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def test_uniform_routing_costs_exactly_one() -> None:
    num_experts = 8
    first_T = torch.arange(3 * num_experts) % num_experts
    probs_TE = torch.full((3 * num_experts, num_experts), 1 / num_experts)
    mask_T = torch.ones(3 * num_experts, dtype=torch.bool)
    assert balance_loss(first_T, mask_T, probs_TE, mask_T).item() == 1.0


def test_total_collapse_costs_exactly_the_number_of_experts() -> None:
    num_experts = 8
    first_T = torch.full((24,), 5)
    probs_TE = torch.nn.functional.one_hot(first_T, num_experts).float()
    mask_T = torch.ones(24, dtype=torch.bool)
    assert balance_loss(first_T, mask_T, probs_TE, mask_T).item() == 8.0


# With an identity router, logits (200, 0, ..., 0) have probabilities exactly (1, 0, ..., 0) in fp32,
# because exp(-200) underflows. The gap is then 1, so the adaptive gate gives every token one expert.


@pytest.mark.parametrize("kind", KINDS)
def test_gates_pay_one_for_uniform_routing(kind: str) -> None:
    x_TD = 200 * torch.eye(8).repeat(2, 1)
    routing = _gate(kind, 8)(x_TD, torch.ones(16, dtype=torch.bool))
    assert routing.loss.item() == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_gates_pay_the_number_of_experts_for_collapse(kind: str) -> None:
    x_TD = 200 * torch.eye(8)[3].repeat(16, 1)
    routing = _gate(kind, 8)(x_TD, torch.ones(16, dtype=torch.bool))
    assert routing.loss.item() == 8.0


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_enter_the_loss_of_gates(kind: str) -> None:
    # Eight real tokens, one per expert; eight padding tokens that would all collapse on expert 0.
    x_TD = 200 * torch.cat([torch.eye(8), torch.eye(8)[0].repeat(8, 1)])
    mask_T = torch.arange(16) < 8
    assert _gate(kind, 8)(x_TD, mask_T).loss.item() == 1.0


def test_padding_does_not_enter_the_balance_loss_even_if_it_is_nan() -> None:
    probs_TE = torch.tensor([[0.75, 0.25], [torch.nan, torch.nan], [0.5, 0.5]])
    first_T, mask_T = torch.tensor([0, 1, 1]), torch.tensor([True, False, True])
    # f = (1/2, 1/2), P sums to 1 over the real tokens: loss = 2 * 1/2 * 1 = 1.
    counted_T = torch.ones(3, dtype=torch.bool)
    assert balance_loss(first_T, counted_T, probs_TE, mask_T).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("counted", "mask"),
    [
        ([False, False, False], [True, True, True]),
        ([True, True, True], [False, False, False]),
        ([True, False, True], [False, True, False]),
    ],
    ids=["none-counted", "all-padding", "only-padding-counted"],
)
def test_without_counted_tokens_the_loss_and_its_gradient_are_zero(
    counted: list[bool], mask: list[bool]
) -> None:
    torch.manual_seed(0)
    logits_TE = torch.randn(3, 4, requires_grad=True)
    loss = balance_loss(
        torch.tensor([0, 1, 2]), torch.tensor(counted), logits_TE.softmax(1), torch.tensor(mask)
    )
    assert loss.item() == 0.0
    (grad_TE,) = torch.autograd.grad(loss, logits_TE)
    assert torch.equal(grad_TE, torch.zeros(3, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_gates_without_real_tokens_have_zero_loss_and_gradient(kind: str) -> None:
    gate = _gate(kind, 4)
    routing = gate(torch.randn(6, 4), torch.zeros(6, dtype=torch.bool))
    assert routing.loss.item() == 0.0
    routing.loss.backward()
    assert torch.equal(gate.router.weight.grad, torch.zeros(4, 4))
