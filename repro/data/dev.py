"""The dev split: whole groups of the training split, chosen while its rows go by."""

import heapq
from collections import deque
from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain
from typing import Protocol


class DevCut(Protocol):
    """Chooses the rows of the dev split; only the numbers of those that may be in it are in memory."""

    def add(self, number: int, group: str) -> None:
        """Take the next row."""

    def numbers(self) -> list[int]:
        """Return the numbers of the chosen rows, ascending: whole groups, at least one."""


def dev_cut(samples: int, contiguous: bool) -> DevCut:
    """Return what chooses at most so many rows, or the first group where that alone has more.

    The choice depends on the rows alone: it is the end of running text, otherwise the groups that come first
    in the order of a hash of their names.
    """
    return _End(samples) if contiguous else _Hashed(samples)


class _Hashed:
    """Of all groups, in the order of their hashes, as many as fit."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._rows: dict[int, list[int]] = {}
        self._largest: list[int] = []
        """Hashes of the groups, negative: the heap has the largest first."""
        self._count = 0
        self._limit = 1 << 64
        """Groups from this hash on do not fit."""

    def add(self, number: int, group: str) -> None:
        """Take the next row; let groups go that no longer fit, for good."""
        rank = int.from_bytes(blake2b(group.encode(), digest_size=8).digest())
        if rank >= self._limit:
            return
        if rank not in self._rows:
            self._rows[rank] = []
            heapq.heappush(self._largest, -rank)
        self._rows[rank].append(number)
        self._count += 1
        while self._count > self._samples and len(self._rows) > 1:
            self._limit = -heapq.heappop(self._largest)
            self._count -= len(self._rows.pop(self._limit))

    def numbers(self) -> list[int]:
        """Return the numbers of the chosen rows, ascending."""
        return sorted(chain.from_iterable(self._rows.values()))


class _End:
    """The last groups of running text, as many as fit."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._groups: deque[list[int]] = deque()
        self._last: str | None = None
        self._count = 0

    def add(self, number: int, group: str) -> None:
        """Take the next row; let groups go that are too far from the end."""
        if group != self._last:
            self._last = group
            self._groups.append([])
        self._groups[-1].append(number)
        self._count += 1
        while self._count > self._samples and len(self._groups) > 1:
            self._count -= len(self._groups.popleft())

    def numbers(self) -> list[int]:
        """Return the numbers of the chosen rows, ascending."""
        return [*chain.from_iterable(self._groups)]


def numbers_of(indices: Iterator[int] | list[int] | range, left_out: list[int]) -> Iterator[int]:
    """Yield the numbers, from 1, of rows that have these indices when others are left out.

    Args:
        indices: from 0, ascending.
        left_out: numbers of the others, ascending.
    """
    passed = 0
    for index in indices:
        while passed < len(left_out) and left_out[passed] <= index + passed + 1:
            passed += 1
        yield index + passed + 1
