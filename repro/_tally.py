"""Counts of tokens and of those that got two experts, by word, category, part, place and frequency."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

TENTHS = 10
"""Bins of the relative position in a sequence."""
BANDS = ((10, "ranks 1-10"), (100, "ranks 11-100"), (1000, "ranks 101-1000"), (None, "ranks over 1000"))
"""Bands of token types by rank of frequency in the analysed text: last rank and name."""
KEPT_WORDS = 400
"""Most frequent words of a stack that are written down."""
MINIMUM = 5
"""Occurrences that such a word has at least."""

Flags = tuple[int, ...]
"""By layer of the stack: 1 if a token got two experts or more."""


class Tally:
    """Tokens, and by layer how many of them got two experts."""

    def __init__(self, layers: int) -> None:
        self.tokens = 0
        self.two_L = [0] * layers

    def add(self, flags: Flags) -> None:
        """Count one token."""
        self.tokens += 1
        for layer, flag in enumerate(flags):
            self.two_L[layer] += flag

    def merge(self, other: "Tally") -> None:
        """Count the tokens of another tally too."""
        self.tokens += other.tokens
        self.two_L = [a + b for a, b in zip(self.two_L, other.two_L, strict=True)]

    def plain(self) -> list[Any]:
        """`[tokens, [two experts in each layer]]`."""
        return [self.tokens, self.two_L]


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """One stack's input of one example, position by position."""

    ids: Sequence[int]
    words_S: Sequence[int | None]
    """Index into `words`; None for special tokens and line ends, which are not counted."""
    words: Sequence[str]
    parts_S: Sequence[str]
    categories_S: Sequence[str | None]
    flags_S: Sequence[Flags]


class StackTally:
    """All counts of one stack. A token is counted once, whatever the number of its layers."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self.all = Tally(layers)
        self.categories: dict[str, Tally] = {}
        self.parts: dict[str, Tally] = {}
        self.lengths: dict[int, Tally] = {}
        self.positions = [Tally(layers) for _ in range(TENTHS)]
        self._types: dict[int, Tally] = {}
        self._words: dict[str, Tally] = {}
        """Occurrences of each word; one counts as given two experts if any of its subwords was."""
        self._subwords: dict[str, Tally] = {}
        """Subword tokens of each word."""

    def add(self, sequence: TokenSequence) -> None:
        """Count one sequence."""
        size = len(sequence.ids)
        length = 1 << max(0, size - 1).bit_length()
        any_W: list[list[int]] = [[0] * self._layers for _ in sequence.words]
        for place, word in enumerate(sequence.words_S):
            if word is None:
                continue
            flags = sequence.flags_S[place]
            any_W[word] = [max(a, b) for a, b in zip(any_W[word], flags, strict=True)]
            self.all.add(flags)
            self.positions[place * TENTHS // size].add(flags)
            self._at(self.parts, sequence.parts_S[place]).add(flags)
            self._at(self.lengths, length).add(flags)
            self._at(self._types, sequence.ids[place]).add(flags)
            self._at(self._subwords, sequence.words[word]).add(flags)
            category = sequence.categories_S[place]
            if category is not None:
                self._at(self.categories, category).add(flags)
        for word_text, flagged in zip(sequence.words, any_W, strict=True):
            self._at(self._words, word_text).add(tuple(flagged))

    def _at(self, tallies: dict[Any, Tally], key: Any) -> Tally:
        if key not in tallies:
            tallies[key] = Tally(self._layers)
        return tallies[key]

    def plain(self) -> dict[str, Any]:
        """Plain data; see docs/results.md for the keys."""
        common = Counter({word: tally.tokens for word, tally in self._words.items()}).most_common(KEPT_WORDS)
        rows = [
            [word, count, self._words[word].two_L, *self._subwords[word].plain()]
            for word, count in common
            if count >= MINIMUM
        ]
        occurrences = Tally(self._layers)
        for tally in self._words.values():
            occurrences.merge(tally)
        return {
            "all": self.all.plain(),
            "words": {"all": occurrences.plain(), "types": len(self._words), "rows": rows},
            "categories": _named(self.categories),
            "parts": _named(self.parts),
            "positions": [tally.plain() for tally in self.positions],
            "lengths": {
                f"{length // 2 + 1}-{length}": self.lengths[length].plain() for length in self._sizes()
            },
            "frequency": _named(self._bands()),
        }

    def _sizes(self) -> list[int]:
        return sorted(self.lengths)

    def _bands(self) -> dict[str, Tally]:
        """Token types sorted by frequency, then by id, so that equal ones fall the same way always."""
        ordered = sorted(self._types.items(), key=lambda entry: (-entry[1].tokens, entry[0]))
        bands: dict[str, Tally] = {}
        for rank, (_, tally) in enumerate(ordered, 1):
            name = next(name for last, name in BANDS if last is None or rank <= last)
            self._at(bands, name).merge(tally)
        return bands


def _named(tallies: dict[str, Tally]) -> dict[str, list[Any]]:
    return {name: tally.plain() for name, tally in tallies.items()}


def thinned(rows: Iterable[dict[str, Any]], points: int) -> dict[str, list[Any]]:
    """The share of two-expert tokens during training in at most `points` points.

    Args:
        rows: of `routing.jsonl`, in the order of steps.

    Returns:
        `steps`, the last of each group of neighbouring steps, and `share_two`, for each group the
        mean over its steps by layer; None where a layer saw no token.
    """
    kept = [(row["step"], row.get("share_by_count_per_layer") or []) for row in rows]
    groups = min(points, len(kept))
    steps: list[int] = []
    shares: list[list[float | None]] = []
    for group in range(groups):
        chunk = kept[group * len(kept) // groups : (group + 1) * len(kept) // groups]
        steps.append(chunk[-1][0])
        layers = max(len(by_layer) for _, by_layer in chunk)
        shares.append(
            [_mean_two([row[layer] for _, row in chunk if layer < len(row)]) for layer in range(layers)]
        )
    return {"steps": steps, "share_two": shares}


def _mean_two(by_count: Sequence[list[float] | None]) -> float | None:
    values = [sum(shares[2:]) for shares in by_count if shares]
    return round(sum(values) / len(values), 5) if values else None
