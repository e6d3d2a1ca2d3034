"""The gate of the paper: three tokens on paper, its threshold, its normalisations, its known shares."""

import math

import pytest
import torch
from gates_by_hand import FixedRouter, assignments, identity_gate, route
from torch import Tensor, nn

from repro.moe.gates import adaptive
from repro.moe.gates.shared.gaps import Normalisation, gap
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p, so its probabilities are p.
#
#            e0    e1    e2    e3     first  second   pair gap               T = 0.1
#   t0      0.60  0.20  0.10  0.10      0      1      0.40 / 0.80 = 0.5      one:  {0}
#   t1      0.32  0.08  0.36  0.24      2      0      0.04 / 0.68 = 0.0588   two:  {2, 0}
#   t2      0.10  0.50  0.10  0.30      1      3      0.20 / 0.80 = 0.25     one:  {1}
PROBS = torch.tensor([[0.60, 0.20, 0.10, 0.10], [0.32, 0.08, 0.36, 0.24], [0.10, 0.50, 0.10, 0.30]])


def _route(force_top1: bool = False, mask: list[bool] | None = None, **options: object) -> Routing:
    return route(identity_gate(adaptive, **options), PROBS.log(), mask, force_top1=force_top1)


def _counts(probs: list[list[float]], **options: object) -> list[int]:
    """Experts of each token for exactly these probabilities."""
    probs_TE = torch.tensor(probs)
    gate = identity_gate(adaptive, **options)
    gate.router = FixedRouter(probs_TE)
    mask_T = torch.ones(probs_TE.shape[0], dtype=torch.bool)
    counts: list[int] = gate(torch.zeros(probs_TE.shape[0], 4), mask_T).count_T.tolist()
    return counts


# --- three tokens on paper ---------------------------------------------------------------------------


def test_selected_experts() -> None:
    routing = _route()
    assert assignments(routing) == [(0, 0), (0, 1), (1, 2), (2, 1)]
    assert routing.load_E.tolist() == [2, 1, 1, 0]
    assert routing.count_T.tolist() == [1, 2, 1]
    torch.testing.assert_close(routing.probs_TE, PROBS)


def test_raw_weights_are_probabilities() -> None:
    torch.testing.assert_close(_route().weight_A, torch.tensor([0.60, 0.32, 0.50, 0.36]))


def test_renormalised_weights() -> None:
    # One expert: 1. Two experts of t1: 0.32 / 0.68 = 8/17 and 0.36 / 0.68 = 9/17.
    expected = torch.tensor([1.0, 8 / 17, 1.0, 9 / 17])
    torch.testing.assert_close(_route(combine="renormalised").weight_A, expected)


@pytest.mark.parametrize("combine", ["raw", "renormalised"])
def test_balance_loss_of_equation_4(combine: str) -> None:
    # f over the one-expert tokens t0 and t2, whose experts are 0 and 1: f = (1/2, 1/2, 0, 0).
    # P over all tokens: P_0 = (0.60 + 0.32 + 0.10) / 3 = 0.34, P_1 = (0.20 + 0.08 + 0.50) / 3 = 0.26.
    # E sum f P = 4 * (0.34 + 0.26) / 2 = 1.2; times 0.01.
    assert _route(combine=combine).loss.item() == pytest.approx(0.012, rel=1e-6)


def test_a_higher_threshold_moves_tokens_to_two_experts_and_out_of_f() -> None:
    # At T = 0.3 the gap of t2, 0.25, is below it too: t0 alone is counted, f = (1, 0, 0, 0).
    # E sum f P = 4 * 0.34 = 1.36; times 0.01.
    routing = _route(threshold=0.3)
    assert assignments(routing) == [(0, 0), (0, 1), (1, 2), (2, 1), (3, 2)]
    assert routing.loss.item() == pytest.approx(0.0136, rel=1e-6)


def test_padding_is_neither_routed_nor_counted() -> None:
    routing = _route(mask=[False, True, True])
    assert assignments(routing) == [(0, 1), (1, 2), (2, 1)]
    assert routing.count_T.tolist() == [0, 2, 1]
    # f over t2 alone: (0, 1, 0, 0). P_1 over t1 and t2: (0.08 + 0.50) / 2 = 0.29. 4 * 0.29 * 0.01:
    assert routing.loss.item() == pytest.approx(0.0116, rel=1e-6)


@pytest.mark.parametrize(("combine", "weights"), [("raw", [0.60, 0.50, 0.36]), ("renormalised", [1, 1, 1])])
def test_force_top1_gives_each_token_its_best_expert_alone(combine: str, weights: list[float]) -> None:
    routing = _route(combine=combine, force_top1=True)
    assert assignments(routing) == [(0, 0), (1, 2), (2, 1)]
    torch.testing.assert_close(routing.weight_A, torch.tensor(weights, dtype=torch.float32))
    # Every token is now a one-expert token: f = (1/3, 1/3, 1/3, 0), P_2 = 0.56 / 3.
    # 4 * (0.34 + 0.26 + 0.186667) / 3 * 0.01:
    assert routing.loss.item() == pytest.approx(0.010488889, rel=1e-6)


def test_force_top1_holds_at_every_threshold() -> None:
    assert _route(force_top1=True, threshold=1.0).count_T.tolist() == [1, 1, 1]


# --- the gap and the threshold -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        # p = (0.5, 0.25, 0.125, 0.125):        p1 - p2 = 1/4,  p1 + p2 = 3/4,  p1 - p4 = 3/8
        # p = (0.0625, 0.4375, 0.1875, 0.3125): p1 - p2 = 1/8,  p1 + p2 = 3/4,  p1 - p4 = 3/8
        # p = (0.125, 0.375, 0.125, 0.375):     p1 - p2 = 0
        # p = (0, 0, 1, 0):                     p1 - p2 = 1,    p1 + p2 = 1,    p1 - p4 = 1
        ("raw", [1 / 4, 1 / 8, 0.0, 1.0]),
        ("pair", [1 / 3, 1 / 6, 0.0, 1.0]),
        ("max", [1 / 2, 2 / 7, 0.0, 1.0]),
        ("minmax", [2 / 3, 1 / 3, 0.0, 1.0]),
    ],
)
def test_gap_by_hand(normalisation: Normalisation, expected: list[float]) -> None:
    probs_TE = torch.tensor(
        [
            [0.5, 0.25, 0.125, 0.125],
            [0.0625, 0.4375, 0.1875, 0.3125],
            [0.125, 0.375, 0.125, 0.375],
            [0.0, 0.0, 1.0, 0.0],
        ]
    )
    torch.testing.assert_close(gap(probs_TE, normalisation), torch.tensor(expected))


@pytest.mark.parametrize("normalisation", ["pair", "raw", "max", "minmax"])
def test_gap_is_zero_when_all_experts_are_equal(normalisation: Normalisation) -> None:
    assert gap(torch.full((2, 4), 0.25), normalisation).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("normalisation", ["pair", "raw", "max", "minmax"])
def test_gap_lies_between_0_and_1(normalisation: Normalisation) -> None:
    torch.manual_seed(0)
    for spread in (0.01, 1.0, 30.0):
        gap_T = gap((spread * torch.randn(500, 16)).softmax(1), normalisation)
        assert float(gap_T.min()) >= 0.0
        assert float(gap_T.max()) <= 1.0


# Probabilities with a gap of exactly 1/4, all steps exact in binary:
#   raw, pair   (0.625, 0.375, 0, 0): 0.25, and 0.25 / 1
#   max, minmax (0.5, 0.375, 0.125, 0): 0.125 / 0.5, and 0.125 / (0.5 - 0)
EXACT = {
    "raw": [0.625, 0.375, 0.0, 0.0],
    "pair": [0.625, 0.375, 0.0, 0.0],
    "max": [0.5, 0.375, 0.125, 0.0],
    "minmax": [0.5, 0.375, 0.125, 0.0],
}


@pytest.mark.parametrize("normalisation", EXACT)
def test_threshold_is_inclusive(normalisation: Normalisation) -> None:
    assert gap(torch.tensor([EXACT[normalisation]]), normalisation).tolist() == [0.25]
    probs = [EXACT[normalisation]]
    assert _counts(probs, normalisation=normalisation, threshold=0.25) == [2]
    # The next fp32 number below 1/4 is 1/4 - 2^-26.
    assert _counts(probs, normalisation=normalisation, threshold=0.25 - 2**-26) == [1]


@pytest.mark.parametrize("normalisation", ["pair", "raw", "max", "minmax"])
def test_equal_probabilities_give_two_experts_even_at_threshold_0(normalisation: Normalisation) -> None:
    probs = [[0.25, 0.25, 0.25, 0.25], [0.125, 0.375, 0.125, 0.375], [0.375, 0.25, 0.25, 0.125]]
    # All equal; the two best equal; the two best apart.
    assert _counts(probs, normalisation=normalisation, threshold=0.0) == [2, 2, 1]


def test_equal_probabilities_choose_the_two_lowest_experts() -> None:
    gate = identity_gate(adaptive, threshold=0.0)
    routing = gate(torch.zeros(2, 4), torch.ones(2, dtype=torch.bool))
    assert assignments(routing) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert routing.weight_A.tolist() == [0.25, 0.25, 0.25, 0.25]


def test_threshold_1_under_pair_always_gives_two_experts() -> None:
    torch.manual_seed(0)
    # Spread 60 makes the second probability underflow to 0 for some tokens: the gap is then exactly 1.
    x_TD = 60 * torch.randn(500, 4)
    routing = identity_gate(adaptive, threshold=1.0)(x_TD, torch.ones(500, dtype=torch.bool))
    assert bool((gap(routing.probs_TE, "pair") == 1).any())
    assert routing.count_T.tolist() == [2] * 500
    # With the same tokens, just below 1, those with gap 1 get one expert.
    fewer = identity_gate(adaptive, threshold=0.999)(x_TD, torch.ones(500, dtype=torch.bool))
    assert int(fewer.count_T.min()) == 1


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2, 0.3, 0.4, 0.9])
def test_pair_rule_is_a_rule_on_the_gap_of_two_logits(threshold: float) -> None:
    torch.manual_seed(0)
    logits_TE = 2 * torch.randn(4000, 16)
    best_T2 = logits_TE.topk(2).values
    margin_T = best_T2[:, 0] - best_T2[:, 1] - 2 * math.atanh(threshold)
    clear_T = margin_T.abs() > 1e-4
    two_T = gap(logits_TE.softmax(1), "pair") <= threshold
    assert torch.equal(two_T[clear_T], margin_T[clear_T] <= 0)
    assert int(clear_T.sum()) > 3900
    assert 0 < int(two_T.sum()) < 4000


# Share of two-expert tokens at 16 experts with i.i.d. Gaussian logits of standard deviation s: our own
# simulation with 200 000 draws in another program. Two standard errors of 50 000 draws are 0.0045.
SHARES: dict[tuple[Normalisation, float], dict[float, float]] = {
    ("pair", 0.1): {0.5: 0.54, 1: 0.31, 2: 0.17, 3: 0.11},
    ("pair", 0.2): {0.5: 0.81, 1: 0.54, 2: 0.31, 3: 0.22},
    ("raw", 0.1): {0.5: 0.96, 1: 0.64, 2: 0.29, 3: 0.17},
    ("max", 0.1): {0.5: 0.32, 1: 0.17, 2: 0.09, 3: 0.06},
    ("minmax", 0.1): {0.5: 0.26, 1: 0.17, 2: 0.09, 3: 0.06},
}


@pytest.mark.parametrize("spread", [0.5, 1, 2, 3])
def test_expected_share_of_two_expert_tokens(spread: float) -> None:
    torch.manual_seed(0)
    probs_TE = (spread * torch.randn(50_000, 16)).softmax(1)
    for (normalisation, threshold), by_spread in SHARES.items():
        share = float((gap(probs_TE, normalisation) <= threshold).double().mean())
        assert share == pytest.approx(by_spread[spread], abs=0.015), (normalisation, threshold)


def test_the_gate_has_the_expected_share_on_layer_normed_input() -> None:
    # Logits of one fresh router are Gaussian with std `logit_std`; over many routers the share at
    # T = 0.1 is 0.31 for std 1 and 0.54 for std 0.5.
    torch.manual_seed(0)
    x_TD = nn.functional.layer_norm(torch.randn(2000, 64), (64,))
    mask_T = torch.ones(2000, dtype=torch.bool)
    for logit_std, expected in ((1.0, 0.31), (0.5, 0.54)):
        config = adaptive.Config(logit_std=logit_std)
        counts = torch.cat([adaptive.Gate(config, 64, 16)(x_TD, mask_T).count_T for _ in range(10)])
        assert float((counts == 2).double().mean()) == pytest.approx(expected, abs=0.03)


# --- gradients ---------------------------------------------------------------------------------------


def _router_gradient(combine: str) -> tuple[Tensor, Tensor]:
    gate = identity_gate(adaptive, combine=combine, balance=0.0)
    x_TD = PROBS[:1].log()
    routing = gate(x_TD, torch.tensor([True]))
    assert routing.count_T.tolist() == [1]
    (3.0 * routing.weight_A.sum()).backward()
    return gate.router.weight.grad, x_TD


def test_task_gradient_reaches_the_router_from_one_expert_tokens_with_raw_weights() -> None:
    # d p_0 / d z_e = p_0 ([e = 0] - p_e) = 0.6 * (0.4, -0.2, -0.1, -0.1); times 3, times x.
    grad_ED, x_TD = _router_gradient("raw")
    torch.testing.assert_close(grad_ED, torch.tensor([0.72, -0.36, -0.18, -0.18])[:, None] * x_TD)


def test_renormalising_starves_the_router_on_one_expert_tokens() -> None:
    # The weight is p / p = 1 whatever the logits are.
    grad_ED, _ = _router_gradient("renormalised")
    torch.testing.assert_close(grad_ED, torch.zeros(4, 4), rtol=0, atol=1e-6)


def test_balance_loss_is_zero_when_every_token_gets_two_experts() -> None:
    gate = identity_gate(adaptive, threshold=1.0)
    routing = gate(PROBS.log(), torch.ones(3, dtype=torch.bool))
    assert routing.count_T.tolist() == [2, 2, 2]
    assert routing.loss.item() == 0.0
    routing.loss.backward()
    assert torch.equal(gate.router.weight.grad, torch.zeros(4, 4))


def test_fewer_than_two_experts_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 2 experts"):
        adaptive.Gate(adaptive.Config(), 4, 1)
