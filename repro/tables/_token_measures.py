"""Numbers of one seed about which tokens get two experts, which claims are checked with."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from repro.records import Published
from repro.tables._analyses import GATE, layer_shares, share_of
from repro.tables._statistics import mean

Samples = Callable[[Published], list[float]]
Stack = dict[str, Any]
"""What an analysis holds of one stack of a model."""


def above_base(task: str, kind: str, names: Sequence[str], stack: str | None = None) -> Samples:
    """Share of two-expert tokens among items of a task minus that of all its tokens, for every seed.

    Args:
        kind: `categories` or `parts`.
        names: the items taken together.
        stack: only this one; all by default.
    """

    def difference(one: Stack) -> float | None:
        found = [one[kind][name] for name in names if name in one[kind]]
        share, base = share_of(found), share_of([one["all"]])
        return None if share is None or base is None else share - base

    return _by_seed(task, stack, difference)


def last_minus_first_layer(task: str, stack: str) -> Samples:
    """Share of two-expert tokens in the last layer of a stack minus that in the first, for every seed."""

    def difference(one: Stack) -> float | None:
        shares = layer_shares([one["all"]])
        if len(shares) < 2 or shares[0] is None or shares[-1] is None:
            return None
        return shares[-1] - shares[0]

    return _by_seed(task, stack, difference)


def late_minus_early(task: str) -> Samples:
    """Share of two-expert tokens in the last three tenths of the sequences minus that in the first three."""

    def difference(one: Stack) -> float | None:
        late, early = share_of(one["positions"][-3:]), share_of(one["positions"][:3])
        return None if late is None or early is None else late - early

    return _by_seed(task, None, difference)


def clear_share(gate: str) -> Samples:
    """Share of tokens whose best expert is at least twice as probable as the second, mean over tasks."""

    def samples(published: Published) -> list[float]:
        by_seed: dict[int, list[float]] = {}
        for analyses in published.analyzed(gate).values():
            for analysis in analyses:
                tokens = sum(layer["tokens"] for layer in analysis["layers"])
                if tokens:
                    clear = sum(layer["clear"] for layer in analysis["layers"])
                    by_seed.setdefault(analysis["seed"], []).append(clear / tokens)
        return [value for shares in by_seed.values() if (value := mean(shares)) is not None]

    return samples


def _by_seed(task: str, stack: str | None, get: Callable[[Stack], float | None]) -> Samples:
    """A number of every analysed adaptive run of a task, mean over its stacks."""

    def samples(published: Published) -> list[float]:
        return list(_values(published.analyzed(GATE).get(task, []), stack, get))

    return samples


def _values(
    analyses: Sequence[dict[str, Any]], stack: str | None, get: Callable[[Stack], float | None]
) -> Iterator[float]:
    for analysis in analyses:
        stacks = [one for name, one in analysis["stacks"].items() if stack in (None, name)]
        value = mean([number for one in stacks if (number := get(one)) is not None])
        if value is not None:
            yield value
