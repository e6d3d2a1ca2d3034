"""The state of gates that have one: when it moves, and that it survives a checkpoint."""

import copy
from typing import Any

import pytest
import torch
from gate_cases import D_MODEL, GATES, call, class_of, gate_of, padded_batch
from gates_by_hand import assignments

from repro.moe.gates import base

STATEFUL = [name for name in GATES if class_of(name).update_state is not base.Gate.update_state]
STEERED: dict[str, dict[str, Any]] = {"ratio": {"share": 0.4}, "attention_budget": {"k": 1.5}}
"""Options without which the state of a gate does not move."""


def _stateful(name: str) -> base.Gate[Any]:
    return gate_of(name, **STEERED.get(name, {}))


def test_gates_with_a_state_are_known() -> None:
    assert set(STATEFUL) == {"adaptive_budget", "attention_budget", "ratio", "relu"}


@pytest.mark.parametrize("name", GATES)
def test_only_gates_with_a_state_or_a_table_have_buffers(name: str) -> None:
    kept = name in STATEFUL or class_of(name).needs_frequencies
    assert bool(list(gate_of(name).buffers())) is kept


@pytest.mark.parametrize("name", GATES)
def test_calling_a_gate_in_training_changes_nothing(name: str) -> None:
    """A forward pass that gradient checkpointing repeats decides as the first one did."""
    torch.manual_seed(0)
    gate, mask_T, x_TD = gate_of(name).train(), torch.ones(30, dtype=torch.bool), torch.randn(30, D_MODEL)
    before = copy.deepcopy(gate.state_dict())
    random_state = torch.random.get_rng_state()
    first, second = call(gate, x_TD, mask_T), call(gate, x_TD, mask_T)
    assert all(torch.equal(value, before[key]) for key, value in gate.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert assignments(first) == assignments(second)
    assert torch.equal(first.weight_A, second.weight_A)
    assert torch.equal(first.loss, second.loss)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_moves_the_same_way_again_after_a_checkpoint(name: str) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(30, D_MODEL) for _ in range(6)]
    mask_T = torch.arange(30) < 25
    gate = _stateful(name)
    start = copy.deepcopy(gate.state_dict())
    states = []
    for x_TD in batches:
        gate.update_state(call(gate, x_TD, mask_T))
        states.append(copy.deepcopy(gate.state_dict()))
    assert any(not torch.equal(value, start[key]) for key, value in states[-1].items())
    resumed = _stateful(name)
    resumed.load_state_dict(states[2])
    for x_TD in batches[3:]:
        resumed.update_state(call(resumed, x_TD, mask_T))
    assert resumed.state_dict().keys() == states[-1].keys()
    assert all(torch.equal(value, states[-1][key]) for key, value in resumed.state_dict().items())


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("tokens", [0, 5])
def test_a_batch_without_real_tokens_moves_no_state(name: str, tokens: int) -> None:
    gate, mask_T = _stateful(name), torch.zeros(tokens, dtype=torch.bool)
    before = copy.deepcopy(gate.state_dict())
    gate.update_state(call(gate, torch.full((tokens, D_MODEL), torch.nan), mask_T))
    assert all(torch.equal(value, before[key]) for key, value in gate.state_dict().items())


@pytest.mark.parametrize("name", STATEFUL)
def test_padding_moves_no_state(name: str) -> None:
    gate, other = _stateful(name), _stateful(name)
    x_TD, other_TD, mask_T = padded_batch(torch.nan)
    gate.update_state(call(gate, x_TD[mask_T], mask_T[mask_T]))
    other.update_state(call(other, other_TD, mask_T))
    for key, value in gate.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=1e-6, atol=1e-7)
