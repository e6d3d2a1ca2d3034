"""Experts by attention: four tokens on paper, the steered scale, and what it reaches."""

from typing import Any

import pytest
import torch
from gates_by_hand import assignments, identity_gate
from torch import Tensor

from repro.moe.gates import attention_budget
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p; N is 4.
#
#        e0   e1   e2   e3    importance   ceil(4 I)    experts
#   t0  0.4  0.3  0.2  0.1       0.25          1        {0}
#   t1  0.1  0.4  0.2  0.3       0.26          2        {1, 3}
#   t2  0.3  0.3  0.2  0.2       0.5           2        {0, 1}: of equal ones the first
#   t3  0.1  0.2  0.3  0.4       1.0           4        all
PROBS = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.4, 0.2, 0.3], [0.3, 0.3, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4]])
ATTENTION = torch.tensor([0.25, 0.26, 0.5, 1.0])


def _route(
    gate: Any, attention_T: Tensor = ATTENTION, mask: list[bool] | None = None, **more: Any
) -> Routing:
    mask_T = torch.tensor(mask or [True] * 4)
    routing: Routing = gate(PROBS.log(), mask_T, attention_T=attention_T, **more)
    return routing


def test_experts_and_weights_by_hand() -> None:
    routing = _route(identity_gate(attention_budget))
    assert assignments(routing) == [
        *[(0, 0), (0, 2), (0, 3)],
        *[(1, 1), (1, 2), (1, 3)],
        *[(2, 3), (3, 1), (3, 3)],
    ]
    expected = torch.tensor([0.4, 0.3, 0.1, 0.4, 0.3, 0.2, 0.3, 0.3, 0.4])
    torch.testing.assert_close(routing.weight_A, expected)
    assert routing.count_T.tolist() == [1, 2, 2, 4]
    # f = (2, 1, 0, 1) / 4 and P = (0.9, 1.2, 0.9, 1.0) / 4: 4 * (1.8 + 1.2 + 1.0) / 16 = 1.
    assert routing.loss.item() == pytest.approx(0.01, rel=1e-5)


@pytest.mark.parametrize(
    ("scale", "counts"), [(1.0, [1, 1, 1, 1]), (2.0, [1, 1, 1, 2]), (8.0, [2, 3, 4, 4]), (100.0, [4] * 4)]
)
def test_counts_at_other_scales(scale: float, counts: list[int]) -> None:
    assert _route(identity_gate(attention_budget, scale=scale)).count_T.tolist() == counts


def test_no_attention_at_all_is_one_expert() -> None:
    assert _route(identity_gate(attention_budget), torch.zeros(4)).count_T.tolist() == [1] * 4


def test_force_top1() -> None:
    routing = _route(identity_gate(attention_budget), force_top1=True)
    assert assignments(routing) == [(0, 0), (0, 2), (1, 1), (3, 3)]


def test_what_padding_attends_to_does_not_matter() -> None:
    mask = [True, False, True, True]
    gate = identity_gate(attention_budget)
    plain = _route(gate, mask=mask)
    assert plain.count_T.tolist() == [1, 0, 2, 4]
    for value in (0.0, 7.0, torch.nan, torch.inf):
        other = _route(gate, torch.where(torch.tensor(mask), ATTENTION, value), mask)
        assert assignments(other) == assignments(plain)
        assert torch.equal(other.loss, plain.loss)


def test_two_steps_of_the_scale_by_hand() -> None:
    # k = 2 starts at N = 2 with 1, 1, 1, 2 experts: c = 1 / 0.25, at most 2; N = 2 * 2^0.3 = 2.46229.
    # There it has 1, 1, 2, 3: c = 1 / 0.75; N = 2.46229 * (4/3)^0.3 = 2.68424.
    gate = identity_gate(attention_budget, k=2.0, rate=0.3)
    for expected in (2.462289, 2.684236):
        gate.update_state(_route(gate))
        assert gate.scale.item() == pytest.approx(expected, rel=1e-5)


def test_the_scale_stays_where_it_means_something() -> None:
    gate = identity_gate(attention_budget, k=1.0)
    gate.update_state(_route(gate))
    assert gate.scale.item() == 1.0
    gate = identity_gate(attention_budget, k=4.0)
    for _ in range(300):
        gate.update_state(_route(gate, torch.full((4,), 1e-3)))
    assert gate.scale.item() == pytest.approx(3000, rel=0.2)


def test_without_a_target_the_scale_is_kept() -> None:
    gate = identity_gate(attention_budget, scale=3.0)
    gate.update_state(_route(gate))
    assert gate.scale.item() == 3.0


@pytest.mark.parametrize("k", [1.1, 1.5, 2.5])
def test_the_mean_reaches_the_target(k: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gate = identity_gate(attention_budget, 16, k=k)
    mask_T, means = torch.ones(500, dtype=torch.bool), []
    for step in range(160):
        # Peaks of attention between 0 and 0.1, later 0.3.
        peaks_T = torch.rand(500, generator=generator).square() * (0.1 if step < 80 else 0.3)
        with torch.no_grad():
            routing = gate(torch.randn(500, 16, generator=generator), mask_T, attention_T=peaks_T)
        gate.update_state(routing)
        means.append(float(routing.count_T.double().mean()))
    assert sum(means[50:80]) / 30 == pytest.approx(k, abs=0.03)
    assert sum(means[130:]) / 30 == pytest.approx(k, abs=0.03)


def test_errors() -> None:
    with pytest.raises(ValueError, match="needs the weights of the attention"):
        identity_gate(attention_budget)(PROBS.log(), torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"gate\.k = 4\.5 is more than the 4 experts"):
        identity_gate(attention_budget, k=4.5)
