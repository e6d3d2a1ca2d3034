"""Numbers of one seed about which tokens get two experts, which claims are checked with."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from repro.report.analyses import GATE, layer_shares, share_of
from repro.report.measures import Samples
from repro.report.statistics import mean
from repro.results.analysis import Counts, StackAnalysis
from repro.results.published import Published

StackNumber: TypeAlias = Callable[[StackAnalysis], float | None]


def categories(stack: StackAnalysis) -> Mapping[str, Counts]:
    """Return the counts by category of a generated corpus."""
    return stack.categories


def parts(stack: StackAnalysis) -> Mapping[str, Counts]:
    """Return the counts by part of the input."""
    return stack.parts


def above_base(
    task: str,
    kind: Callable[[StackAnalysis], Mapping[str, Counts]],
    names: Sequence[str],
    stack: str | None = None,
) -> Samples:
    """Return the share of two-expert tokens among items minus that of all tokens, for every seed.

    Args:
        kind: `categories` or `parts`.
        names: the items taken together.
        stack: only this one; all by default.
    """

    def difference(one: StackAnalysis) -> float | None:
        counts = [kind(one)[name] for name in names if name in kind(one)]
        share, base = share_of(counts), share_of([one.all])
        return None if share is None or base is None else share - base

    return _by_seed(task, stack, difference)


def last_minus_first_layer(task: str, stack: str) -> Samples:
    """Return the share in the last layer of a stack minus that in the first, for every seed."""

    def difference(one: StackAnalysis) -> float | None:
        shares = layer_shares([one.all])
        if len(shares) < 2 or shares[0] is None or shares[-1] is None:
            return None
        return shares[-1] - shares[0]

    return _by_seed(task, stack, difference)


def late_minus_early(task: str) -> Samples:
    """Return the share in the last three tenths of the sequences minus that in the first three."""

    def difference(one: StackAnalysis) -> float | None:
        late, early = share_of(one.positions[-3:]), share_of(one.positions[:3])
        return None if late is None or early is None else late - early

    return _by_seed(task, None, difference)


def clear_share(gate: str) -> Samples:
    """Return the share of tokens whose best expert is at least twice as probable as the second.

    One number for every seed, the mean over tasks.
    """

    def samples(published: Published) -> list[float]:
        by_seed: dict[int, list[float]] = {}
        for analyses in published.analyzed(gate).values():
            for analysis in analyses:
                tokens = sum(layer.tokens for layer in analysis.layers)
                if tokens:
                    clear = sum(layer.clear for layer in analysis.layers)
                    by_seed.setdefault(analysis.seed, []).append(clear / tokens)
        return [value for shares in by_seed.values() if (value := mean(shares)) is not None]

    return samples


def _by_seed(task: str, stack: str | None, number: StackNumber) -> Samples:
    """Return a number of every analysed adaptive run of a task, mean over its stacks."""

    def samples(published: Published) -> list[float]:
        values = []
        for analysis in published.analyzed(GATE).get(task, []):
            chosen = [one for name, one in analysis.stacks.items() if stack in (None, name)]
            values.append(mean([value for one in chosen if (value := number(one)) is not None]))
        return [value for value in values if value is not None]

    return samples
