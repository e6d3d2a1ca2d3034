"""`bench.json`: the timings of one MoE layer."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from repro.checks import PlainName
from repro.results.base import Amount, Count, Record, Share, wrong
from repro.results.environment import Environment
from repro.results.parallel import ParallelCase

Positive = Annotated[float, Field(gt=0)]


class LayerTiming(Record):
    """One implementation at one share of one-expert tokens."""

    implementation: PlainName
    """A back-end, `transformers-<name>`, or `dense`: one FFN over as many rows."""
    share_top1: Share
    """Share of the tokens with one expert, the others having two; of top-8 layers four, and eight."""
    rows: Annotated[int, Field(ge=1)]
    """Expert rows that the routing asks for."""
    forward_seconds: Positive
    """Forward pass without gradient, median of the rounds."""
    forward_spread: Amount | None
    """Distance of the quartiles, seconds; None of a single round."""
    both_seconds: Positive
    """Forward with backward pass, median of the rounds."""
    both_spread: Amount | None
    """Distance of the quartiles, seconds."""


class BenchCase(Record):
    """One setting in which all implementations were timed, in turn within each round."""

    size: PlainName
    """Name of the layer's sizes: `bert`, `gpt2`, `fsmt`, `mixtral`, `olmoe`."""
    d_model: Count
    """Width of the layer."""
    d_hidden: Count
    """Width inside an expert."""
    experts: Count
    """Experts of the layer."""
    tokens: Count
    """Tokens of a batch."""
    precision: PlainName
    """`fp32` or `bf16`."""
    repeats: Count
    """Rounds."""
    environment: Environment
    """Code, libraries and machine."""
    rows: list[LayerTiming]
    """Of every implementation one with two experts for all tokens, to which the others are relative."""

    @model_validator(mode="after")
    def _relative(self) -> Self:
        bases = {row.implementation for row in self.rows if row.share_top1 == 0}
        for row in self.rows:
            if row.implementation not in bases:
                raise wrong(f"{row.implementation} was not timed with two experts for every token")
        return self

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What identifies the case: a new measurement of it replaces the old one."""
        return self.size, self.experts, self.tokens, self.precision


class Bench(Record):
    """All cases of a scale."""

    cases: list[BenchCase]
    """In the order of size, experts, tokens and precision."""
    parallel: list[ParallelCase] = Field(default_factory=list)
    """Timings with experts spread over processes."""
