"""`analysis.json`: which tokens of the validation split get two experts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from repro.checks import PlainName
from repro.errors import UserError
from repro.results.base import (
    Amount,
    Count,
    Record,
    Share,
    TaskName,
    parse_object,
    read_bytes,
    wrong,
    wrong_version,
)

ANALYSIS_VERSION: Final = 2
"""Version of `analysis.json`."""


class Counts(NamedTuple):
    """Tokens, and how many of them got two or more experts in each layer of their stack.

    Sequences are not independent samples of tokens, so tokens are also counted by group of sequences, for a
    bootstrap. The groups are the same neighbours of the split in every analysis of as many sequences.
    """

    tokens: Count
    """All of them."""
    multi_L: list[Count]
    """Those with two or more experts, by layer of the stack."""
    tokens_G: Sequence[Count] = ()
    """Tokens by group of sequences; empty where they were not told apart."""
    multi_G: Sequence[Count] = ()
    """(Token, layer) pairs with two or more experts, by group."""


class WordCounts(NamedTuple):
    """A word: its occurrences (one counts if any subword got two experts) and its subword tokens."""

    word: str
    """In lower case."""
    occurrences: Count
    """How often it occurs."""
    occurrences_multi_L: list[Count]
    """Occurrences of which a subword got two or more experts, by layer."""
    tokens: Count
    """Its subword tokens."""
    tokens_multi_L: list[Count]
    """Subword tokens with two or more experts, by layer."""
    tokens_G: Sequence[Count] = ()
    """Subword tokens by group of sequences."""
    tokens_multi_G: Sequence[Count] = ()
    """(Subword token, layer) pairs with two or more experts, by group."""

    @property
    def of_occurrences(self) -> Counts:
        """Counts of occurrences."""
        return Counts(self.occurrences, self.occurrences_multi_L)

    @property
    def of_tokens(self) -> Counts:
        """Counts of subword tokens."""
        return Counts(self.tokens, self.tokens_multi_L, self.tokens_G, self.tokens_multi_G)


class Words(Record):
    """The words of a stack."""

    all: Counts
    """Occurrences of all words."""
    types: Count
    """Different words."""
    rows: list[WordCounts]
    """The frequent words, the most frequent first."""


class StackAnalysis(Record):
    """Counts over the tokens of one stack; special tokens and line ends are left out."""

    all: Counts
    """All tokens."""
    words: Words
    """By word, case ignored; punctuation stands alone."""
    categories: dict[str, Counts]
    """By the labels of a generated corpus; empty for other data."""
    parts: dict[str, Counts]
    """By part of the input: question, context, ..."""
    positions: list[Counts]
    """By tenth of the sequence."""
    lengths: dict[str, Counts]
    """By length of the sequence in tokens, in powers of two: `9-16`."""
    frequency: dict[str, Counts]
    """By rank of the token type in the analysed text: `ranks 11-100`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for counts in self._every_count():
            if len(counts.multi_L) != len(self.all.multi_L):
                raise wrong("counts of different numbers of layers")
            if max(counts.multi_L, default=0) > counts.tokens:
                raise wrong("more tokens with two experts than tokens")
            if len(counts.tokens_G) not in (0, len(self.all.tokens_G)):
                raise wrong("counts of different numbers of groups of sequences")
            if counts.tokens_G and (sum(counts.tokens_G), sum(counts.multi_G)) != (
                counts.tokens,
                sum(counts.multi_L),
            ):
                raise wrong("groups of sequences that do not add up to the whole")
        return self

    def _every_count(self) -> Iterator[Counts]:
        yield from (self.all, self.words.all, *self.positions)
        for word in self.words.rows:
            yield from (word.of_occurrences, word.of_tokens)
        for table in (self.categories, self.parts, self.lengths, self.frequency):
            yield from table.values()


class LayerAnalysis(Record):
    """Sums over the real tokens of one MoE layer, special tokens included."""

    layer: Count
    """Index in the order of computation."""
    stack: PlainName
    """`encoder` or `decoder`."""
    tokens: Count
    """Real tokens, special ones included."""
    by_count: list[Count]
    """Tokens by number of experts: index 0, 1, 2, ..."""
    load: Annotated[list[Count], Field(min_length=1)]
    """Assignments of each expert."""
    mass: list[Amount | None]
    """Mean gate probability of each expert; None of no token."""
    clear: Count
    """Tokens whose best expert is at least twice as probable as the second."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sum(self.by_count) != self.tokens or self.clear > self.tokens:
            raise wrong("its counts do not add up to its tokens")
        return self

    @property
    def multi_expert(self) -> int:
        """Tokens given two or more experts."""
        return sum(self.by_count[2:])

    @property
    def relative_load(self) -> list[float]:
        """Load of each expert over the mean load; zeros where nothing was routed."""
        total = sum(self.load)
        return [len(self.load) * load / total if total else 0.0 for load in self.load]

    @property
    def load_cv(self) -> float:
        """Coefficient of variation of the load: standard deviation over experts of `relative_load`."""
        loads = self.relative_load
        return float((sum((load - 1) ** 2 for load in loads) / len(loads)) ** 0.5) if loads else 0.0


class TokenActivation(NamedTuple):
    """A sampled token and its gate probabilities over the experts."""

    token: str
    """As it is read."""
    probabilities: Annotated[list[Share], Field(min_length=1)]
    """Over all experts."""


class Activations(Record):
    """Gate probabilities of sampled tokens in one layer (Figure 1)."""

    layer: int
    """Index in the order of computation: the middle one."""
    tokens: list[TokenActivation]
    """Sampled tokens."""

    @model_validator(mode="after")
    def _same_experts(self) -> Self:
        if len({len(token.probabilities) for token in self.tokens}) > 1:
            raise wrong("tokens with different numbers of experts")
        return self


class TrainingShares(Record):
    """The share of two-expert tokens during training, thinned to a few points (Figure 2)."""

    steps: list[Count]
    """Last step of each group of neighbouring steps."""
    share_two: list[list[Share | None]]
    """For each group the mean share, by layer; None where a layer saw no token."""

    @model_validator(mode="after")
    def _share_of_each_step(self) -> Self:
        if len(self.steps) != len(self.share_two):
            raise wrong("not one share for each step")
        return self


class AnalyzedData(Record):
    """Which examples were analysed."""

    split: str
    """`validation`."""
    source: str
    """`synthetic`, `hub` or `folder`."""
    sequences: Count
    """Sequences that were analysed."""
    of: Count
    """Sequences of the split."""


class TokenExpert(NamedTuple):
    """An expert of a token, and the token's gate probability of it."""

    expert: int
    """Its index."""
    probability: float
    """Of it, by the softmax of the router."""


class SampleStack(Record):
    """The tokens of one stack of a sample sequence."""

    tokens: list[str]
    """As they are read, with their white space."""
    cut: bool
    """Whether the sequence goes on."""
    layers: dict[str, list[list[TokenExpert]]]
    """Layer -> for each token its experts, the most probable first."""


class Analysis(Record):
    """Which tokens of a finished run's validation split get two experts."""

    version: Literal[2]
    """Of this file."""
    run_id: PlainName
    """The run that was analysed."""
    task: TaskName
    """A member of `tasks`."""
    gate: PlainName
    """A gate as it is typed."""
    scale: PlainName
    """A file in `experiments/`."""
    seed: Count
    """Its seed."""
    threshold: float | None
    """Of the gate; None where it has none."""
    data: AnalyzedData
    """Which examples were analysed."""
    layers: Annotated[list[LayerAnalysis], Field(min_length=1)]
    """In the order of computation."""
    stacks: dict[PlainName, StackAnalysis]
    """`encoder` or `decoder` -> its counts."""
    activations: Activations
    """For Figure 1."""
    training: TrainingShares
    """For Figure 2."""
    samples: list[dict[str, SampleStack]] = Field(default_factory=list)
    """Stack -> tokens of a sample sequence, for `tokens.html`; not published."""

    @model_validator(mode="after")
    def _same_experts(self) -> Self:
        if len({len(layer.load) for layer in self.layers}) > 1:
            raise wrong("layers: with different numbers of experts")
        return self

    def to_published_json(self) -> dict[str, object]:
        """Return the plain data of `results/<scale>/analysis/<run id>.json`: all but the samples."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"samples"})


def read_analysis(path: Path) -> Analysis:
    """Read a published analysis.

    Raises:
        UserError: it cannot be read, is no analysis, or one of another version.
    """
    text = read_bytes(path)
    try:
        return Analysis.parse(text, path)
    except UserError:
        version = parse_object(text, path).get("version")
        if version == ANALYSIS_VERSION:
            raise
    raise UserError(wrong_version(path, "version", version, ANALYSIS_VERSION))
