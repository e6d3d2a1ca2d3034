"""Which tokens and layers get two experts: one number for each analysed run, that is for each seed."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from repro import paper
from repro.report.analyses import GATE, layer_shares, share_of
from repro.report.claims.evidence import Evidence
from repro.report.statistics import over_seeds, over_tasks
from repro.results.analysis import Counts, StackAnalysis
from repro.results.published import Published

Stack: TypeAlias = Literal["encoder", "decoder"]
Depth: TypeAlias = Literal["all", "shallow", "deep"]
"""All layers of a stack, its first half or its last; the middle one of an odd number is in neither."""


def excess(
    published: Published,
    *,
    task: str,
    stack: Stack,
    names: Sequence[str],
    kind: Literal["categories", "parts"] = "categories",
    depth: Depth = "all",
) -> Evidence:
    """Measure the share of two-expert tokens among items minus that of all tokens of the stack.

    Args:
        kind: what the names are: categories of a generated corpus, or parts of the input.
    """

    def difference(one: StackAnalysis) -> float | None:
        table = one.categories if kind == "categories" else one.parts
        counts = [_layers(table[name], depth) for name in names if name in table]
        share, base = share_of(counts), share_of([_layers(one.all, depth)])
        return None if share is None or base is None else share - base

    return _by_seed(published, task, stack, difference)


def change(published: Published, *, task: str, stack: Stack) -> Evidence:
    """Measure how much the share rises along a stack: least-squares line, last layer minus first."""

    def slope(one: StackAnalysis) -> float | None:
        shares = _profile(one)
        if len(shares) < 2:
            return None
        centre = (len(shares) - 1) / 2
        moment = sum((layer - centre) * share for layer, share in enumerate(shares))
        return (len(shares) - 1) * moment / sum((layer - centre) ** 2 for layer in range(len(shares)))

    return _by_seed(published, task, stack, slope)


def spread(published: Published, *, task: str, stack: Stack) -> Evidence:
    """Measure how far the layers of a stack are apart: largest share minus smallest."""

    def width(one: StackAnalysis) -> float | None:
        shares = _profile(one)
        return max(shares) - min(shares) if len(shares) > 1 else None

    return _by_seed(published, task, stack, width)


def reversal(published: Published, *, task: str, stack: Stack) -> Evidence:
    """Measure how much the share goes up and down along a stack: sum of all steps, less the straight way.

    It is 0 where the share only rises or only falls, and not measured with fewer than three layers.
    """

    def detour(one: StackAnalysis) -> float | None:
        shares = _profile(one)
        if len(shares) < 3:
            return None
        way = sum(abs(after - before) for before, after in itertools.pairwise(shares))
        return way - abs(shares[-1] - shares[0])

    return _by_seed(published, task, stack, detour)


def late_minus_early(published: Published, *, task: str, stack: Stack) -> Evidence:
    """Measure the share in the last three tenths of the sequences minus that in the first three."""

    def difference(one: StackAnalysis) -> float | None:
        late, early = share_of(one.positions[-3:]), share_of(one.positions[:3])
        return None if late is None or early is None else late - early

    return _by_seed(published, task, stack, difference)


def clear(published: Published, *, gate: str) -> Evidence:
    """Measure the share of tokens whose best expert is at least twice as probable as the second."""
    analyses = published.analyzed(gate)
    strata = []
    for task in paper.tasks():
        totals = [sum(layer.tokens for layer in analysis.layers) for analysis in analyses.get(task, ())]
        counts = [sum(layer.clear for layer in analysis.layers) for analysis in analyses.get(task, ())]
        strata.append([count / total for count, total in zip(counts, totals, strict=True) if total])
    return Evidence(overall=over_tasks(strata))


def _layers(counts: Counts, depth: Depth) -> Counts:
    """Return the counts in some layers of the stack."""
    half = len(counts.multi_L) // 2
    chosen = {"all": counts.multi_L, "shallow": counts.multi_L[:half], "deep": counts.multi_L[-half:]}
    return Counts(counts.tokens, chosen[depth] if half or depth == "all" else [])


def _profile(one: StackAnalysis) -> list[float]:
    """Return the share in each layer of the stack; nothing if a layer saw no token."""
    shares = layer_shares([one.all])
    known = [share for share in shares if share is not None]
    return known if len(known) == len(shares) else []


def _by_seed(
    published: Published, task: str, stack: Stack, number: Callable[[StackAnalysis], float | None]
) -> Evidence:
    """Measure a stack of every analysed adaptive run of a task."""
    stacks = [
        analysis.stacks[stack]
        for analysis in published.analyzed(GATE).get(task, [])
        if stack in analysis.stacks
    ]
    return Evidence(overall=over_seeds([value for one in stacks if (value := number(one)) is not None]))
