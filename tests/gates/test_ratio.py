"""The ratio rule: by hand, its equivalence to `adaptive` with `pair`, its calibration."""

import pytest
import torch
from gates_by_hand import FixedRouter, assignments, identity_gate, route
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.moe.gates import adaptive, ratio
from repro.moe.gates.shared.gaps import gap
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p.
#
#            e0    e1    e2    e3     p2 / p1
#   t0      0.60  0.20  0.10  0.10    1/3
#   t1      0.32  0.08  0.36  0.24    8/9
#   t2      0.10  0.50  0.10  0.30    3/5
PROBS = torch.tensor([[0.60, 0.20, 0.10, 0.10], [0.32, 0.08, 0.36, 0.24], [0.10, 0.50, 0.10, 0.30]])


def _route(force_top1: bool = False, **options: object) -> Routing:
    return route(identity_gate(ratio, **options), PROBS.log(), force_top1=force_top1)


@pytest.mark.parametrize(
    ("beta", "counts"),
    [(0.3, [2, 2, 2]), (0.4, [1, 2, 2]), (0.7, [1, 2, 1]), (0.95, [1, 1, 1]), (0.0, [2, 2, 2])],
)
def test_counts_by_hand(beta: float, counts: list[int]) -> None:
    assert _route(beta=beta).count_T.tolist() == counts


def test_weights_and_loss_by_hand() -> None:
    routing = _route(beta=0.5)
    assert assignments(routing) == [(0, 0), (0, 1), (1, 2), (2, 1), (3, 2)]
    torch.testing.assert_close(routing.weight_A, torch.tensor([0.60, 0.32, 0.50, 0.36, 0.30]))
    # f over t0, the one token with one expert: (1, 0, 0, 0); P_0 = 1.02 / 3 = 0.34; 4 * 0.34 * 0.01.
    assert routing.loss.item() == pytest.approx(0.0136, rel=1e-6)
    # Renormalised: 1; 8/17; 5/8; 9/17; 3/8.
    expected = torch.tensor([1.0, 8 / 17, 5 / 8, 9 / 17, 3 / 8])
    torch.testing.assert_close(_route(beta=0.5, combine="renormalised").weight_A, expected)


def test_force_top1_is_one_expert() -> None:
    assert assignments(_route(beta=0.0, force_top1=True)) == [(0, 0), (1, 2), (2, 1)]


def test_the_bound_is_inclusive() -> None:
    gate = identity_gate(ratio, beta=0.5)
    probs_TE = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.5, 0.249, 0.126, 0.125]])
    gate.router = FixedRouter(probs_TE)
    assert gate(probs_TE, torch.ones(2, dtype=torch.bool)).count_T.tolist() == [2, 1]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.1, 1.0, 3.0]),
    threshold=st.floats(0.01, 0.95),
)
def test_it_is_adaptive_with_pair(seed: int, spread: float, threshold: float) -> None:
    # (p1-p2)/(p1+p2) <= T iff p1 - p2 <= T p1 + T p2 iff p2/p1 >= (1-T)/(1+T).
    generator = torch.Generator().manual_seed(seed)
    x_TD = spread * torch.randn(200, 8, generator=generator)
    plain = identity_gate(adaptive, 8, threshold=threshold, normalisation="pair")
    gate = identity_gate(ratio, 8, beta=(1 - threshold) / (1 + threshold))
    mask_T = torch.ones(200, dtype=torch.bool)
    # Tokens at the threshold up to rounding may go either way.
    clear_T = (gap(plain.router(x_TD, mask_T), "pair") - threshold).abs() > 1e-5
    x_TD, mask_T = x_TD[clear_T], mask_T[clear_T]
    actual, expected = gate(x_TD, mask_T), plain(x_TD, mask_T)
    assert assignments(actual) == assignments(expected)
    assert torch.equal(actual.weight_A, expected.weight_A)
    assert torch.equal(actual.loss, expected.loss)
    assert len(x_TD) > 190


# --- calibration -------------------------------------------------------------------------------------


def test_quantiles_by_hand() -> None:
    mask_T = torch.tensor([True, True, False, True])
    values_T = torch.tensor([0.9, 0.3, torch.nan, 0.6])
    # Of 0.3, 0.6, 0.9: the median, the ends, and 1/4 of the way, halfway between 0.3 and 0.6.
    for share, expected in ((0.5, 0.6), (0.0, 0.3), (1.0, 0.9), (0.25, 0.45)):
        assert ratio.masked_quantile(values_T, mask_T, share).item() == pytest.approx(expected, rel=1e-6)


def test_quantiles_are_those_of_torch() -> None:
    torch.manual_seed(0)
    values_T, mask_T = torch.rand(301), torch.rand(301) < 0.7
    for share in (0.1, 0.37, 0.8):
        actual = ratio.masked_quantile(values_T, mask_T, share)
        torch.testing.assert_close(actual, values_T[mask_T].quantile(share), rtol=1e-4, atol=1e-5)


def test_steps_by_hand() -> None:
    # share 0.5: the median of 1/3, 8/9, 3/5 is 3/5, and the first batch replaces the start.
    gate, mask_T = identity_gate(ratio, beta=0.2, share=0.5), torch.ones(3, dtype=torch.bool)
    gate.update_state(gate(PROBS.log(), mask_T))
    assert gate.beta.item() == pytest.approx(0.6, rel=1e-5)
    # The second has t1 alone: (0.6 + 8/9) / 2.
    gate.update_state(gate(PROBS.log(), torch.tensor([False, True, False])))
    assert gate.beta.item() == pytest.approx((0.6 + 8 / 9) / 2, rel=1e-5)
    assert gate.batches.item() == 2


def test_later_batches_count_by_the_rate() -> None:
    gate, mask_T = identity_gate(ratio, share=0.5, rate=0.5), torch.tensor([False, True, False])
    for _ in range(3):
        gate.update_state(gate(PROBS.log(), mask_T))
    gate.update_state(gate(PROBS.log(), torch.tensor([True, False, False])))
    # 8/9 so far; then half of it and half of 1/3.
    assert gate.beta.item() == pytest.approx((8 / 9 + 1 / 3) / 2, rel=1e-5)


def test_without_a_share_beta_stays() -> None:
    gate, mask_T = identity_gate(ratio, beta=0.2), torch.ones(3, dtype=torch.bool)
    gate.update_state(gate(PROBS.log(), mask_T))
    assert gate.beta.item() == pytest.approx(0.2)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
def test_the_share_is_within_a_point_of_the_target_after_warm_up(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gate, mask_T = identity_gate(ratio, 16, share=share), torch.ones(500, dtype=torch.bool)
    for _ in range(150):
        with torch.no_grad():
            gate.update_state(gate(2 * torch.randn(500, 16, generator=generator), mask_T))
    with torch.no_grad():
        fresh = gate(2 * torch.randn(40_000, 16, generator=generator), torch.ones(40_000, dtype=torch.bool))
    assert float((fresh.count_T == 2).double().mean()) == pytest.approx(share, abs=0.01)
