"""`bench.json`: the timings of one MoE layer."""

from repro.results.base import Record
from repro.results.environment import Environment


class LayerTiming(Record):
    """One implementation at one share of one-expert tokens."""

    implementation: str
    """A back-end, `transformers-<name>`, or `dense`: one FFN over as many rows."""
    share_top1: float
    """Share of the tokens with one expert; the others have two."""
    rows: int
    """Expert rows that the routing asks for."""
    forward_seconds: float
    """Forward pass without gradient, median of the rounds."""
    forward_spread: float | None
    """Distance of the quartiles, seconds; None of a single round."""
    both_seconds: float
    """Forward with backward pass, median of the rounds."""
    both_spread: float | None
    """Distance of the quartiles, seconds."""


class BenchCase(Record):
    """One setting in which all implementations were timed, in turn within each round."""

    size: str
    """Name of the layer's sizes: `bert`, `gpt2`, `fsmt`."""
    d_model: int
    d_hidden: int
    experts: int
    tokens: int
    precision: str
    repeats: int
    """Rounds."""
    environment: Environment
    rows: list[LayerTiming]

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What identifies the case: a new measurement of it replaces the old one."""
        return self.size, self.experts, self.tokens, self.precision


class Bench(Record):
    """All cases of a scale."""

    cases: list[BenchCase]
