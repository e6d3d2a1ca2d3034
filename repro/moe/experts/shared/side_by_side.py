"""Share the groups of a layer out over the CPU's threads: each computes whole experts by itself.

One product after the other, each by all threads, leaves little to do for a thread where experts are many
and small, and all wait for each other after every product.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

Group = tuple[int, slice]
"""An expert that has rows, and where they are."""
_UNEVEN = 1.1
"""Up to this ratio of the largest part to the mean, threads that work by themselves are the faster way: with
even parts the other one takes 1.02 to 1.13 times as long (docs/log.md)."""


def each_group(work: Callable[[int, slice], None], groups: Sequence[Group], device: torch.device) -> None:
    """Call `work` once for every group, without gradients; in several threads where that is faster.

    `work` writes into tensors that are there already, each group into places of its own. Where one thread
    would have much more to do than the others, all of them share every product instead.
    """
    # What counts operations (`torch.utils.flop_counter`) sees those of its own thread only.
    alone = device.type != "cpu" or is_in_torch_dispatch_mode()
    threads = 1 if alone else torch.get_num_threads()
    parts = balanced_parts(groups, threads) if threads > 1 else [groups]
    sizes = [sum(map(_rows, part)) for part in parts]
    if threads == 1 or max(sizes) * threads > _UNEVEN * sum(sizes):
        _do(work, groups)
        return
    others = [_pool(threads).submit(_do, work, part) for part in parts[1:]]
    torch.set_num_threads(1)
    try:
        _do(work, parts[0])
    finally:
        torch.set_num_threads(threads)
        for other in others:
            other.result()


@torch.inference_mode()
def _do(work: Callable[[int, slice], None], groups: Sequence[Group]) -> None:
    for expert, rows in groups:
        work(expert, rows)


def balanced_parts(groups: Sequence[Group], count: int) -> Sequence[Sequence[Group]]:
    """Split groups into parts with about as many rows: the largest first, each to the smallest part."""
    parts: list[list[Group]] = [[] for _ in range(count)]
    sizes = [0] * count
    for group in sorted(groups, key=_rows, reverse=True):
        smallest = sizes.index(min(sizes))
        parts[smallest].append(group)
        sizes[smallest] += _rows(group)
    return parts


def _rows(group: Group) -> int:
    return int(group[1].stop - group[1].start)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads besides the caller's; how many threads torch uses is a setting of each thread."""
    return ThreadPoolExecutor(threads - 1, "experts", initializer=partial(torch.set_num_threads, 1))
