"""Experts shared out over threads: who computes what, and that nothing but time depends on it."""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from repro.moe.experts import grouped
from repro.moe.experts.shared.side_by_side import Group, balanced_parts, each_group
from repro.moe.ffn import FFN
from repro.moe.routing import Routing

CPU = torch.device("cpu")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's threads; afterwards there are as many as before."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _groups(*sizes: int) -> list[Group]:
    """Groups of these sizes, one after the other."""
    starts = [sum(sizes[:expert]) for expert in range(len(sizes))]
    return [(expert, slice(start, start + sizes[expert])) for expert, start in enumerate(starts)]


def _seen(groups: Sequence[Group]) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Group -> the thread that computed it, and how many threads torch had there."""
    seen = {}
    lock = threading.Lock()

    def work(expert: int, rows: slice) -> None:
        with lock:
            seen[expert, rows.start, rows.stop] = threading.get_ident(), torch.get_num_threads()

    each_group(work, groups, CPU)
    return seen


def test_largest_groups_go_first_each_to_the_thread_with_fewest_rows() -> None:
    # 7 to the first, 5 and 4 to the second, 3 to the first (7 < 9), 1 to the second (9 < 10).
    first, second = balanced_parts(_groups(3, 7, 1, 5, 4), 2)
    assert [expert for expert, _ in first] == [1, 0]
    assert [expert for expert, _ in second] == [3, 4, 2]


def test_each_group_is_computed_once_in_threads_of_their_own(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    seen = _seen(_groups(4, 4, 4, 4))
    assert set(seen) == {(0, 0, 4), (1, 4, 8), (2, 8, 12), (3, 12, 16)}
    threads = {thread for thread, _ in seen.values()}
    assert len(threads) == 2
    assert threading.get_ident() in threads
    assert {count for _, count in seen.values()} == {1}
    assert torch.get_num_threads() == 2


def test_uneven_groups_are_shared_by_all_threads(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    # The larger part would have 13 of 16 rows, 1.6 times the mean.
    assert set(_seen(_groups(13, 3)).values()) == {(threading.get_ident(), 2)}


@pytest.mark.parametrize("groups", [[], _groups(5)])
def test_no_group_or_one_needs_no_other_thread(
    set_threads: Callable[[int], None], groups: Sequence[Group]
) -> None:
    set_threads(2)
    assert set(_seen(groups).values()) <= {(threading.get_ident(), 2)}


def test_an_error_in_any_thread_is_raised_and_the_threads_are_as_before(
    set_threads: Callable[[int], None],
) -> None:
    set_threads(2)
    for broken in range(4):

        def work(expert: int, rows: slice, broken: int = broken) -> None:
            if expert == broken:
                raise ValueError(f"expert {expert}")

        with pytest.raises(ValueError, match=f"expert {broken}"):
            each_group(work, _groups(4, 4, 4, 4), CPU)
        assert torch.get_num_threads() == 2


def _layer(
    tokens: int = 48, experts: int = 8, d_model: int = 6, d_hidden: int = 10
) -> tuple[tuple[Tensor, ...], Tensor, Routing, FFN]:
    """Input, weights and an even routing of two experts for each token."""
    generator = torch.Generator().manual_seed(3)
    x, w1, b1, w2, b2 = (
        torch.randn(size, generator=generator).requires_grad_()
        for size in (
            (tokens, d_model),
            (experts, d_hidden, d_model),
            (experts, d_hidden),
            (experts, d_model, d_hidden),
            (experts, d_model),
        )
    )
    token_T = torch.arange(tokens)
    selected_TE = torch.zeros(tokens, experts, dtype=torch.bool)
    selected_TE[token_T, token_T % experts] = selected_TE[token_T, (token_T + 1) % experts] = True
    weights_TE = torch.rand(tokens, experts, generator=generator).requires_grad_()
    mask_T = torch.ones(tokens, dtype=torch.bool)
    routing = Routing.from_selection(selected_TE, weights_TE, weights_TE, mask_T, torch.zeros(()))
    return (x, weights_TE, w1, b1, w2, b2), x, routing, FFN(w1, b1, w2, b2, "gelu")


@pytest.mark.parametrize("threads", [2, 4])
def test_values_and_gradients_do_not_depend_on_the_threads(
    set_threads: Callable[[int], None], threads: int
) -> None:
    results = []
    for count in (1, threads):
        set_threads(count)
        leaves, x, routing, weights = _layer()
        y = grouped.forward(x, routing, weights)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for alone, together in zip(*results, strict=True):
        torch.testing.assert_close(together, alone)


def test_threads_work_in_inference_mode_too(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    _, x, routing, weights = _layer()
    expected = grouped.forward(x, routing, weights)
    with torch.inference_mode():
        torch.testing.assert_close(grouped.forward(x, routing, weights), expected)


def test_a_counter_of_operations_sees_those_of_all_experts(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    _, x, routing, weights = _layer()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        grouped.forward(x, routing, weights)
    # 48 tokens with 2 experts, two matrices of 6 x 10, two operations each.
    assert counter.get_total_flops() == 48 * 2 * 2 * 6 * 10 * 2
