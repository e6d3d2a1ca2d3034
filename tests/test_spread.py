"""Where rows of spread experts arrive and go, without processes."""

from operator import itemgetter

import pytest
import torch
from expert_cases import random_selection, routing_of, tensors_of
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.moe.experts import loop
from repro.moe.experts.shared.rows import combine
from repro.moe.ffn import FFN
from repro.moe.spread import arrival_order, arrived_routing


def test_arrival_order_by_hand() -> None:
    # Sender 0 has 2 rows for expert 0 and 1 for expert 1, sender 1 has none and 3: they arrive as
    #   place   0     1     2     3     4     5
    #   sender  0     0     0     1     1     1
    #   expert  0     0     1     1     1     1
    assert arrival_order(torch.tensor([[2, 1], [0, 3]])).tolist() == [0, 1, 2, 3, 4, 5]
    # Both send one row to each expert: expert 0 has places 0 and 2, expert 1 has 1 and 3.
    assert arrival_order(torch.tensor([[1, 1], [1, 1]])).tolist() == [0, 2, 1, 3]
    assert arrival_order(torch.tensor([[0, 2], [1, 0], [2, 1]])).tolist() == [2, 3, 4, 0, 1, 5]
    assert arrival_order(torch.zeros(2, 3, dtype=torch.int64)).tolist() == []


@settings(derandomize=True, deadline=None, database=None)
@given(
    st.integers(1, 4).flatmap(
        lambda experts: st.lists(
            st.lists(st.integers(0, 3), min_size=experts, max_size=experts), min_size=1, max_size=4
        )
    )
)
def test_arrival_order_lists_every_row_once_by_expert(counts: list[list[int]]) -> None:
    counts_NX = torch.tensor(counts)
    arriving = [
        (expert, sender)
        for sender, row in enumerate(counts)
        for expert, n in enumerate(row)
        for _ in range(n)
    ]
    order = arrival_order(counts_NX).tolist()
    assert sorted(order) == list(range(len(arriving)))
    assert [arriving[place] for place in order] == sorted(arriving)
    # Rows of one sender for one expert keep their order.
    assert order == sorted(order, key=lambda place: (arriving[place], place))
    routing = arrived_routing(counts_NX)
    assert routing.load_E.tolist() == counts_NX.sum(0).tolist()
    assert routing.expert_A.tolist() == [expert for expert, _ in sorted(arriving)]


@pytest.mark.parametrize("is_gated", [False, True])
def test_dispatch_and_combine_equal_one_process(is_gated: bool) -> None:
    """Two processes with two experts each, played by one: exchanges are slices."""
    experts, held, d_model = 4, 2, 16
    tensors = tensors_of(20, 3, torch.float64, shape=(experts, d_model, 32))
    x_TD, w1, b1, w2, b2 = tensors
    gated = FFN(torch.cat([w1, w1.flip(1)], 1), None, w2, None, "silu")
    weights = gated if is_gated else FFN(w1, b1, w2, b2, "gelu")
    tokens = (slice(0, 12), slice(12, 20))
    routings = [
        routing_of(random_selection(12, 1, num_experts=experts), torch.float64),
        routing_of(random_selection(8, 2, num_experts=experts), torch.float64),
    ]
    sent_NX = [routing.load_E.view(2, held) for routing in routings]
    rows = [x_TD[part][routing.token_A] for part, routing in zip(tokens, routings, strict=True)]
    outputs: list[list[torch.Tensor]] = [[], []]
    for owner in range(2):
        arriving_NX = torch.stack([sent[owner] for sent in sent_NX])
        parts = [
            torch.split(row, sent.sum(1).tolist())[owner] for row, sent in zip(rows, sent_NX, strict=True)
        ]
        mine = slice(owner * held, (owner + 1) * held)
        own = weights.map(itemgetter(mine))
        output_RD = loop.forward(torch.cat(parts), arrived_routing(arriving_NX), own)
        for sender, own_part in enumerate(torch.split(output_RD, arriving_NX.sum(1).tolist())):
            outputs[sender].append(own_part)
    for part, routing, back in zip(tokens, routings, outputs, strict=True):
        expected = loop.forward(x_TD[part], routing, weights)
        torch.testing.assert_close(combine(torch.cat(back), routing), expected, rtol=1e-12, atol=1e-12)
