"""`analysis.json`: which tokens of the validation split get two experts."""

from typing import Final, Literal, NamedTuple

from pydantic import Field

from repro.results.base import Record

ANALYSIS_VERSION: Final = 1
"""Version of `analysis.json`; published analyses of another version are left out."""


class Counts(NamedTuple):
    """Tokens, and how many of them got two or more experts in each layer of their stack."""

    tokens: int
    multi_L: list[int]


class WordCounts(NamedTuple):
    """A word: its occurrences (one counts if any subword got two experts) and its subword tokens."""

    word: str
    """In lower case."""
    occurrences: int
    occurrences_multi_L: list[int]
    """Occurrences of which a subword got two or more experts, by layer."""
    tokens: int
    tokens_multi_L: list[int]
    """Subword tokens with two or more experts, by layer."""

    @property
    def of_occurrences(self) -> Counts:
        """Counts of occurrences."""
        return Counts(self.occurrences, self.occurrences_multi_L)

    @property
    def of_tokens(self) -> Counts:
        """Counts of subword tokens."""
        return Counts(self.tokens, self.tokens_multi_L)


class Words(Record):
    """The words of a stack."""

    all: Counts
    """Occurrences of all words."""
    types: int
    """Different words."""
    rows: list[WordCounts]
    """The frequent words, the most frequent first."""


class StackAnalysis(Record):
    """Counts over the tokens of one stack; special tokens and line ends are left out."""

    all: Counts
    words: Words
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


class LayerAnalysis(Record):
    """Sums over the real tokens of one MoE layer, special tokens included."""

    layer: int
    """Index in the order of computation."""
    stack: str
    """`encoder` or `decoder`."""
    tokens: int
    by_count: list[int]
    """Tokens by number of experts: index 0, 1, 2, ..."""
    load: list[int]
    """Assignments of each expert."""
    mass: list[float | None]
    """Mean gate probability of each expert; None of no token."""
    clear: int
    """Tokens whose best expert is at least twice as probable as the second."""

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
    probabilities: list[float]


class Activations(Record):
    """Gate probabilities of sampled tokens in one layer (Figure 1)."""

    layer: int
    """Index in the order of computation: the middle one."""
    tokens: list[TokenActivation]


class TrainingShares(Record):
    """The share of two-expert tokens during training, thinned to a few points (Figure 2)."""

    steps: list[int]
    """Last step of each group of neighbouring steps."""
    share_two: list[list[float | None]]
    """For each group the mean share, by layer; None where a layer saw no token."""


class AnalyzedData(Record):
    """Which examples were analysed."""

    split: str
    source: str
    """`synthetic`, `hub` or `folder`."""
    sequences: int
    """Sequences that were analysed."""
    of: int
    """Sequences of the split."""


class TokenExpert(NamedTuple):
    """An expert of a token, and the token's gate probability of it."""

    expert: int
    probability: float


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

    version: Literal[1]
    run_id: str
    task: str
    gate: str
    scale: str
    seed: int
    threshold: float | None
    """Of the gate; None where it has none."""
    data: AnalyzedData
    layers: list[LayerAnalysis]
    """In the order of computation."""
    stacks: dict[str, StackAnalysis]
    """`encoder` or `decoder` -> its counts."""
    activations: Activations
    training: TrainingShares
    samples: list[dict[str, SampleStack]] = Field(default_factory=list)
    """Stack -> tokens of a sample sequence, for `tokens.html`; not published."""

    def to_published_json(self) -> dict[str, object]:
        """Return the plain data of `results/<scale>/analysis/<run id>.json`: all but the samples."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"samples"})
