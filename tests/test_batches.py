"""The cutting of an order into batches, worked on paper with a handful of samples."""

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resolved import config

from repro.tasks.base import Task
from repro.training.curriculum import BatchSize, TrainingData, cut_batches, epoch_steps, samples_left_out
from repro.training.state import TrainingState

FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=60)


def batches_of(
    samples: list[int], lengths: list[int], size: int, pool: int | None, seed: int = 0
) -> list[list[int]]:
    """Shuffled with a pool; in the exact order, which is a pool of 1, without."""
    shuffle = None if pool is None else np.random.default_rng(seed)
    return cut_batches(np.array(samples), np.array(lengths), BatchSize(samples=size), pool or 1, shuffle)


def test_without_a_pool_the_order_is_cut_as_it_is() -> None:
    assert batches_of([4, 1, 3, 0, 2], [9, 1, 5, 2, 7], 2, None) == [[4, 1], [3, 0], [2]]


def test_a_pool_sorts_by_length_and_shuffles_the_batches() -> None:
    # One pool of 3 batches of 2. By length: 1 (1), 3 (2), 5 (3), 2 (4), 0 (5), 4 (6).
    batches = batches_of([0, 1, 2, 3, 4, 5], [5, 1, 4, 2, 6, 3], 2, 3)
    assert sorted(batches) == [[0, 4], [1, 3], [5, 2]]
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
    batches = batches_of(samples, lengths, size, pool, seed)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(count))
    assert len(batches) == -(-count // size)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)  # at most one is smaller
    assert all(type(index) is int for index in flat)
    assert batches == batches_of(samples, lengths, size, pool, seed)
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


# --- several processes --------------------------------------------------------------------------------


def long_data(samples: int) -> TrainingData:
    """Samples of 300 to 1,024 positions, as articles are."""
    lengths = np.random.default_rng(7).integers(300, 1025, samples).tolist()
    task = SimpleNamespace(length=lambda feature: feature["length"])
    return TrainingData(task=cast(Task, task), train=[{"length": length} for length in lengths])


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "size",
    [
        {"batch_size": 1, "batch_tokens": None},
        {"batch_size": 24, "batch_tokens": None},
        {"batch_size": None, "batch_tokens": 4096},
        {"batch_size": None, "batch_tokens": 4096, "batch_tokens_of": "batch"},
    ],
    ids=str,
)
def test_processes_train_every_sample_once(size: dict[str, Any], processes: int) -> None:
    run = config("adaptive")
    run = dataclasses.replace(run, training=dataclasses.replace(run.training, **size))
    data = long_data(1085)
    steps = epoch_steps(run, data, TrainingState(), processes)
    parts = [batch[rank::processes] for step in steps for batch in step for rank in range(processes)]
    assert sorted(index for part in parts for index in part) == list(range(1085))
    assert samples_left_out(run, data, processes) == 0
    if size["batch_tokens"] is None:
        assert len(steps) == -(-1085 // size["batch_size"])
        return
    # Positions are those of a process, or of all of them together.
    lengths = [feature["length"] for feature in data.train]
    of_part = [len(part) * max(lengths[index] for index in part) for part in parts if part]
    assert max(of_part) <= 4096
    if "batch_tokens_of" in size:
        assert max(len(b) * max(lengths[index] for index in b) for step in steps for b in step) <= 4096


def test_batch_tokens_of_processes_by_hand() -> None:
    # 100 positions for each of 3 processes, samples of 30: 3 for each, 9 together.
    size = BatchSize(positions=100, parts=3)
    assert size.fits(9, 30)
    assert not size.fits(10, 30)
    # One sample for each of them is always allowed.
    assert size.fits(3, 400)
    assert not size.fits(4, 400)
    assert size.samples_of_length(30.0) == 9
