"""The order of the data, worked on paper with a handful of samples."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.config import ORDERS_BY_RATIOS, TrainingConfig
from repro.errors import UserError
from repro.training.curriculum import (
    Integers,
    Measured,
    epoch_order,
    place_ratio_correlation,
    require_effect,
)
from repro.training.state import TrainingState

ORDERS = [*ORDERS_BY_RATIOS, "length", "random"]
FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def as_list(order_N: Integers) -> list[int]:
    return [int(sample) for sample in order_N]


def order(curriculum: str, ratios: list[list[float]] | None, lengths: list[int], seed: int = 0) -> list[int]:
    """The order, for samples whose tokens are all in one stack: counts are ratios times lengths."""
    lengths_N = np.array(lengths)
    generator = np.random.default_rng(seed)
    if ratios is None:
        return as_list(epoch_order(curriculum, None, lengths_N, generator))
    ratios_NL = np.array(ratios, dtype=np.float64)
    counts = (ratios_NL.sum(1) * lengths_N).round().astype(np.int64).tolist()
    return as_list(epoch_order(curriculum, measured(ratios, counts), lengths_N, generator))


def measured(ratios: list[list[float]], counts: list[int], unseen: tuple[int, ...] = ()) -> Measured:
    """What the gate did in the epoch before, in which some samples were left out."""
    seen_N = np.array([sample not in unseen for sample in range(len(counts))])
    return Measured(
        ratios_NL=np.array(ratios, dtype=np.float64), num_multi_expert_N=np.array(counts), seen_N=seen_N
    )


def order_by_counts(
    curriculum: str, ratios: list[list[float]], counts: list[int], unseen: tuple[int, ...] = ()
) -> list[int]:
    """The order, for samples of 10 positions with these numbers of tokens given two experts."""
    lengths_N = np.full(len(counts), 10)
    before = measured(ratios, counts, unseen)
    return as_list(epoch_order(curriculum, before, lengths_N, np.random.default_rng(0)))


# --- cosine -------------------------------------------------------------------------------------


def test_cosine_by_hand() -> None:
    ratios = [
        [0.5, 0.5],  # 10 tokens with two experts; cosine to (1, 0): 0.5 / 0.7071 = 0.7071
        [0.2, 0.0],  # 2 tokens: the anchor; cosine 1
        [0.0, 0.4],  # 4 tokens; cosine 0
        [0.6, 0.2],  # 8 tokens; cosine 0.6 / 0.6325 = 0.9487
        [0.9, 0.1],  # 10 tokens; cosine 0.9 / 0.9055 = 0.9939
    ]
    assert order("cosine", ratios, [10] * 5) == [1, 4, 3, 0, 2]


def test_the_anchor_has_the_fewest_tokens_not_the_smallest_ratio() -> None:
    ratios = [
        [0.1, 0.0],  # 0.1 * 100 = 10 tokens, although its ratios are the smallest
        [0.0, 0.5],  # 0.5 * 4 = 2 tokens: the anchor
        [0.1, 0.5],  # 1 + 5 = 6 tokens; cosine to (0, 1): 0.5 / 0.5099 = 0.98
    ]
    assert order("cosine", ratios, [100, 4, 10]) == [1, 2, 0]


def test_a_tie_for_the_anchor_goes_to_the_lowest_index() -> None:
    ratios = [
        [0.6, 0.6],  # 12 tokens; cosine to (1, 0) and to (0, 1): 0.7071
        [0.3, 0.0],  # 3 tokens: the anchor, as the first of two
        [0.0, 0.3],  # 3 tokens; cosine 0
        [0.6, 0.3],  # 9 tokens; cosine to (1, 0) 0.8944, to (0, 1) 0.4472
    ]
    assert order("cosine", ratios, [10] * 4) == [1, 3, 0, 2]
    # The same samples with the two candidates swapped: now (0, 1) is the anchor.
    assert order("cosine", [ratios[0], ratios[2], ratios[1], ratios[3]], [10] * 4) == [1, 0, 3, 2]


def test_an_anchor_without_any_such_token_points_to_the_diagonal() -> None:
    # 1e-6 is added to every component: the zero vector becomes (1e-6, 1e-6), that is, cosine
    # (a + b) / (sqrt(2) |(a, b)|) to (a, b).
    ratios = [
        [0.8, 0.0],  # 0.8 / (1.4142 * 0.8) = 0.7071
        [0.3, 0.4],  # 0.7 / (1.4142 * 0.5) = 0.9899
        [0.0, 0.0],  # the anchor: 1
        [0.5, 0.5],  # 1
        [0.4, 0.1],  # 0.5 / (1.4142 * 0.4123) = 0.8575
    ]
    assert order("cosine", ratios, [10] * 5) == [2, 3, 1, 4, 0]


def test_all_zero_ratios_keep_the_order_of_the_data() -> None:
    assert order("cosine", [[0.0, 0.0]] * 4, [4, 3, 2, 1]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "shares",
    [
        [0.7, 0.3, 0.1, 0.1, 0.8],
        [0.3, 0.7, 1 / 3, 0.1, 0.9],
    ],
)
@pytest.mark.parametrize("layers", [2, 3, 6])
def test_parallel_vectors_keep_the_order_of_the_data(shares: list[float], layers: int) -> None:
    # All have the direction (1, 1, ...), but cosines that differ in the last bit. No sample is more
    # similar to the anchor than another, so it does not even come first itself.
    assert order("cosine", [[share] * layers for share in shares], [30] * 5) == [0, 1, 2, 3, 4]


def test_the_added_component_is_a_millionth() -> None:
    ratios = [
        [0.0, 0.0],  # 0 tokens: the anchor, pointing to (1, 1)
        [0.3, 0.1],  # cosine 0.4 / (1.4142 * 0.3162) = 0.8944
        [1e-6, 0.0],  # (2e-6, 1e-6): cosine 3 / (1.4142 * 2.2361) = 0.9487; of (1e-6, 0) it were 0.7071
    ]
    assert order("cosine", ratios, [10] * 3) == [0, 2, 1]


def test_the_anchor_is_the_sample_with_the_fewest_tokens_counted() -> None:
    # An encoder of 40 and a decoder of 4 tokens: ratios say nothing about how many tokens they are of.
    ratios = [
        [0.1, 0.0],  # 4 tokens of the encoder; cosine to (0, 1): 0
        [0.0, 0.5],  # 2 tokens of the decoder: the anchor
        [0.1, 0.5],  # 6 tokens; cosine 0.5 / 0.5099 = 0.98
    ]
    assert order_by_counts("cosine", ratios, [4, 2, 6]) == [1, 2, 0]
    assert order_by_counts("count", ratios, [4, 2, 6]) == [1, 0, 2]
    # With other counts for the same ratios (1, 0) is the anchor: 1, 0, 0.1961.
    assert order_by_counts("cosine", ratios, [1, 2, 6]) == [0, 2, 1]
    # A tie for the fewest goes to the lowest index.
    assert order_by_counts("cosine", ratios, [2, 2, 6]) == [0, 2, 1]


def test_cosine_does_not_see_how_large_the_ratios_are() -> None:
    ratios = [
        [0.1, 0.0],  # 1 token: the anchor
        [0.0, 0.2],  # as easy as the next, but across: cosine 0
        [0.9, 0.0],  # the hardest, along: cosine 1
    ]
    assert order("cosine", ratios, [10] * 3) == [0, 2, 1]


# --- distance and mean --------------------------------------------------------------------------


def test_distance_by_hand() -> None:
    ratios = [
        [0.5, 0.5],  # from (0.2, 0): sqrt(0.09 + 0.25) = 0.583
        [0.2, 0.0],  # 2 tokens: the anchor
        [0.0, 0.4],  # sqrt(0.04 + 0.16) = 0.447
        [0.6, 0.2],  # sqrt(0.16 + 0.04) = 0.447, a tie: as the data
        [0.9, 0.1],  # sqrt(0.49 + 0.01) = 0.707
    ]
    assert order("distance", ratios, [10] * 5) == [1, 2, 3, 0, 4]


def test_the_anchor_of_distance_has_the_fewest_tokens_counted() -> None:
    ratios = [[0.1, 0.0], [0.0, 0.5], [0.3, 0.5]]
    assert order_by_counts("distance", ratios, [4, 2, 6]) == [1, 2, 0]  # 0, 0.3, 0.51
    assert order_by_counts("distance", ratios, [1, 2, 6]) == [0, 1, 2]  # 0, 0.51, 0.539


def test_mean_by_hand() -> None:
    # Means 0.5, 0.1, 0.2, 0.4, 0.1: a tie keeps the order of the data.
    ratios = [[0.5, 0.5], [0.2, 0.0], [0.0, 0.4], [0.6, 0.2], [0.1, 0.1]]
    assert order("mean", ratios, [10, 90, 10, 10, 1]) == [1, 4, 2, 3, 0]


def test_means_that_differ_in_the_last_bit_keep_the_order_of_the_data() -> None:
    assert (0.1 + 0.2) / 2 > 0.3 / 2
    assert order("mean", [[0.1, 0.2], [0.3, 0.0]], [10, 10]) == [0, 1]


# --- samples that were left out of an epoch -----------------------------------------------------


@pytest.mark.parametrize(
    ("curriculum", "expected"),
    [
        # The anchor is sample 3. Of samples 1, 3 and 4: cosines to (0.1, 0) are 0, 1 and 0.707,
        # distances 0.316, 0 and 0.430, means 0.15, 0.05 and 0.35.
        ("cosine", [3, 4, 1, 0, 2]),
        ("distance", [3, 1, 4, 0, 2]),
        ("mean", [3, 1, 4, 0, 2]),
        ("count", [3, 1, 4, 0, 2]),
    ],
)
def test_samples_that_were_not_seen_are_no_anchor_and_come_last(curriculum: str, expected: list[int]) -> None:
    ratios = [[0.0, 0.0], [0.0, 0.3], [0.0, 0.0], [0.1, 0.0], [0.35, 0.35]]
    assert order_by_counts(curriculum, ratios, [0, 3, 0, 1, 7], unseen=(0, 2)) == expected
    assert order_by_counts(curriculum, ratios, [0, 3, 0, 1, 7])[:2] == [0, 2]


# --- what an order came to ----------------------------------------------------------------------


def state_of(ratios: list[list[float]], counts: list[int], unseen: tuple[int, ...] = ()) -> TrainingState:
    before = measured(ratios, counts, unseen)
    return TrainingState(
        ratios_NL=torch.from_numpy(before.ratios_NL),
        num_multi_expert_N=torch.from_numpy(before.num_multi_expert_N),
        seen_N=torch.from_numpy(before.seen_N),
    )


def test_the_correlation_of_place_and_mean_ratio_by_hand() -> None:
    # Means 0.05, 0.1, 0.45 and, not seen, 0. `cosine` gives 0, 2, 1: ranks 1, 3, 2 at the places 1, 2, 3, and
    # Spearman's rho is 1 - 6 (0 + 1 + 1) / (3 (9 - 1)) = 0.5. `mean` gives 0, 1, 2.
    state = state_of([[0.1, 0.0], [0.0, 0.2], [0.9, 0.0], [0.0, 0.0]], [1, 2, 9, 0], unseen=(3,))
    lengths_N = np.array([10, 4, 2, 1])
    assert place_ratio_correlation("cosine", state, lengths_N) == pytest.approx(0.5)
    assert place_ratio_correlation("mean", state, lengths_N) == pytest.approx(1.0)
    assert place_ratio_correlation("length", state, lengths_N) == pytest.approx(-1.0)
    assert place_ratio_correlation("random", state, lengths_N) is None
    assert place_ratio_correlation("cosine", TrainingState(), lengths_N) is None
    assert place_ratio_correlation("mean", state_of([[0.5]] * 3, [1, 1, 1]), lengths_N[:3]) is None


# --- an order that never acts -------------------------------------------------------------------


@pytest.mark.parametrize("curriculum", ORDERS)
def test_an_order_by_ratios_needs_a_second_epoch(curriculum: Any) -> None:
    settings = TrainingConfig(steps=16, batch_size=1, learning_rate=0.1, curriculum=curriculum)
    require_effect(settings, 17, 16)
    if curriculum in ("length", "random"):
        require_effect(settings, 16, 16)
        return
    with pytest.raises(UserError) as error:
        require_effect(settings, 16, 16)
    assert error.value.problems == (
        f"training.curriculum: {curriculum!r} acts from the second epoch on, that is after 16 steps,"
        " and the run ends after 16; give more, or --curriculum random",
    )


def test_times_a_step_by_epoch_by_hand() -> None:
    state = TrainingState(step=5, epoch_ends=[3], step_seconds=[9.0, 1.0, 2.0, 4.0, 6.0])
    assert state.seconds_by_epoch() == [2.0, 5.0]
    state.epoch_ends = [3, 5]  # the run ends with its second epoch
    assert state.seconds_by_epoch() == [2.0, 5.0]


# --- the other orders ---------------------------------------------------------------------------


def test_equal_counts_keep_the_order_of_the_data() -> None:
    assert order_by_counts("count", [[0.1], [0.9], [0.2], [0.0]], [3, 2, 3, 2]) == [1, 3, 0, 2]


def test_count_by_hand() -> None:
    # Tokens with two experts: 5 + 5 = 10, 1 + 0 = 1, 2 + 2 = 4, 0 + 4 = 4, 0.
    ratios = [[0.5, 0.5], [0.25, 0.0], [0.1, 0.1], [0.0, 0.8], [0.0, 0.0]]
    assert order("count", ratios, [10, 4, 20, 5, 9]) == [4, 1, 2, 3, 0]


def test_length_by_hand() -> None:
    assert order("length", None, [5, 2, 9, 2, 1]) == [4, 1, 3, 0, 2]
    assert order("length", [[0.1], [0.2], [0.3], [0.4], [0.5]], [5, 2, 9, 2, 1]) == [4, 1, 3, 0, 2]


def test_without_ratios_the_order_is_random() -> None:
    expected = np.random.default_rng(7).permutation(50).tolist()
    for curriculum in (*ORDERS_BY_RATIOS, "random"):
        assert order(curriculum, None, [1] * 50, seed=7) == expected
        assert order(curriculum, None, [1] * 50, seed=8) != expected
    assert expected != list(range(50))


def test_random_does_not_look_at_the_ratios() -> None:
    ratios = [[index / 50] for index in range(50)]
    assert order("random", ratios, [10] * 50, seed=7) == np.random.default_rng(7).permutation(50).tolist()


@FIXED
@given(
    curriculum=st.sampled_from(ORDERS),
    samples=st.lists(st.tuples(*[st.floats(0, 1)] * 3, st.integers(1, 60)), min_size=1, max_size=30),
    measured=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_order_is_a_permutation_fixed_by_the_seed(
    curriculum: str, samples: list[tuple[float, float, float, int]], measured: bool, seed: int
) -> None:
    ratios = [list(sample[:3]) for sample in samples] if measured else None
    lengths = [sample[3] for sample in samples]
    ordered = order(curriculum, ratios, lengths, seed)
    assert sorted(ordered) == list(range(len(samples)))
    assert ordered == order(curriculum, ratios, lengths, seed)
