"""Up to K experts while neighbouring ranks are close; K = 2 is the gate of the paper."""

from typing import Any

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.moe.gates import adaptive, adaptive_k
from repro.moe.gates.shared.gaps import Normalisation, neighbour_gaps
from repro.moe.gates.shared.softmax import best_experts
from repro.moe.routing import Routing

NORMALISATIONS: list[Normalisation] = ["pair", "raw", "max", "minmax"]

# The router is the identity (D = E = 4) and a token is log p, so its probabilities are p.
#
#            e0    e1    e2    e3     ranks        pair gaps
#   t0      0.40  0.30  0.20  0.10    0 1 2 3      1/7 = 0.143, 1/5 = 0.2, 1/3 = 0.333
#   t1      0.10  0.40  0.10  0.40    1 3 0 2      0, 3/5 = 0.6, 0
#   t2      0.15  0.60  0.10  0.15    1 0 3 2      0.45 / 0.75 = 0.6, 0, 0.2
PROBS = torch.tensor([[0.40, 0.30, 0.20, 0.10], [0.10, 0.40, 0.10, 0.40], [0.15, 0.60, 0.10, 0.15]])


def _route(force_top1: bool = False, **options: object) -> Routing:
    return route(identity_gate(adaptive_k, **options), PROBS.log(), force_top1=force_top1)


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        # p = (8, 4, 2, 2) / 16, differences (4, 2, 0) / 16:
        # pair 4/12, 2/6, 0; max, by p1: 4/8, 2/8, 0; minmax, by p1 - p4 = 6/16: 4/6, 2/6, 0.
        ("raw", [1 / 4, 1 / 8, 0.0]),
        ("pair", [1 / 3, 1 / 3, 0.0]),
        ("max", [1 / 2, 1 / 4, 0.0]),
        ("minmax", [2 / 3, 1 / 3, 0.0]),
    ],
)
def test_neighbour_gaps_by_hand(normalisation: Normalisation, expected: list[float]) -> None:
    probs_TE = torch.tensor([[0.125, 0.5, 0.125, 0.25]])
    gaps_TR = neighbour_gaps(probs_TE, best_experts(probs_TE, 4), normalisation)
    torch.testing.assert_close(gaps_TR, torch.tensor([expected]))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_gaps_of_underflowed_probabilities_are_numbers(normalisation: Normalisation) -> None:
    probs_TE = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    gaps_TR = neighbour_gaps(probs_TE, best_experts(probs_TE, 4), normalisation)
    assert gaps_TR.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        # The run of t0 ends at the gap above T; that of t2 never passes 0.6, though later gaps are small.
        ({"threshold": 0.15}, [2, 2, 1]),
        ({"threshold": 0.25}, [3, 2, 1]),
        ({"threshold": 0.35}, [4, 2, 1]),
        ({"threshold": 0.25, "k": 2}, [2, 2, 1]),
        ({"threshold": 0.65}, [4, 4, 4]),
        ({"threshold": 0.65, "k": 3}, [3, 3, 3]),
        ({"threshold": 0.05}, [1, 2, 1]),
    ],
)
def test_counts_by_hand(options: dict[str, Any], counts: list[int]) -> None:
    assert _route(**options).count_T.tolist() == counts


def test_three_experts_by_hand() -> None:
    routing = _route(threshold=0.25)
    assert assignments(routing) == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 1)]
    torch.testing.assert_close(routing.weight_A, torch.tensor([0.40, 0.30, 0.40, 0.60, 0.20, 0.40]))
    # f over the one-expert token t2: (0, 1, 0, 0). P_1 = (0.30 + 0.40 + 0.60) / 3 = 1.3 / 3.
    # 4 * 1.3 / 3 * 0.01:
    assert routing.loss.item() == pytest.approx(0.0173333, rel=1e-5)


def test_renormalised_weights_of_three_experts() -> None:
    # t0: 0.9 in total, so 4/9, 3/9, 2/9; t1: 1/2 each; t2: 1.
    routing = _route(threshold=0.25, combine="renormalised")
    expected = torch.tensor([4 / 9, 3 / 9, 1 / 2, 1.0, 2 / 9, 1 / 2])
    torch.testing.assert_close(routing.weight_A, expected)


def test_force_top1_is_one_expert() -> None:
    assert assignments(_route(threshold=1.0, force_top1=True)) == [(0, 0), (1, 1), (1, 2)]


def test_k_beyond_the_experts_means_all() -> None:
    assert _route(threshold=1.0, k=9).count_T.tolist() == [4, 4, 4]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.0, 0.1, 1.0, 5.0, 80.0]),
    threshold=st.sampled_from([0.0, 0.05, 0.1, 0.4, 1.0]),
    normalisation=st.sampled_from(NORMALISATIONS),
    combine=st.sampled_from(["raw", "renormalised"]),
    force_top1=st.booleans(),
)
def test_two_is_adaptive_exactly(
    seed: int, spread: float, threshold: float, normalisation: Normalisation, combine: str, force_top1: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_TD = spread * torch.randn(20, 5, generator=generator)
    mask_T = torch.rand(20, generator=generator) < 0.8
    options = {"threshold": threshold, "normalisation": normalisation, "combine": combine}
    one = identity_gate(adaptive_k, 5, k=2, **options)
    two = identity_gate(adaptive, 5, **options)
    actual, expected = one(x_TD, mask_T, force_top1=force_top1), two(x_TD, mask_T, force_top1=force_top1)
    assert assignments(actual) == assignments(expected)
    assert torch.equal(actual.weight_A, expected.weight_A)
    assert torch.equal(actual.loss, expected.loss)
    for routing in (actual, expected):
        (routing.weight_A.sum() + routing.loss).backward()
    assert torch.equal(one.router.weight.grad, two.router.weight.grad)


def test_fewer_than_two_experts_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 2 experts"):
        adaptive_k.Gate(adaptive_k.Config(), 4, 1)
