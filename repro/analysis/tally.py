"""Counts of tokens and of those that got two experts, by word, category, part, place and frequency."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from repro.results.analysis import Counts, StackAnalysis, TrainingShares, WordCounts, Words
from repro.results.records import RoutingRecord

TENTHS = 10
"""Bins of the relative position in a sequence."""
BANDS = ((10, "ranks 1-10"), (100, "ranks 11-100"), (1000, "ranks 101-1000"), (None, "ranks over 1000"))
"""Bands of token types by rank of frequency in the analysed text: last rank and name."""
KEPT_WORDS = 400
"""Most frequent words of a stack that are written down."""
MINIMUM = 5
"""Occurrences that such a word has at least."""
GROUPS = 20
"""Groups of neighbouring sequences by which tokens are counted: enough to resample, few enough to write."""

Flags = tuple[int, ...]
"""By layer of the stack: 1 if a token got two experts or more, 0 if not."""


class Tally:
    """Tokens, and by layer how many of them got two experts or more."""

    def __init__(self, layers: int, groups: int) -> None:
        self.tokens = 0
        self.multi_L = [0] * layers
        self.tokens_G = [0] * groups
        self.multi_G = [0] * groups

    def add(self, flags_L: Flags, group: int) -> None:
        """Count one token of a group of sequences."""
        self.tokens += 1
        self.tokens_G[group] += 1
        self.multi_G[group] += sum(flags_L)
        for layer, flag in enumerate(flags_L):
            self.multi_L[layer] += flag

    def merge(self, other: "Tally") -> None:
        """Count the tokens of another tally too."""
        self.tokens += other.tokens
        self.multi_L = add_lists(self.multi_L, other.multi_L)
        self.tokens_G = add_lists(self.tokens_G, other.tokens_G)
        self.multi_G = add_lists(self.multi_G, other.multi_G)

    def counts(self) -> Counts:
        """Return the counts so far."""
        return Counts(self.tokens, list(self.multi_L), list(self.tokens_G), list(self.multi_G))


def add_lists(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Add two lists of counts of the same length."""
    return [a + b for a, b in zip(left, right, strict=True)]


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """One stack's input of one example, position by position."""

    ids: Sequence[int]
    words_S: Sequence[int | None]
    """Index into `words`; None for special tokens and line ends, which are not counted."""
    words: Sequence[str]
    parts_S: Sequence[str]
    """Part of the input: question, context, ..."""
    categories_S: Sequence[str | None]
    """Category in the generated corpus; None where it has none."""
    flags_SL: Sequence[Flags]
    group: int = 0
    """Group of sequences that this one is in."""


class StackTally:
    """Counts of one stack. A token is counted once, whatever the number of its layers.

    Args:
        layers: MoE layers of the stack.
        groups: groups of sequences.
    """

    def __init__(self, layers: int, groups: int = 1) -> None:
        self._layers = layers
        self._groups = groups
        self._all = self._empty()
        self._categories = self._table()
        self._parts = self._table()
        self._positions = [self._empty() for _ in range(TENTHS)]
        self._lengths: defaultdict[int, Tally] = defaultdict(self._empty)
        """By length, rounded up to a power of two."""
        self._types: defaultdict[int, Tally] = defaultdict(self._empty)
        """Tokens of each token type, by its id."""
        self._words = self._table()
        """Occurrences of each word; one counts as given two experts if any of its subwords was."""
        self._subwords = self._table()
        """Subword tokens of each word."""

    def _empty(self) -> Tally:
        return Tally(self._layers, self._groups)

    def _table(self) -> defaultdict[str, Tally]:
        return defaultdict(self._empty)

    def add(self, sequence: TokenSequence) -> None:
        """Count one sequence."""
        size = len(sequence.ids)
        length = 1 << max(0, size - 1).bit_length()
        any_WL: list[Flags] = [(0,) * self._layers for _ in sequence.words]
        for place, word in enumerate(sequence.words_S):
            if word is None:
                continue
            flags_L = sequence.flags_SL[place]
            any_WL[word] = tuple(map(max, any_WL[word], flags_L))
            self._all.add(flags_L, sequence.group)
            self._positions[place * TENTHS // size].add(flags_L, sequence.group)
            self._parts[sequence.parts_S[place]].add(flags_L, sequence.group)
            self._lengths[length].add(flags_L, sequence.group)
            self._types[sequence.ids[place]].add(flags_L, sequence.group)
            self._subwords[sequence.words[word]].add(flags_L, sequence.group)
            category = sequence.categories_S[place]
            if category is not None:
                self._categories[category].add(flags_L, sequence.group)
        for text, any_L in zip(sequence.words, any_WL, strict=True):
            self._words[text].add(any_L, sequence.group)

    def analysis(self) -> StackAnalysis:
        """Return the counts of all sequences so far."""
        return StackAnalysis(
            all=self._all.counts(),
            words=self._frequent_words(),
            categories=_counts(self._categories),
            parts=_counts(self._parts),
            positions=[tally.counts() for tally in self._positions],
            lengths={
                f"{length // 2 + 1}-{length}": tally.counts()
                for length, tally in sorted(self._lengths.items())
            },
            frequency=_counts(self._bands()),
        )

    def _frequent_words(self) -> Words:
        frequency = Counter({word: tally.tokens for word, tally in self._words.items()})
        occurrences = self._empty()
        for tally in self._words.values():
            occurrences.merge(tally)
        return Words(
            all=occurrences.counts(),
            types=len(self._words),
            rows=[
                WordCounts(word, count, self._words[word].multi_L, *self._subwords[word].counts())
                for word, count in frequency.most_common(KEPT_WORDS)
                if count >= MINIMUM
            ],
        )

    def _bands(self) -> dict[str, Tally]:
        """Token types sorted by frequency, then by id, so that equal ones fall the same way always."""
        ordered = sorted(self._types.items(), key=lambda entry: (-entry[1].tokens, entry[0]))
        bands = self._table()
        for rank, (_, tally) in enumerate(ordered, 1):
            name = next(name for last, name in BANDS if last is None or rank <= last)
            bands[name].merge(tally)
        return bands


def _counts(tallies: Mapping[str, Tally]) -> dict[str, Counts]:
    return {name: tally.counts() for name, tally in tallies.items()}


def thinned(records: Iterable[RoutingRecord], points: int) -> TrainingShares:
    """Return the share of two-expert tokens during training in at most `points` points.

    Args:
        records: in the order of steps.
    """
    rows = [(record.step, record.share_multi_expert_per_layer) for record in records]
    groups = min(points, len(rows))
    steps: list[int] = []
    shares: list[list[float | None]] = []
    for group in range(groups):
        chunk = rows[group * len(rows) // groups : (group + 1) * len(rows) // groups]
        steps.append(chunk[-1][0])
        layers = max(len(share_L) for _, share_L in chunk)
        shares.append(
            [_mean(share_L[layer] for _, share_L in chunk if layer < len(share_L)) for layer in range(layers)]
        )
    return TrainingShares(steps=steps, share_two=shares)


def _mean(shares: Iterable[float | None]) -> float | None:
    """Return the mean of the shares that are not None, to five decimals."""
    values = [share for share in shares if share is not None]
    return round(sum(values) / len(values), 5) if values else None
