"""The hash of the token id: pinned values, an even spread, no router."""

import pytest
import torch
from gates_by_hand import route

from repro.moe.gates import hash as hash_gate
from repro.moe.gates.shared.hashing import hashed
from repro.moe.routing import Routing


def _route(
    ids: list[int],
    mask: list[bool] | None = None,
    num_experts: int = 4,
    force_top1: bool = False,
    salt: int = 0,
) -> Routing:
    gate = hash_gate.Gate(hash_gate.Config(salt=salt), 8, num_experts)
    x_TD = torch.randn(len(ids), 8)
    return route(gate, x_TD, mask, force_top1=force_top1, ids_T=torch.tensor(ids))


def _experts(routing: Routing) -> list[int]:
    """Expert of each token, all of them routed."""
    experts: list[int] = routing.expert_A[routing.token_A.argsort()].tolist()
    return experts


def test_values_are_the_same_on_every_machine() -> None:
    # Worked out with Python integers.
    hashes = hashed(torch.arange(4), 0).tolist()
    assert hashes == [0, 824515495, 1722258072, 3753300549]
    assert _experts(_route(list(range(12)))) == [0, 3, 0, 1, 1, 2, 0, 3, 3, 3, 0, 0]
    assert _experts(_route(list(range(12)), salt=1)) == [0, 2, 2, 0, 3, 3, 2, 1, 3, 2, 1, 3]


def test_one_expert_of_weight_1_per_token_and_no_loss() -> None:
    routing = _route([5, 5, 9, 1], mask=[True, True, True, False])
    assert routing.count_T.tolist() == [1, 1, 1, 0]
    assert routing.weight_A.tolist() == [1.0, 1.0, 1.0]
    assert routing.loss.item() == 0.0
    # The same token goes to the same expert whatever its vector is.
    assert _experts(routing)[0] == _experts(routing)[1]
    assert routing.probs_TE.tolist() == [[0.25] * 4] * 4


def test_the_one_weight_can_be_set() -> None:
    gate = hash_gate.Gate(hash_gate.Config(weight=0.25), 8, 4)
    routing = route(gate, torch.randn(3, 8), ids_T=torch.tensor([5, 9, 1]))
    assert routing.weight_A.tolist() == [0.25] * 3
    assert _experts(routing) == _experts(_route([5, 9, 1]))


def test_force_top1_changes_nothing() -> None:
    ids = list(range(50))
    assert _experts(_route(ids, force_top1=True)) == _experts(_route(ids))


@pytest.mark.parametrize("num_experts", [4, 7, 16])
@pytest.mark.parametrize("salt", [0, 3, 2**31 - 1])
def test_the_vocabulary_is_spread_evenly(num_experts: int, salt: int) -> None:
    load_E = _route(list(range(30_000)), num_experts=num_experts, salt=salt).load_E
    # Binomial: mean 30000 / E, standard deviation at most its root; five of them.
    mean = 30_000 / num_experts
    assert float((load_E - mean).abs().max()) < 5 * mean**0.5


def test_it_has_no_parameters_and_no_costs() -> None:
    gate = hash_gate.Gate(hash_gate.Config(), 8, 4)
    assert gate.state_dict() == {}
    assert gate.macs_per_token == 0


def test_without_ids_it_says_what_is_missing() -> None:
    gate = hash_gate.Gate(hash_gate.Config(), 8, 4)
    with pytest.raises(ValueError, match="needs token ids"):
        gate(torch.randn(2, 8), torch.ones(2, dtype=torch.bool))
