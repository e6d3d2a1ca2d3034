"""The steered threshold: its steps by hand, and the share it reaches, also while the router sharpens."""

import pytest
import torch
from gates_by_hand import identity_gate

from repro.moe.gates import adaptive, adaptive_budget
from repro.moe.gates.shared.gaps import Normalisation

# The router is the identity (D = E = 4) and a token is log p; pair gaps 0.5, 0.0588 and 0.25.
PROBS = torch.tensor([[0.60, 0.20, 0.10, 0.10], [0.32, 0.08, 0.36, 0.24], [0.10, 0.50, 0.10, 0.30]])


def test_at_the_start_it_is_adaptive() -> None:
    gate, plain = identity_gate(adaptive_budget, threshold=0.3), identity_gate(adaptive, threshold=0.3)
    mask_T = torch.ones(3, dtype=torch.bool)
    actual, expected = gate(PROBS.log(), mask_T), plain(PROBS.log(), mask_T)
    assert actual.count_T.tolist() == expected.count_T.tolist() == [1, 2, 2]
    assert torch.equal(actual.weight_A, expected.weight_A)
    assert torch.equal(actual.loss, expected.loss)


def test_a_step_by_hand() -> None:
    # T = 0.1: one of three tokens has two experts. T + 0.3 * (0.8 - 1/3) = 0.1 + 0.14 = 0.24.
    gate, mask_T = identity_gate(adaptive_budget, share=0.8, rate=0.3), torch.ones(3, dtype=torch.bool)
    gate.update_state(gate(PROBS.log(), mask_T))
    assert gate.threshold.item() == pytest.approx(0.24, rel=1e-6)
    # At 0.24 still one of three: 0.24 + 0.14 = 0.38; there, two: 0.38 + 0.3 * (0.8 - 2/3) = 0.42.
    gate.update_state(gate(PROBS.log(), mask_T))
    assert gate.threshold.item() == pytest.approx(0.38, rel=1e-6)
    gate.update_state(gate(PROBS.log(), mask_T))
    assert gate.threshold.item() == pytest.approx(0.42, rel=1e-6)


def test_padding_does_not_enter_the_share() -> None:
    # Of the real tokens t1 and t2 one has two experts: T + 0.3 * (0.8 - 1/2) = 0.19.
    gate = identity_gate(adaptive_budget, share=0.8, rate=0.3)
    gate.update_state(gate(PROBS.log(), torch.tensor([False, True, True])))
    assert gate.threshold.item() == pytest.approx(0.19, rel=1e-6)


@pytest.mark.parametrize(
    ("share", "spread", "bound"),
    # Equal experts, gap 0, have two experts at any T; logits (200, 0, 0, 0), gap 1, at T = 1 alone.
    [(0.0, 0.0, 0.0), (1.0, 200.0, 1.0)],
)
def test_the_threshold_stays_between_0_and_1(share: float, spread: float, bound: float) -> None:
    gate = identity_gate(adaptive_budget, share=share, rate=1.0, threshold=0.5)
    for _ in range(3):
        gate.update_state(gate(spread * torch.eye(4), torch.ones(4, dtype=torch.bool)))
        assert gate.threshold.item() == bound


@pytest.mark.parametrize(
    ("share", "normalisation"),
    [(0.1, "pair"), (0.25, "pair"), (0.75, "pair"), (0.5, "raw"), (0.25, "max")],
)
def test_the_share_is_within_a_point_of_the_target_after_warm_up(
    share: float, normalisation: Normalisation
) -> None:
    generator = torch.Generator().manual_seed(0)
    gate = identity_gate(adaptive_budget, 16, share=share, normalisation=normalisation)
    mask_T, shares = torch.ones(500, dtype=torch.bool), []
    for step in range(400):
        # The router sharpens as in training: the spread of the logits grows from 1 to 2.
        spread = 1 + min(step, 200) / 200
        with torch.no_grad():
            routing = gate(spread * torch.randn(500, 16, generator=generator), mask_T)
        gate.update_state(routing)
        shares.append(float((routing.count_T == 2).double().mean()))
    # The shares have a slope of 1 to 3 over T, so a rate of 0.03 forgets within 10 to 30 batches.
    assert sum(shares[250:]) / 150 == pytest.approx(share, abs=0.01)
    # A last threshold of its own, with the noise of its last batches.
    with torch.no_grad():
        fresh = gate(2 * torch.randn(50_000, 16, generator=generator), torch.ones(50_000, dtype=torch.bool))
    assert float((fresh.count_T == 2).double().mean()) == pytest.approx(share, abs=0.015)


def test_the_state_survives_saving() -> None:
    gate, mask_T = identity_gate(adaptive_budget, share=0.8, rate=0.3), torch.ones(3, dtype=torch.bool)
    gate.update_state(gate(PROBS.log(), mask_T))
    loaded = identity_gate(adaptive_budget, share=0.8, rate=0.3)
    loaded.load_state_dict(gate.state_dict())
    assert loaded.threshold.item() == gate.threshold.item() != 0.1
    assert [key for key, _ in gate.named_parameters()] == ["router.weight"]
