"""The order of the training data: by what the gate did with each sample in the epoch before (paper 3.2)."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def epoch_order(
    curriculum: str, ratios_NL: Floats | None, lengths_N: Integers, generator: np.random.Generator
) -> Integers:
    """All samples in the order of the next epoch.

    * `cosine` (paper 3.2): the anchor is the sample with the fewest tokens given two experts; all
      samples follow by cosine similarity of their complexity vectors (eq. 5) to the anchor's, most
      similar first. 1e-6 is added to every component: a vector of zeros has no direction.
    * `count`: by the number of tokens given two experts, fewest first.
    * `length`: by length, shortest first.
    * `random`: shuffled; also for `cosine` and `count` while no ratios exist (`ratios_NL` is None).

    Ties keep the order of the data.
    """
    if curriculum == "length":
        return np.argsort(lengths_N, kind="stable")
    if curriculum == "random" or ratios_NL is None:
        return generator.permutation(len(lengths_N))
    # A ratio is a share of the sample's length, so this is the number of tokens over all layers.
    two_experts_N = np.rint(ratios_NL * lengths_N[:, None]).sum(1)
    if curriculum == "count":
        return np.argsort(two_experts_N, kind="stable")
    vectors_NL = ratios_NL + 1e-6
    vectors_NL = vectors_NL / np.linalg.norm(vectors_NL, axis=1, keepdims=True)
    similarity_N = vectors_NL @ vectors_NL[np.argmin(two_experts_N)]
    # Rounded, so that parallel vectors tie although their last bits differ.
    return np.argsort(-similarity_N.round(12), kind="stable")


def cut_batches(
    order_N: Integers,
    lengths_N: Integers,
    batch_size: int,
    pool: int,
    shuffle: np.random.Generator | None,
) -> list[list[int]]:
    """Cut an order into batches that need little padding; the last may be smaller.

    Every `pool` batches are cut together, from their samples sorted by length. Then all batches are
    shuffled, or, without a generator, stay as near to the order as their samples allow: pool after
    pool, within a pool by the mean place of their samples. A pool of 1 keeps the order exactly.
    """
    batches = []
    for samples in _chunks(order_N, batch_size * pool):
        by_length = np.argsort(lengths_N[samples], kind="stable")
        places = _chunks(by_length, batch_size)
        if shuffle is None:
            places = [np.sort(batch) for batch in sorted(places, key=lambda batch: float(batch.mean()))]
        batches += [samples[batch].tolist() for batch in places]
    if shuffle is None:
        return batches
    return [batches[index] for index in shuffle.permutation(len(batches))]


def _chunks(values: Integers, size: int) -> list[Integers]:
    return [values[start : start + size] for start in range(0, len(values), size)]
