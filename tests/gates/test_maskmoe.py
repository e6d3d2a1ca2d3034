"""A mask by token frequency: four tokens on paper, which ids are rare, and its two ends: top-k and a hash."""

from typing import Any

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route
from hypothesis import given
from hypothesis import strategies as st

from repro.moe.gates import hash as hash_gate
from repro.moe.gates import maskmoe, top_k
from repro.moe.gates.maskmoe import rare_ids
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p. Ids 0 to 3 occur 6, 1, 3 and 0 times; at most
# 40 % rare tokens: the ids 3, 1 and 2, which are 0 + 1 + 3 of 10. Their hashes modulo 4 are 0, 3, 0, 1.
#
#        id            e0    e1    e2    e3     k = 2
#   t0    0 frequent  0.4   0.3   0.2   0.1     {0, 1}
#   t1    1 rare                                {3}
#   t2    2 rare                                {0}
#   t3    0 frequent  0.1   0.2   0.3   0.4     {3, 2}
PROBS = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
IDS = torch.tensor([0, 1, 2, 0])
COUNTS = torch.tensor([6, 1, 3, 0])


def _gate(**options: object) -> Any:
    gate = identity_gate(maskmoe, **{"rare": 0.4} | options)
    gate.learn_frequencies(COUNTS)
    return gate


def _route(force_top1: bool = False, mask: list[bool] | None = None, **options: object) -> Routing:
    return route(_gate(**options), PROBS.log(), mask, force_top1=force_top1, ids_T=IDS)


def test_experts_and_weights_by_hand() -> None:
    routing = _route()
    assert assignments(routing) == [(0, 0), (0, 2), (1, 0), (2, 3), (3, 1), (3, 3)]
    assert routing.count_T.tolist() == [2, 1, 1, 2]
    torch.testing.assert_close(routing.weight_A, torch.tensor([0.4, 1.0, 0.3, 0.3, 1.0, 0.4]))
    torch.testing.assert_close(routing.probs_TE, PROBS)


def test_renormalised_weights() -> None:
    expected = torch.tensor([4 / 7, 1.0, 3 / 7, 3 / 7, 1.0, 4 / 7])
    torch.testing.assert_close(_route(combine="renormalised").weight_A, expected)


def test_loss_by_hand() -> None:
    # First choices 0, 3, 0, 3. P_0 = (0.4 + 0 + 1 + 0.1) / 4 and P_3 = (0.1 + 1 + 0 + 0.4) / 4, both 0.375:
    # 4 * 2 * 0.5 * 0.375 = 1.5.
    assert _route().loss.item() == pytest.approx(0.015, rel=1e-5)
    assert _route(balance=1.0).loss.item() == pytest.approx(1.5, rel=1e-5)
    # Without t3: f = (2, 0, 0, 1) / 3, P_0 = 1.4 / 3, P_3 = 1.1 / 3: 4 * (2.8 + 1.1) / 9.
    masked = _route(mask=[True, True, True, False], balance=1.0)
    assert masked.loss.item() == pytest.approx(4 * 3.9 / 9, rel=1e-5)
    assert masked.count_T.tolist() == [2, 1, 1, 0]


def test_force_top1() -> None:
    assert assignments(_route(force_top1=True)) == [(0, 0), (0, 2), (3, 1), (3, 3)]


def test_an_id_that_was_never_counted_is_rare() -> None:
    # The hash of 9 modulo 4 is 3; 3 was counted 0 times, 9 is beyond the counts.
    routing = route(_gate(rare=0.0), PROBS[:2].log(), ids_T=torch.tensor([9, 3]))
    assert assignments(routing) == [(1, 1), (3, 0)]


def test_without_rare_tokens_it_is_top_k() -> None:
    ids_T = torch.tensor([0, 1, 2, 0])
    ours = route(_gate(rare=0.0), PROBS.log(), ids_T=ids_T)
    expected = route(identity_gate(top_k), PROBS.log())
    assert assignments(ours) == assignments(expected)
    assert torch.equal(ours.weight_A, expected.weight_A)
    assert torch.equal(ours.loss, expected.loss)


def test_with_rare_tokens_alone_it_is_a_hash() -> None:
    expected = route(hash_gate.Gate(hash_gate.Config(salt=5), 4, 4), PROBS, ids_T=IDS)
    gate = _gate(rare=1.0, salt=5)
    routing = route(gate, PROBS.log(), ids_T=IDS)
    assert assignments(routing) == assignments(expected)
    assert routing.weight_A.tolist() == [1.0] * 4
    (gradient,) = torch.autograd.grad(routing.weight_A.sum() + routing.loss, gate.router.weight)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("counts", "share", "rare"),
    [
        ([6, 1, 3, 0], 0.4, [False, True, True, True]),  # exactly 4 of 10
        ([6, 1, 3, 0], 0.39, [False, True, False, True]),
        ([6, 1, 3, 0], 0.0, [False, False, False, True]),
        ([6, 1, 3, 0], 1.0, [True, True, True, True]),
        ([2, 6, 2], 0.3, [False, False, False]),  # one of two equal ones would be 2 of 10
        ([2, 6, 2], 0.4, [True, False, True]),
    ],
)
def test_rare_ids_by_hand(counts: list[int], share: float, rare: list[bool]) -> None:
    assert rare_ids(torch.tensor(counts), share).tolist() == rare


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.floats(0, 1))
def test_rare_ids_are_the_rarest_and_as_many_as_may_be(counts: list[int], share: float) -> None:
    rare = rare_ids(torch.tensor(counts), share).tolist()
    inside = [count for count, is_rare in zip(counts, rare, strict=True) if is_rare]
    outside = [count for count, is_rare in zip(counts, rare, strict=True) if not is_rare]
    assert sum(inside) <= share * sum(counts)
    if outside:
        assert max(inside, default=-1) < min(outside)
        next_ones = [count for count in outside if count == min(outside)]
        assert sum(inside) + sum(next_ones) > share * sum(counts)


@pytest.mark.parametrize("rare", [0.0, 0.25, 0.9, 1.0])
def test_before_anything_was_counted_a_share_of_the_ids_is_rare(rare: float) -> None:
    """So that a fresh layer is measured with about as many rare tokens as it will have."""
    gate = identity_gate(maskmoe, rare=rare)
    ids_T = torch.arange(20_000)
    assert float(gate.is_rare(ids_T).double().mean()) == pytest.approx(rare, abs=0.015)
    routing = route(gate, torch.randn(20_000, 4), ids_T=ids_T)
    assert float(routing.count_T.double().mean()) == pytest.approx(2 - rare, abs=0.015)


def test_what_was_learned_is_saved() -> None:
    gate, loaded = _gate(), identity_gate(maskmoe, rare=0.4)
    loaded.load_state_dict(gate.state_dict())
    assert loaded.rare_V.tolist() == gate.rare_V.tolist() == [False, True, True, True, True]
    assert assignments(route(loaded, PROBS.log(), ids_T=IDS)) == assignments(_route())
    # One that has counted takes over what another counted, of another vocabulary.
    gate.learn_frequencies(torch.tensor([1, 5]))
    loaded.load_state_dict(gate.state_dict())
    assert loaded.rare_V.tolist() == [True, False, True]


def test_errors() -> None:
    with pytest.raises(ValueError, match="needs token ids"):
        identity_gate(maskmoe)(PROBS.log(), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"gate\.k = 5 is more than the 4 experts"):
        identity_gate(maskmoe, k=5)
