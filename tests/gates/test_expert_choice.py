"""Experts choose tokens: four tokens and two experts on paper."""

import pytest
import torch
from gates_by_hand import assignments, identity_gate, route
from torch import Tensor

from repro.moe.gates import expert_choice
from repro.moe.routing import Routing

# The router is the identity (D = E = 2) and a token is log p.
PROBS = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])


def _route(
    probs: Tensor = PROBS, mask: list[bool] | None = None, force_top1: bool = False, **options: object
) -> Routing:
    return route(identity_gate(expert_choice, 2, **options), probs.log(), mask, force_top1=force_top1)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        # Expert 0 prefers t0 t2 t1 t3, expert 1 prefers t3 t1 t2 t0; each takes ceil(4 k / 2).
        (0.5, [(0, 0), (1, 3)]),
        (1.0, [(0, 0), (0, 2), (1, 1), (1, 3)]),
        (1.1, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]),
        (1.5, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]),
        (9.0, [(expert, token) for expert in range(2) for token in range(4)]),
    ],
)
def test_choices_by_hand(k: float, expected: list[tuple[int, int]]) -> None:
    assert assignments(_route(k=k)) == expected


def test_weights_are_probabilities_and_there_is_no_loss() -> None:
    routing = _route(k=1.0)
    torch.testing.assert_close(routing.weight_A, torch.tensor([0.9, 0.8, 0.4, 0.7]))
    assert routing.loss.item() == 0.0
    assert routing.load_E.tolist() == [2, 2]


def test_padding_is_neither_chosen_nor_in_the_capacity() -> None:
    # Three real tokens: ceil(3 / 2) = 2 each, of t1 t2 t3.
    routing = _route(k=1.0, mask=[False, True, True, True])
    assert assignments(routing) == [(0, 1), (0, 2), (1, 1), (1, 3)]
    assert _route(k=9.0, mask=[False, True, False, True]).count_T.tolist() == [0, 2, 0, 2]


def test_of_equal_tokens_the_first_are_taken() -> None:
    assert _route(torch.full((4, 2), 0.5), k=1.0).count_T.tolist() == [2, 2, 0, 0]


def test_rounding_errors_add_no_token() -> None:
    # 10 * 1.1 = 11.000000000000002 in floating point; of 11 experts each takes one token.
    probs_TE = torch.full((10, 11), 1 / 11)
    chosen_TE = expert_choice.choose_tokens(probs_TE, torch.ones(10, dtype=torch.bool), 1.1)
    assert chosen_TE.sum(0).tolist() == [1] * 11


def test_force_top1_is_the_best_expert_of_every_token() -> None:
    assert assignments(_route(k=0.5, force_top1=True)) == [(0, 0), (0, 1), (0, 2), (1, 3)]
