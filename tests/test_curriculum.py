"""The order of the data and its cutting into batches, worked on paper with a handful of samples."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro._result import rank_correlation
from repro.curriculum import BatchSize, cut_batches, epoch_order

ORDERS = ["cosine", "count", "length", "random"]
FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def order(curriculum: str, ratios: list[list[float]] | None, lengths: list[int], seed: int = 0) -> list[int]:
    """The order, for samples whose tokens are all in one stack: counts are ratios times lengths."""
    lengths_N = np.array(lengths)
    generator = np.random.default_rng(seed)
    if ratios is None:
        return epoch_order(curriculum, None, None, lengths_N, generator).tolist()
    ratios_NL = np.array(ratios, dtype=np.float64)
    several_N = (ratios_NL.sum(1) * lengths_N).round().astype(np.int64)
    return epoch_order(curriculum, ratios_NL, several_N, lengths_N, generator).tolist()


def order_by_counts(curriculum: str, ratios: list[list[float]], several: list[int]) -> list[int]:
    """The order, for samples of 10 positions with these numbers of tokens given two experts."""
    arguments = np.array(ratios), np.array(several), np.full(len(several), 10)
    return epoch_order(curriculum, *arguments, np.random.default_rng(0)).tolist()


def batches_of(
    samples: list[int], lengths: list[int], size: int, pool: int | None, seed: int = 0
) -> list[list[int]]:
    """Shuffled with a pool; in the exact order, which is a pool of 1, without."""
    shuffle = None if pool is None else np.random.default_rng(seed)
    return cut_batches(np.array(samples), np.array(lengths), BatchSize(samples=size), pool or 1, shuffle)


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
    known=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_order_is_a_permutation_fixed_by_the_seed(
    curriculum: str, samples: list[tuple[float, float, float, int]], known: bool, seed: int
) -> None:
    ratios = [list(sample[:3]) for sample in samples] if known else None
    lengths = [sample[3] for sample in samples]
    found = order(curriculum, ratios, lengths, seed)
    assert sorted(found) == list(range(len(samples)))
    assert found == order(curriculum, ratios, lengths, seed)


# --- batches ------------------------------------------------------------------------------------


def test_without_a_pool_the_order_is_cut_as_it_is() -> None:
    assert batches_of([4, 1, 3, 0, 2], [9, 1, 5, 2, 7], 2, None) == [[4, 1], [3, 0], [2]]


def test_a_pool_sorts_by_length_and_shuffles_the_batches() -> None:
    # One pool of 3 batches of 2. By length: 1 (1), 3 (2), 5 (3), 2 (4), 0 (5), 4 (6).
    found = batches_of([0, 1, 2, 3, 4, 5], [5, 1, 4, 2, 6, 3], 2, 3)
    assert sorted(found) == [[0, 4], [1, 3], [5, 2]]
    seen = {str(batches_of([0, 1, 2, 3, 4, 5], [5, 1, 4, 2, 6, 3], 2, 3, seed)) for seed in range(30)}
    assert len(seen) == 6  # all 3! orders of the batches occur


def test_samples_of_different_pools_do_not_meet() -> None:
    # Pools of 2 batches of 2: samples 0 1 2 3 (lengths 5 1 4 2 -> 1 3 | 2 0), then 4 5 (6 3 -> 5 4).
    assert sorted(batches_of([0, 1, 2, 3, 4, 5], [5, 1, 4, 2, 6, 3], 2, 2)) == [[1, 3], [2, 0], [5, 4]]


@FIXED
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 9),
    pool=st.none() | st.integers(1, 5),
    seed=st.integers(0, 5),
)
def test_batches_hold_every_sample_once(count: int, size: int, pool: int | None, seed: int) -> None:
    generator = np.random.default_rng(seed)
    samples, lengths = generator.permutation(count).tolist(), generator.integers(1, 40, count).tolist()
    found = batches_of(samples, lengths, size, pool, seed)
    flat = [index for batch in found for index in batch]
    assert sorted(flat) == list(range(count))
    assert len(found) == -(-count // size)
    assert sorted(map(len, found))[1:] == [size] * (len(found) - 1)  # at most one is smaller
    assert all(type(index) is int for index in flat)
    assert found == batches_of(samples, lengths, size, pool, seed)
    if pool is None:
        assert flat == samples


def test_the_seed_decides_the_order_of_pooled_batches() -> None:
    samples, lengths = list(range(100)), [1 + index % 13 for index in range(100)]
    assert batches_of(samples, lengths, 5, 4, seed=1) != batches_of(samples, lengths, 5, 4, seed=2)


@pytest.mark.parametrize("pool", [2, 10, 40])
def test_a_pool_needs_less_padding(pool: int) -> None:
    generator = np.random.default_rng(3)
    samples, lengths = generator.permutation(640).tolist(), generator.integers(1, 65, 640).tolist()

    def padded_tokens(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    real = sum(lengths)
    without = padded_tokens(batches_of(samples, lengths, 16, None)) - real
    pooled = padded_tokens(batches_of(samples, lengths, 16, pool)) - real
    # Within k batches sorted by length, a batch spans about a k-th of the lengths.
    assert pooled < 0.8 * without if pool == 2 else pooled < 0.25 * without


def test_a_curriculum_is_cut_from_pools_by_hand() -> None:
    # Order 7 6 5 4 | 3 2 1 0 in pools of two batches of two. First pool: lengths of 7 6 5 4 are
    # 1 9 2 8, by length 7 5 4 6 -> batches {7, 5} and {4, 6}, mean places 1.0 and 2.0.
    # Second pool: lengths of 3 2 1 0 are 9 9 1 1, by length 1 0 3 2 -> {1, 0} at 2.5, {3, 2} at 0.5.
    lengths = np.array([1, 1, 9, 9, 8, 2, 9, 1])
    order_N = np.array([7, 6, 5, 4, 3, 2, 1, 0])
    assert cut_batches(order_N, lengths, BatchSize(samples=2), 2, None) == [[7, 5], [6, 4], [3, 2], [1, 0]]


@FIXED
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 4))
def test_pools_of_a_curriculum_keep_their_places(lengths: list[int], size: int, pool: int) -> None:
    order_N = np.random.default_rng(0).permutation(len(lengths))
    batches = cut_batches(order_N, np.array(lengths), BatchSize(samples=size), pool, None)
    flat = [index for batch in batches for index in batch]
    for start in range(0, len(lengths), size * pool):
        end = start + size * pool
        assert sorted(flat[start:end]) == sorted(order_N[start:end].tolist())
    if pool == 1:
        assert flat == order_N.tolist()


# --- batches of positions -----------------------------------------------------------------------


def test_what_fits_into_a_batch() -> None:
    samples = BatchSize(samples=3)
    assert [samples.fits(count, 1000) for count in (1, 3, 4)] == [True, True, False]
    positions = BatchSize(positions=12)
    # 12 // 5 = 2 samples of 5 positions, 12 // 4 = 3 of 4; one sample always fits.
    assert [positions.fits(count, 5) for count in (1, 2, 3)] == [True, True, False]
    assert [positions.fits(count, 4) for count in (3, 4)] == [True, False]
    assert [positions.fits(count, 13) for count in (1, 2)] == [True, False]
    assert positions.fits(1, 0)


def test_samples_of_a_length_in_a_batch() -> None:
    assert BatchSize(samples=3).samples_of_length(99.5) == 3
    assert BatchSize(positions=12).samples_of_length(4.0) == 3
    assert BatchSize(positions=12).samples_of_length(4.5) == 2
    assert BatchSize(positions=12).samples_of_length(50.0) == 1
    assert BatchSize(positions=12).samples_of_length(0.0) == 12


def test_batches_of_positions_by_hand() -> None:
    # 12 positions. In the order: 5, 5 (10, and 15 with a third) | 2, 6 (12) | 13 alone | 1 1 1.
    lengths = np.array([5, 5, 2, 6, 13, 1, 1, 1])
    batches = cut_batches(np.arange(8), lengths, BatchSize(positions=12), 1, None)
    assert batches == [[0, 1], [2, 3], [4], [5, 6, 7]]
    # A longer sample makes the earlier ones longer too: 1, 1, 1 and then 4 would be 16.
    lengths = np.array([1, 1, 1, 4])
    assert cut_batches(np.arange(4), lengths, BatchSize(positions=12), 1, None) == [[0, 1, 2], [3]]


def test_pools_of_positions_by_hand() -> None:
    # Mean length 3: 12 // 3 = 4 samples make a batch, so a pool of 2 batches holds all 8.
    # By length: 1 1 1 2 | 4 4 5 | 6: 4 * 2 = 8 positions, with a 4 it were 5 * 4 = 20; 2 * 4 = 8, with the
    # third (5) 15, so 4 4 | 5 6 is 12.
    lengths = np.array([6, 1, 4, 1, 5, 1, 4, 2])
    batches = cut_batches(np.arange(8), lengths, BatchSize(positions=12), 2, None)
    # By the mean place of their samples: {0, 4} at 2, {1, 3, 5, 7} and {2, 6} at 4.
    assert batches == [[0, 4], [1, 3, 5, 7], [2, 6]]


@FIXED
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=50),
    positions=st.integers(1, 80),
    pool=st.integers(1, 4),
    shuffled=st.booleans(),
)
def test_batches_of_positions_are_full_and_never_too_large(
    lengths: list[int], positions: int, pool: int, shuffled: bool
) -> None:
    size, lengths_N = BatchSize(positions=positions), np.array(lengths)
    order_N = np.random.default_rng(0).permutation(len(lengths))
    shuffle = np.random.default_rng(1) if shuffled else None
    batches = cut_batches(order_N, lengths_N, size, pool, shuffle)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= positions
    if pool == 1 and not shuffled:
        assert [index for batch in batches for index in batch] == order_N.tolist()
        for batch, following in itertools.pairwise(batches):
            # The next sample did not fit any more.
            more = [*batch, following[0]]
            assert len(more) * max(lengths[index] for index in more) > positions


class TestRankCorrelation:
    """What a result says of samples' lengths and their shares of two-expert tokens."""

    def test_equal_values_share_a_rank(self) -> None:
        """Ranks 1, 2.5, 2.5, 4 and 4, 3, 2, 1: covariance -4.5, variances 4.5 and 5."""
        found = rank_correlation(np.array([1, 2, 2, 9]), np.array([0.8, 0.5, 0.4, 0.1]))
        assert found == pytest.approx(-4.5 / (4.5 * 5) ** 0.5)

    def test_constant(self) -> None:
        assert rank_correlation(np.array([3, 3, 3]), np.array([0.1, 0.2, 0.3])) is None
        assert rank_correlation(np.array([1, 2, 3]), np.zeros(3)) is None
