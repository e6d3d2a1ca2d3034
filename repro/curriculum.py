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
    pool: int | None,
    generator: np.random.Generator,
) -> list[list[int]]:
    """Cut an order into batches; the last may be smaller.

    Without a pool the order is kept exactly. With one (for random order), every `pool` batches are
    cut together from their samples sorted by length, so that little padding is needed, and all
    batches are shuffled.
    """
    if pool is None:
        return [chunk.tolist() for chunk in _chunks(order_N, batch_size)]
    batches = []
    for samples in _chunks(order_N, batch_size * pool):
        by_length = samples[np.argsort(lengths_N[samples], kind="stable")]
        batches += [chunk.tolist() for chunk in _chunks(by_length, batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def _chunks(values: Integers, size: int) -> list[Integers]:
    return [values[start : start + size] for start in range(0, len(values), size)]
