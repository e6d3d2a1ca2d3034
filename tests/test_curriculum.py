"""The order of the data, worked on paper with a handful of samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.training.curriculum import Integers, epoch_order

ORDERS = ["cosine", "count", "length", "random"]
FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def as_list(order_N: Integers) -> list[int]:
    return [int(sample) for sample in order_N]


def order(curriculum: str, ratios: list[list[float]] | None, lengths: list[int], seed: int = 0) -> list[int]:
    """The order, for samples whose tokens are all in one stack: counts are ratios times lengths."""
    lengths_N = np.array(lengths)
    generator = np.random.default_rng(seed)
    if ratios is None:
        return as_list(epoch_order(curriculum, None, None, lengths_N, generator))
    ratios_NL = np.array(ratios, dtype=np.float64)
    num_multi_expert_N = (ratios_NL.sum(1) * lengths_N).round().astype(np.int64)
    return as_list(epoch_order(curriculum, ratios_NL, num_multi_expert_N, lengths_N, generator))


def order_by_counts(curriculum: str, ratios: list[list[float]], counts: list[int]) -> list[int]:
    """The order, for samples of 10 positions with these numbers of tokens given two experts."""
    arguments = np.array(ratios), np.array(counts), np.full(len(counts), 10)
    return as_list(epoch_order(curriculum, *arguments, np.random.default_rng(0)))


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
    for curriculum in ("cosine", "count", "random"):
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
