"""The order of the training data: by what the gate did with each sample in the epoch before (paper 3.2)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repro.config import RunConfig
from repro.tasks.base import Feature, Task
from repro.training.state import TrainingState

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def epoch_order(
    curriculum: str,
    ratios_NL: Floats | None,
    num_multi_expert_N: Integers | None,
    lengths_N: Integers,
    generator: np.random.Generator,
) -> Integers:
    """All samples in the order of the next epoch.

    * `cosine` (paper 3.2): the anchor is the sample with the fewest tokens given two experts; all
      samples follow by cosine similarity of their complexity vectors (eq. 5) to the anchor's, most
      similar first. 1e-6 is added to every component: a vector of zeros has no direction.
    * `count`: by the number of tokens given two experts, fewest first.
    * `length`: by length, shortest first.
    * `random`: shuffled; also for `cosine` and `count` while nothing was measured (None).

    Ties keep the order of the data.

    Args:
        ratios_NL: complexity vectors.
        num_multi_expert_N: tokens given two or more experts, over all layers.
        lengths_N: positions of each sample.
    """
    if curriculum == "length":
        return np.argsort(lengths_N, kind="stable")
    if curriculum == "random" or ratios_NL is None or num_multi_expert_N is None:
        return generator.permutation(len(lengths_N))
    if curriculum == "count":
        return np.argsort(num_multi_expert_N, kind="stable")
    vectors_NL = ratios_NL + 1e-6
    vectors_NL = vectors_NL / np.linalg.norm(vectors_NL, axis=1, keepdims=True)
    similarity_N = vectors_NL @ vectors_NL[np.argmin(num_multi_expert_N)]
    # Rounded, so that parallel vectors tie although their last bits differ.
    return np.argsort(-similarity_N.round(12), kind="stable")


@dataclass(frozen=True, kw_only=True)
class BatchSize:
    """How much a batch may hold: a number of samples, or of positions, padding included."""

    samples: int | None = None
    positions: int | None = None
    """Samples times the longest of them."""

    def fits(self, samples: int, longest: int) -> bool:
        """Whether so many samples, padded to `longest`, make one batch; one sample always does."""
        limit = self.samples if self.samples is not None else (self.positions or 0) // max(longest, 1)
        return samples <= max(limit, 1)

    def samples_of_length(self, length: float) -> int:
        """About how many samples of this length make one batch."""
        return self.samples or max(1, int((self.positions or 0) / max(length, 1.0)))


def cut_batches(
    order_N: Integers,
    lengths_N: Integers,
    size: BatchSize,
    pool: int,
    shuffle: np.random.Generator | None,
) -> list[list[int]]:
    """Cut an order into batches that need little padding; the last of a pool may be smaller.

    Every `pool` batches are cut together, from their samples sorted by length. Then all batches are
    shuffled, or, without a generator, stay as near to the order as their samples allow: pool after
    pool, within a pool by the mean place of their samples. A pool of 1 keeps the order exactly.
    """
    batches = []
    pool_samples = size.samples_of_length(float(lengths_N.mean())) * pool if pool > 1 else len(order_N)
    for samples in _chunks(order_N, pool_samples):
        lengths = lengths_N[samples]
        places = np.argsort(lengths, kind="stable") if pool > 1 else np.arange(len(samples))
        cut = _fill(places, lengths, size)
        if shuffle is None:
            cut = [np.sort(batch) for batch in sorted(cut, key=lambda batch: float(batch.mean()))]
        batches += [samples[batch].tolist() for batch in cut]
    if shuffle is None:
        return batches
    return [batches[index] for index in shuffle.permutation(len(batches))]


def _fill(places: Integers, lengths: Integers, size: BatchSize) -> list[Integers]:
    """Take places in their order into batches, each as full as the size allows."""
    batches, start, longest = [], 0, 0
    for end, place in enumerate(places):
        longest = max(longest, int(lengths[place]))
        if not size.fits(end + 1 - start, longest):
            batches.append(places[start:end])
            start, longest = end, int(lengths[place])
    return [*batches, places[start:]]


def _chunks(values: Integers, size: int) -> list[Integers]:
    return [values[start : start + size] for start in range(0, len(values), size)]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The encoded examples that a run trains on."""

    task: Task
    train: list[Feature]


def epoch_steps(
    config: RunConfig, data: TrainingData, state: TrainingState, processes: int
) -> list[list[list[int]]]:
    """Cut the state's epoch into the batches of each optimizer step; the same whenever it is called."""
    settings = config.training
    generator = np.random.default_rng([config.seed, state.epoch])
    lengths_N = np.array([data.task.length(feature) for feature in data.train])
    ratios_NL = None if state.ratios_NL is None else state.ratios_NL.double().numpy()
    counts_N = None if state.num_multi_expert_N is None else state.num_multi_expert_N.numpy()
    order_N = epoch_order(settings.curriculum, ratios_NL, counts_N, lengths_N, generator)
    ordered = settings.curriculum == "length" or (settings.curriculum != "random" and ratios_NL is not None)
    batches = cut_batches(
        order_N,
        lengths_N,
        BatchSize(samples=settings.batch_size, positions=settings.batch_tokens),
        settings.length_pool,
        None if ordered else generator,
    )
    # A process without a sample has nothing to run; such a rest is left out of the epoch.
    batches = [batch for batch in batches if len(batch) >= processes]
    group = settings.accumulation
    return [batches[start : start + group] for start in range(0, len(batches), group)]
