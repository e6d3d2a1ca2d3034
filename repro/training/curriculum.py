"""The order of the training data: by what the gate did with each sample in the epoch before (paper 3.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from repro.config import ORDERS_BY_RATIOS, RunConfig, TrainingConfig
from repro.errors import UserError
from repro.tasks.base import Feature, Task
from repro.training.state import TrainingState

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the gate did with each sample in an epoch."""

    ratios_NL: Floats
    """Complexity vectors (paper eq. 5)."""
    num_multi_expert_N: Integers
    """Tokens given two or more experts, over all layers."""
    seen_N: npt.NDArray[np.bool_]
    """False: the sample was left out of the epoch, and its numbers mean nothing."""

    @staticmethod
    def of(state: TrainingState) -> "Measured | None":
        """Take the epoch before out of the state of a run; None in its first epoch, and without a gate."""
        if state.ratios_NL is None or state.num_multi_expert_N is None or state.seen_N is None:
            return None
        return Measured(
            ratios_NL=state.ratios_NL.double().numpy(),
            num_multi_expert_N=state.num_multi_expert_N.numpy(),
            seen_N=state.seen_N.numpy(),
        )


def epoch_order(
    curriculum: str, measured: Measured | None, lengths_N: Integers, generator: np.random.Generator
) -> Integers:
    """Put all samples in the order of the next epoch.

    The anchor is the sample with the fewest tokens given two experts.

    * `cosine` (paper 3.2): by cosine similarity of their complexity vectors (eq. 5) to the anchor's, most
      similar first. 1e-6 is added to every component: a vector of zeros has no direction.
    * `distance`: by Euclidean distance of their complexity vectors to the anchor's, nearest first.
    * `mean`: by the mean of their complexity vectors, smallest first.
    * `count`: by the number of tokens given two experts, fewest first.
    * `length`: by length, shortest first.
    * `random`: shuffled; also instead of the first four while nothing was measured (None).

    Ties keep the order of the data. Samples that were not seen in the epoch before are no anchor and stand
    behind all others, in the order of the data.

    Args:
        measured: of the epoch before.
        lengths_N: positions of each sample.
    """
    if curriculum == "length":
        return np.argsort(lengths_N, kind="stable")
    if curriculum not in ORDERS_BY_RATIOS or measured is None:
        return generator.permutation(len(lengths_N))
    seen = np.flatnonzero(measured.seen_N)
    keys = _keys(curriculum, measured.ratios_NL[seen], measured.num_multi_expert_N[seen])
    # Rounded, so that parallel vectors tie although their last bits differ.
    ordered = seen[np.argsort(keys.round(12), kind="stable")]
    return np.concatenate([ordered, np.flatnonzero(~measured.seen_N)])


def _keys(curriculum: str, ratios_NL: Floats, num_multi_expert_N: Integers) -> Floats:
    """Return the number by which each sample is sorted, smallest first."""
    anchor = np.argmin(num_multi_expert_N)
    keys_N: Floats
    if curriculum == "count":
        keys_N = num_multi_expert_N.astype(np.float64)
    elif curriculum == "mean":
        keys_N = ratios_NL.mean(1)
    elif curriculum == "distance":
        keys_N = np.linalg.norm(ratios_NL - ratios_NL[anchor], axis=1)
    else:
        vectors_NL = ratios_NL + 1e-6
        vectors_NL = vectors_NL / np.linalg.norm(vectors_NL, axis=1, keepdims=True)
        keys_N = -(vectors_NL @ vectors_NL[anchor])
    return keys_N


def place_ratio_correlation(curriculum: str, state: TrainingState, lengths_N: Integers) -> float | None:
    """Correlate each sample's place in the order of the state's epoch with its mean two-expert ratio.

    Spearman's rank correlation, over the samples that were seen in the epoch before, with the ratios
    of that epoch, from which the order is made. 1 is the order `mean`, easiest first.

    Returns:
        None if the order is random, if nothing was measured yet, or if all ratios are equal.
    """
    measured = Measured.of(state)
    if curriculum == "random" or measured is None:
        return None
    order_N = epoch_order(curriculum, measured, lengths_N, np.random.default_rng(0))
    order_N = order_N[measured.seen_N[order_N]]
    return rank_correlation(np.arange(len(order_N)), measured.ratios_NL[order_N].mean(1).round(12))


def rank_correlation(left_N: npt.NDArray[Any], right_N: npt.NDArray[Any]) -> float | None:
    """Return Spearman's rank correlation of two arrays; None if one of them is constant."""
    if left_N.min() == left_N.max() or right_N.min() == right_N.max():
        return None
    # scipy.stats has it, but takes a second to import, in the middle of a run.
    return float(np.corrcoef(_ranks(left_N), _ranks(right_N))[0, 1])


def _ranks(values_N: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Rank values from the lowest up; equal ones share the mean of their ranks."""
    _, place_N, count_U = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks_N: npt.NDArray[np.float64] = (count_U.cumsum() - (count_U - 1) / 2)[place_N]
    return ranks_N


@dataclass(frozen=True, kw_only=True)
class BatchSize:
    """How much a batch may hold: a number of samples, or of positions, padding included."""

    samples: int | None = None
    positions: int | None = None
    """Samples times the longest of them, of each part."""
    parts: int = 1
    """Into which a batch by positions is divided, one for each process."""

    def fits(self, samples: int, longest: int) -> bool:
        """Whether so many samples, padded to `longest`, make one batch; one sample always does."""
        if self.samples is not None:
            return samples <= self.samples
        return samples <= self.parts * max((self.positions or 0) // max(longest, 1), 1)

    def samples_of_length(self, length: float) -> int:
        """About how many samples of this length make one batch."""
        return self.samples or self.parts * max(1, int((self.positions or 0) / max(length, 1.0)))


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

    @property
    def lengths_N(self) -> Integers:
        """Positions of each example."""
        return np.array([self.task.length(feature) for feature in self.train])


def epoch_steps(
    config: RunConfig, data: TrainingData, state: TrainingState, processes: int
) -> list[list[list[int]]]:
    """Cut the state's epoch into the batches of each optimizer step; the same whenever it is called.

    Every sample is in one of them. Of a batch each process takes every n-th sample, which may be none.
    """
    settings = config.training
    generator = np.random.default_rng([config.seed, state.epoch])
    measured, lengths_N = Measured.of(state), data.lengths_N
    order_N = epoch_order(settings.curriculum, measured, lengths_N, generator)
    by_ratios = settings.curriculum in ORDERS_BY_RATIOS and measured is not None
    ordered = settings.curriculum == "length" or by_ratios
    batches = cut_batches(
        order_N,
        lengths_N,
        BatchSize(
            samples=settings.batch_size,
            positions=settings.batch_tokens,
            parts=processes if settings.batch_tokens_of == "process" else 1,
        ),
        settings.length_pool,
        None if ordered else generator,
    )
    group = settings.accumulation
    return [batches[start : start + group] for start in range(0, len(batches), group)]


def samples_left_out(config: RunConfig, data: TrainingData, processes: int) -> int:
    """Count the examples that no step of the first epoch has."""
    steps = epoch_steps(config, data, TrainingState(), processes)
    return len(data.train) - len({index for step in steps for batch in step for index in batch})


def require_effect(settings: TrainingConfig, steps: int, steps_per_epoch: int) -> None:
    """Refuse an order by ratios that never acts, because the run ends with its first epoch.

    Args:
        steps: of the run's budget.
        steps_per_epoch: of its first epoch.

    Raises:
        UserError: it never acts.
    """
    if settings.curriculum in ORDERS_BY_RATIOS and steps <= steps_per_epoch:
        raise UserError(
            f"training.curriculum: {settings.curriculum!r} acts from the second epoch on, that is after"
            f" {steps_per_epoch} steps, and the run ends after {steps}; give more, or --curriculum random"
        )
