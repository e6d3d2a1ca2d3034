"""Words, categories and places of a task with their share of two-expert tokens, over its analysed runs.

The share of an item is that of its (token, layer) pairs with two experts or more. It is tested against
the share of all tokens of its stack with as many trials as the item has **tokens**, not pairs: the
layers of one token are not independent. Occurrences in one model are not independent either, since one
router decides about all of them; how many seeds agree says more than a small q.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from repro.records import Published
from repro.tables._schemes import tasks_in_order
from repro.tables._significance import adjusted, two_sided

GATE = "adaptive"
LEVEL = 0.05
"""Largest q of an item that counts as different from the base rate."""

Analysis = dict[str, Any]
Counts = list[Any]
"""`[tokens, [two-expert tokens of each layer]]`, as an analysis holds them."""


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
    def often(self) -> bool:
        """Whether it gets two experts more often than its stack, significantly."""
        if self.share is None or self.base is None or self.q is None:
            return False
        return self.share > self.base and self.q <= LEVEL


def share_of(counts: Iterable[Counts]) -> float | None:
    """Share of two-expert (token, layer) pairs; None of nothing."""
    pairs = [(tokens * len(two_L), sum(two_L)) for tokens, two_L in counts]
    total = sum(whole for whole, _ in pairs)
    return sum(two for _, two in pairs) / total if total else None


def layer_shares(counts: Sequence[Counts]) -> list[float | None]:
    """The same for each layer of the stack."""
    tokens = sum(entry[0] for entry in counts)
    columns = itertools.zip_longest(*(two_L for _, two_L in counts), fillvalue=0)
    return [sum(column) / tokens if tokens else None for column in columns]


def items(analyses: Sequence[Analysis]) -> list[Item]:
    """All items of a task, from runs that differ in their seed; q is corrected within a kind."""
    found = [item for stack in _stacks(analyses) for item in _items_of(analyses, stack)]
    corrected = []
    for kind in dict.fromkeys(item.kind for item in found):
        same = [item for item in found if item.kind == kind]
        values = adjusted([item.p for item in same])
        corrected += [replace(item, q=q) for item, q in zip(same, values, strict=True)]
    return corrected


def _stacks(analyses: Sequence[Analysis]) -> list[str]:
    return list(dict.fromkeys(stack for analysis in analyses for stack in analysis["stacks"]))


def _items_of(analyses: Sequence[Analysis], stack: str) -> Iterator[Item]:
    """The items of one stack, without q."""
    having = [analysis["stacks"][stack] for analysis in analyses if stack in analysis["stacks"]]
    bases = [share_of([one["all"]]) for one in having]
    base = share_of([one["all"] for one in having])
    for kind, tables in _kinds(having):
        for name in dict.fromkeys(name for table in tables for name in table):
            present = [(table[name], run) for table, run in zip(tables, bases, strict=True) if name in table]
            counts = [entry for entry, _ in present]
            tokens, share = sum(entry[0] for entry in counts), share_of(counts)
            p = None
            if share is not None and base is not None:
                p = two_sided(round(share * tokens), tokens, base)
            yield Item(
                kind=kind,
                stack=stack,
                name=name,
                tokens=tokens,
                share=share,
                by_layer=layer_shares(counts),
                base=base,
                above=sum((share_of([entry]) or 0) > (run or 0) for entry, run in present),
                runs=len(present),
                p=p,
                **(_of_words(having, name) if kind == "word" else {}),
            )


def _kinds(having: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Counts]]]]:
    """Each kind of item, with one table of name -> counts for each run."""
    yield "word", [{row[0]: row[3:5] for row in one["words"]["rows"]} for one in having]
    yield "category", [one["categories"] for one in having]
    yield "part", [one["parts"] for one in having]
    yield "position", [tenths(one["positions"]) for one in having]
    yield "length", [one["lengths"] for one in having]
    yield "frequency", [one["frequency"] for one in having]


def tenths(positions: Sequence[Counts]) -> dict[str, Counts]:
    """Bins of the relative position by name."""
    size = len(positions)
    names = [f"{100 * place // size}-{100 * (place + 1) // size} %" for place in range(size)]
    return dict(zip(names, positions, strict=True))


def _of_words(having: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    counts = [row[1:3] for one in having for row in one["words"]["rows"] if row[0] == name]
    return {"occurrences": sum(entry[0] for entry in counts), "word_share": share_of(counts)}


def top_words(found: Iterable[Item], limit: int) -> list[Item]:
    """Words with a letter that get two experts significantly often, highest share first."""
    words = [item for item in found if item.kind == "word" and item.often and _has_letter(item.name)]
    return sorted(words, key=lambda item: (-(item.share or 0), item.name))[:limit]


def _has_letter(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def analyzed_tasks(published: Published) -> dict[str, list[Analysis]]:
    """Every task that has results, with the analyses of its adaptive runs; {} without any analysis."""
    found = published.analyzed(GATE)
    if not found:
        return {}
    known = [result["task"] for result in published.results.values()]
    return {task: found.get(task, []) for task in tasks_in_order([*found, *known])}
