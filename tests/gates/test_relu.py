"""ReLU routing: three tokens on paper, the loss, the controller of its weight."""

import pytest
import torch
from gates_by_hand import assignments, identity_gate

from repro.moe.gates import relu

# The router is the identity (D = E = 4): weights are the positive parts.
#   t0 {0: 2, 3: 1}, t1 none, t2 {1: 3}
X = torch.tensor([[2.0, -1.0, 0.0, 1.0], [-1.0, -1.0, -1.0, -1.0], [0.0, 3.0, 0.0, 0.0]])
ALL = torch.ones(3, dtype=torch.bool)


def test_selection_and_weights_by_hand() -> None:
    routing = identity_gate(relu)(X, ALL)
    assert assignments(routing) == [(0, 0), (1, 2), (3, 0)]
    assert routing.weight_A.tolist() == [2.0, 3.0, 1.0]
    assert routing.count_T.tolist() == [2, 0, 1]


def test_force_top1_is_one_expert_or_none() -> None:
    assert assignments(identity_gate(relu)(X, ALL, force_top1=True)) == [(0, 0), (1, 2)]


def test_loss_by_hand() -> None:
    # f = (1, 1, 0, 1) / 3 / k with k = 2; means (2, 3, 0, 1) / 3; 4 * (1/6) * (6/3) = 4/3.
    assert identity_gate(relu, penalty=1.0)(X, ALL).loss.item() == pytest.approx(4 / 3, rel=1e-6)
    assert identity_gate(relu, penalty=0.5, k=1.0)(X, ALL).loss.item() == pytest.approx(4 / 3, rel=1e-6)


def test_padding_does_not_enter_the_loss() -> None:
    # t1 and t2: f_1 = 1/2 / 2, mean 3/2; 4 * 1/4 * 3/2.
    loss = identity_gate(relu, penalty=1.0)(X, torch.tensor([False, True, True])).loss.item()
    assert loss == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize(("k", "factor"), [(0.9, 1.2), (1.0, 1 / 1.2), (2.0, 1 / 1.2)])
def test_the_controller_by_hand(k: float, factor: float) -> None:
    # One expert per token on average: too many for k = 0.9, not for 1.
    gate = identity_gate(relu, k=k, penalty=0.01)
    gate.update_state(gate(X, ALL))
    assert gate.penalty.item() == pytest.approx(0.01 * factor, rel=1e-5)


def test_the_loss_may_be_differentiated_after_the_state_moved() -> None:
    gate = identity_gate(relu, penalty=1.0)
    routing = gate(X, ALL)
    gate.update_state(routing)
    routing.loss.backward()
    # d loss / d W_0 = E f_0 / T x_t0 = 4 / 6 / 3 * x_t0.
    torch.testing.assert_close(gate.router.weight.grad[0], X[0] * 4 / 18)


def test_the_mean_number_of_experts_goes_to_the_target() -> None:
    torch.manual_seed(0)
    gate = relu.Gate(relu.Config(k=1.5, penalty=0.02, factor=1.02), 16, 8)
    start_ED = gate.router.weight.detach().clone()
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)
    mask_T, means = torch.ones(128, dtype=torch.bool), []
    for _ in range(500):
        # A constant coordinate is a bias: without one no weight but 0 would turn a token off.
        x_TD = torch.cat([torch.full((128, 1), 2.0), torch.randn(128, 15)], dim=1)
        routing = gate(x_TD, mask_T)
        task = (gate.router.logits(x_TD, mask_T).relu() - (x_TD @ start_ED.t()).relu()).square().mean()
        (task + routing.loss).backward()
        gate.update_state(routing)
        optimizer.step()
        optimizer.zero_grad()
        means.append(float(routing.count_T.double().mean()))
    assert means[0] > 3
    assert sum(means[300:]) / 200 == pytest.approx(1.5, abs=0.5)
