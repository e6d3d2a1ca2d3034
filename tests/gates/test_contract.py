"""What every gate must be, whatever its rule, and how it decides: each file in `repro/moe/gates/`."""

import copy
import dataclasses
import inspect

import pytest
import torch
from gate_cases import (
    D_MODEL,
    GATES,
    attention_for,
    call,
    class_of,
    every_gate,
    gate_of,
    route_with_gradients,
)
from gates_by_hand import assignments

from repro import plugins
from repro.moe.gates import (
    adamoe,
    adaptive,
    adaptive_budget,
    adaptive_k,
    attention_budget,
    base,
    dense,
    expert_choice,
    hash,
    learned_threshold,
    maskmoe,
    ratio,
    relu,
    top_any,
    top_k,
    top_p,
    zero_compute,
)

MODULES: list[base.GateModule] = [
    adamoe,
    adaptive,
    adaptive_budget,
    adaptive_k,
    attention_budget,
    dense,
    expert_choice,
    hash,
    learned_threshold,
    maskmoe,
    ratio,
    relu,
    top_any,
    top_k,
    top_p,
    zero_compute,
]
"""All gates, so that mypy holds each against the contract."""


NO_PARAMETERS = {"hash"}


# --- the module --------------------------------------------------------------------------------------


def test_every_gate_is_held_against_the_contract() -> None:
    assert [base.load(name) for name in plugins.names("gates")] == MODULES


def test_the_gates_of_the_paper_are_there() -> None:
    assert {"adaptive", "dense", "top_k"} <= set(plugins.names("gates"))


def test_dense_has_no_gate() -> None:
    assert dense.Gate is None
    assert not base.is_adaptive("dense")
    assert dataclasses.asdict(dense.Config()) == {"ffn_scale": 1.0}


@pytest.mark.parametrize("name", plugins.names("gates"))
def test_config_is_frozen_and_has_defaults_for_everything(name: str) -> None:
    config_class = base.load(name).Config
    assert config_class.__dataclass_params__.frozen
    assert config_class() == config_class()
    assert {config_class()} == {config_class()}


@every_gate
def test_the_class_keeps_the_contract(name: str) -> None:
    gate_class = class_of(name)
    assert issubclass(gate_class, base.Gate)
    assert not inspect.isabstract(gate_class)
    arguments = dict(inspect.signature(gate_class.forward).parameters)
    assert ("attention_T" in arguments) == gate_class.needs_attention == (name == "attention_budget")
    arguments.pop("attention_T", None)
    assert arguments == dict(inspect.signature(base.Gate.forward).parameters)
    assert type(gate_class.adaptive) is bool
    assert (gate_class.encoders_only is not None) == (name == "expert_choice")
    assert gate_class.needs_token_ids == (name in ("hash", "maskmoe"))
    assert gate_class.needs_frequencies == (name == "maskmoe")


@every_gate
def test_adaptive_says_whether_counts_can_differ(name: str) -> None:
    routing, _, _ = route_with_gradients(
        gate_of(name, 16), torch.randn(400, D_MODEL), torch.ones(400, dtype=torch.bool)
    )
    assert (len(set(routing.count_T.tolist())) > 1) is base.is_adaptive(name)


@every_gate
def test_token_ids_matter_only_to_gates_that_need_them(name: str) -> None:
    torch.manual_seed(0)
    gate, x_TD, mask_T = gate_of(name), torch.randn(50, D_MODEL), torch.ones(50, dtype=torch.bool)
    more = attention_for(gate, x_TD)
    low, high = (gate(x_TD, mask_T, ids_T=torch.arange(start, start + 50), **more) for start in (0, 50))
    assert (assignments(low) == assignments(high)) is not gate.needs_token_ids
    if not gate.needs_token_ids:
        assert assignments(gate(x_TD, mask_T, **more)) == assignments(low)


# --- weights ------------------------------------------------------------------------------------------

COMBINING = [
    name for name in GATES if "combine" in {f.name for f in dataclasses.fields(base.load(name).Config)}
]


def test_gates_whose_weights_follow_from_probabilities_have_the_choice() -> None:
    assert set(GATES) - set(COMBINING) == {"hash", "relu", "top_any"}


@pytest.mark.parametrize("name", COMBINING)
def test_weights_are_combined_in_three_ways(name: str) -> None:
    """`straight-through` has the values of `renormalised` and the gradients of `raw`."""
    torch.manual_seed(0)
    x_TD, mask_T = torch.randn(64, D_MODEL), torch.ones(64, dtype=torch.bool)
    made = {
        combine: route_with_gradients(gate_of(name, combine=combine), x_TD, mask_T)
        for combine in ("raw", "renormalised", "straight-through")
    }
    (raw, raw_grads, _), (rescaled, other_grads, _), (through, grads, _) = made.values()
    assert assignments(raw) == assignments(rescaled) == assignments(through)
    assert torch.equal(through.weight_A, rescaled.weight_A)
    assert not torch.allclose(raw.weight_A, rescaled.weight_A)
    if rescaled.extra_TD is None:
        totals_T = torch.zeros(64).index_add(0, rescaled.token_A, rescaled.weight_A.detach())
        torch.testing.assert_close(totals_T, (rescaled.count_T > 0).float())
    else:
        torch.testing.assert_close(through.extra_TD, rescaled.extra_TD)
        return  # its own experts have parameters, whose gradient is that of the weights' values
    for key, grad in grads.items():
        torch.testing.assert_close(grad, raw_grads[key])
    assert not torch.allclose(other_grads["router.weight"], raw_grads["router.weight"])


# --- precision, determinism --------------------------------------------------------------------------


@every_gate
def test_decisions_are_fp32_under_bf16_autocast(name: str) -> None:
    torch.manual_seed(0)
    x_TD, mask_T = torch.randn(200, D_MODEL), torch.ones(200, dtype=torch.bool)
    plain = call(gate_of(name), x_TD, mask_T)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = call(gate_of(name), x_TD, mask_T)
    assert routing.probs_TE.dtype == torch.float32
    assert routing.loss.dtype == torch.float32
    assert torch.equal(routing.probs_TE, plain.probs_TE)
    assert assignments(routing) == assignments(plain)
    assert torch.equal(routing.loss, plain.loss)
    torch.testing.assert_close(routing.extra_TD, plain.extra_TD, rtol=0, atol=0)


@every_gate
def test_bf16_input_is_widened_before_the_router(name: str) -> None:
    torch.manual_seed(0)
    x_TD, mask_T = torch.randn(200, D_MODEL).bfloat16(), torch.ones(200, dtype=torch.bool)
    routing, wide = call(gate_of(name), x_TD, mask_T), call(gate_of(name), x_TD.float(), mask_T)
    assert routing.probs_TE.dtype == torch.float32
    assert torch.equal(routing.probs_TE, wide.probs_TE)
    assert assignments(routing) == assignments(wide)


@every_gate
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    _, grads, _ = route_with_gradients(
        gate_of(name), torch.randn(64, D_MODEL), torch.ones(64, dtype=torch.bool)
    )
    assert bool(grads) is (name not in NO_PARAMETERS)
    for key, grad in grads.items():
        assert bool(grad.isfinite().all()), key
        assert grad.abs().sum().item() > 0, key


@every_gate
def test_a_gate_keeps_nothing_between_calls_but_buffers(name: str) -> None:
    torch.manual_seed(0)
    gate, mask_T = gate_of(name).eval(), torch.ones(20, dtype=torch.bool)
    before = copy.deepcopy(gate.state_dict())
    attributes = set(vars(gate))
    first = call(gate, torch.randn(20, D_MODEL), mask_T)
    x_TD = torch.randn(20, D_MODEL)
    second, third = call(gate, x_TD, mask_T), call(gate, x_TD, mask_T)
    assert set(vars(gate)) == attributes
    assert gate.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in gate.state_dict().items())
    assert assignments(second) == assignments(third)
    assert assignments(first) != assignments(second)
