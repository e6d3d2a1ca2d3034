"""The hash of the token id: pinned values, an even spread, no router."""

import pytest
import torch

from repro.gates import hash as hash_gate


def _route(ids, mask=None, num_experts=4, best_only=False, **options):
    gate = hash_gate.Gate(hash_gate.Config(**options), 8, num_experts)
    mask_T = torch.ones(len(ids), dtype=torch.bool) if mask is None else torch.tensor(mask)
    return gate(torch.randn(len(ids), 8), mask_T, best_only=best_only, ids_T=torch.tensor(ids))


def _experts(routing):
    """Expert of each token, all of them routed."""
    return routing.expert_A[routing.token_A.argsort()].tolist()


def test_values_are_the_same_on_every_machine():
    # Worked out with Python integers.
    found = hash_gate.hashed(torch.arange(4), 0).tolist()
    assert found == [0, 824515495, 1722258072, 3753300549]
    assert _experts(_route(list(range(12)))) == [0, 3, 0, 1, 1, 2, 0, 3, 3, 3, 0, 0]
    assert _experts(_route(list(range(12)), salt=1)) == [0, 2, 2, 0, 3, 3, 2, 1, 3, 2, 1, 3]


def test_one_expert_of_weight_1_per_token_and_no_loss():
    routing = _route([5, 5, 9, 1], mask=[True, True, True, False])
    assert routing.count_T.tolist() == [1, 1, 1, 0]
    assert routing.weight_A.tolist() == [1.0, 1.0, 1.0]
    assert routing.loss.item() == 0.0
    # The same token goes to the same expert whatever its vector is.
    assert _experts(routing)[0] == _experts(routing)[1]
    assert routing.probs_TE.tolist() == [[0.25] * 4] * 4


def test_best_only_changes_nothing():
    ids = list(range(50))
    assert _experts(_route(ids, best_only=True)) == _experts(_route(ids))


@pytest.mark.parametrize("num_experts", [4, 7, 16])
@pytest.mark.parametrize("salt", [0, 3, 2**31 - 1])
def test_the_vocabulary_is_spread_evenly(num_experts, salt):
    load_E = _route(list(range(30_000)), num_experts=num_experts, salt=salt).load_E
    # Binomial: mean 30000 / E, standard deviation at most its root; five of them.
    mean = 30_000 / num_experts
    assert float((load_E - mean).abs().max()) < 5 * mean**0.5


def test_it_has_no_parameters_and_no_costs():
    gate = hash_gate.Gate(hash_gate.Config(), 8, 4)
    assert gate.state_dict() == {}
    assert gate.macs_per_token == 0


def test_without_ids_it_says_what_is_missing():
    gate = hash_gate.Gate(hash_gate.Config(), 8, 4)
    with pytest.raises(ValueError, match="needs token ids"):
        gate(torch.randn(2, 8), torch.ones(2, dtype=torch.bool))
