"""Words, categories and places of a task with their share of two-expert tokens, over its analysed runs.

The share of an item is that of its (token, layer) pairs with two experts or more. It is tested against the
share of all tokens of its stack by a bootstrap over sequences, since the tokens of a text are not
independent. Nor are the decisions of one router: an item stands out only if every seed agrees.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from repro.report.schemes import tasks_in_order
from repro.report.significance import Grouped, adjusted, share_p
from repro.results.analysis import Analysis, Counts, StackAnalysis
from repro.results.published import Published

GATE = "adaptive"
LEVEL = 0.05
"""Largest q of an item that counts as different from the base rate."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One word, category, part, tenth, length or frequency band of a stack of a task."""

    kind: str
    stack: str
    name: str
    tokens: int
    share: float | None
    """Of (token, layer) pairs."""
    by_layer: Sequence[float | None]
    base: float | None
    """Share of the stack."""
    above: int
    """Runs in which the share is above the base rate of that run."""
    runs: int
    p: float | None
    q: float | None = None
    occurrences: int | None = None
    """Of words: how often, however many subwords it has."""
    word_share: float | None = None
    """Of words: share of (occurrence, layer) pairs in which any subword got two experts."""

    @property
    def difference(self) -> float | None:
        """Share minus base rate."""
        return None if self.share is None or self.base is None else self.share - self.base

    @property
    def often(self) -> bool:
        """Whether it gets two experts more often than its stack: significantly, and in every run."""
        return self.above == self.runs and self.q is not None and self.q <= LEVEL


def share_of(counts: Iterable[Counts]) -> float | None:
    """Return the share of two-expert (token, layer) pairs; None of nothing."""
    counts = list(counts)
    pairs = sum(one.tokens * len(one.multi_L) for one in counts)
    return sum(sum(one.multi_L) for one in counts) / pairs if pairs else None


def layer_shares(counts: Sequence[Counts]) -> list[float | None]:
    """Return the share of two-expert tokens in each layer of the stack."""
    tokens = sum(one.tokens for one in counts)
    columns = itertools.zip_longest(*(one.multi_L for one in counts), fillvalue=0)
    return [sum(column) / tokens if tokens else None for column in columns]


def items(analyses: Sequence[Analysis]) -> list[Item]:
    """Test all items of a task, from runs that differ in their seed; q is corrected within a kind."""
    tested = [item for stack in stacks(analyses) for item in _items_of(analyses, stack)]
    corrected = []
    for kind in dict.fromkeys(item.kind for item in tested):
        same = [item for item in tested if item.kind == kind]
        q_values = adjusted([item.p for item in same])
        corrected += [replace(item, q=q) for item, q in zip(same, q_values, strict=True)]
    return corrected


def stacks(analyses: Sequence[Analysis]) -> list[str]:
    """Return the names of the stacks that one of the analyses has."""
    return list(dict.fromkeys(stack for analysis in analyses for stack in analysis.stacks))


def _items_of(analyses: Sequence[Analysis], stack: str) -> Iterator[Item]:
    """Test the items of one stack; without q."""
    runs = [analysis.stacks[stack] for analysis in analyses if stack in analysis.stacks]
    bases = [run.all for run in runs]
    occurrences = [{word.word: word.of_occurrences for word in run.words.rows} for run in runs]
    for kind, tables in _kinds(runs):
        for name in dict.fromkeys(name for table in tables for name in table):
            present = [
                (table[name], base) for table, base in zip(tables, bases, strict=True) if name in table
            ]
            item = _item(kind, stack, name, present)
            if kind == "word":
                item = _with_occurrences(item, [table[name] for table in occurrences if name in table])
            yield item


def _item(kind: str, stack: str, name: str, present: Sequence[tuple[Counts, Counts]]) -> Item:
    """Test one item.

    Args:
        present: its counts in each run that has it, and those of all tokens of that run.
    """
    counts, bases = [one for one, _ in present], [base for _, base in present]
    return Item(
        kind=kind,
        stack=stack,
        name=name,
        tokens=sum(one.tokens for one in counts),
        share=share_of(counts),
        by_layer=layer_shares(counts),
        base=share_of(bases),
        above=sum((share_of([one]) or 0) > (share_of([base]) or 0) for one, base in present),
        runs=len(present),
        p=_p(counts, bases),
    )


def _p(counts: Sequence[Counts], bases: Sequence[Counts]) -> float | None:
    """Test a share by a bootstrap over the groups of sequences; None where runs saw different ones."""
    tokens = {tuple(base.tokens_G) for base in bases}
    if len(tokens) != 1 or not all(one.tokens_G for one in counts):
        return None
    return share_p(_by_group(counts), _by_group(bases))


def _by_group(counts: Sequence[Counts]) -> Grouped:
    """Return the tokens and those with two experts of each group, (G, 2), mean over layers and runs."""
    tokens_RG = np.array([one.tokens_G for one in counts], dtype=np.float64)
    multi_RG = np.array([one.multi_G for one in counts], dtype=np.float64)
    layers = len(counts[0].multi_L)
    grouped: Grouped = np.stack([tokens_RG.mean(0), multi_RG.mean(0) / layers], axis=1)
    return grouped


def _with_occurrences(item: Item, counts: Sequence[Counts]) -> Item:
    return replace(item, occurrences=sum(one.tokens for one in counts), word_share=share_of(counts))


def _kinds(runs: Sequence[StackAnalysis]) -> Iterator[tuple[str, list[Mapping[str, Counts]]]]:
    """Iterate over the kinds of items, each with one table of name -> counts for each run."""
    yield "word", [{word.word: word.of_tokens for word in run.words.rows} for run in runs]
    yield "category", [run.categories for run in runs]
    yield "part", [run.parts for run in runs]
    yield "position", [tenths(run.positions) for run in runs]
    yield "length", [run.lengths for run in runs]
    yield "frequency", [run.frequency for run in runs]


def tenths(positions: Sequence[Counts]) -> dict[str, Counts]:
    """Name the bins of the relative position."""
    size = len(positions)
    names = [f"{100 * place // size}-{100 * (place + 1) // size} %" for place in range(size)]
    return dict(zip(names, positions, strict=True))


def top_words(candidates: Iterable[Item], limit: int) -> list[Item]:
    """Return the words with a letter that get two experts significantly often, highest share first."""
    words = [item for item in candidates if item.kind == "word" and item.often and _has_letter(item.name)]
    return sorted(words, key=lambda item: (-(item.share or 0), item.name))[:limit]


def _has_letter(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def analyzed_tasks(published: Published) -> dict[str, list[Analysis]]:
    """Map every task that has results to the analyses of its adaptive runs; {} without any analysis."""
    analyses = published.analyzed(GATE)
    if not analyses:
        return {}
    measured = [result.task for result in published.results.values()]
    return {task: analyses.get(task, []) for task in tasks_in_order([*analyses, *measured])}
