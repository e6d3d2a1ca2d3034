"""Times of one MoE layer whose experts are spread over processes: measured, and by a formula."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from repro.checks import PlainName
from repro.results.base import Amount, Count, Record, Share, wrong
from repro.results.environment import Environment

_EXCHANGES = 4
"""Of a layer: tokens there and outputs back, in the forward and in the backward pass."""
_Positive = Annotated[float, Field(gt=0)]
_Some = Annotated[int, Field(ge=1)]


class SpreadModel(Record):
    """The formula for the time of a layer, forward and backward: t = a + b r + 4 (c + d q).

    r are the rows of the process that has the most. q are the bytes of the process that sends or receives the
    most in one of the four exchanges.
    """

    experts_seconds: Amount
    """a: of the experts of a process, whatever their rows: reading weights, writing their gradients."""
    seconds_per_row: Amount
    """b: of a row in its expert."""
    exchange_seconds: Amount
    """c: of an exchange, whatever its size."""
    seconds_per_byte: Amount
    """d: of a byte of an exchange."""

    @property
    def constant(self) -> float:
        """Seconds that do not depend on tokens."""
        return self.experts_seconds + _EXCHANGES * self.exchange_seconds

    def computing(self, rows: float) -> float:
        """Return the seconds that rows take in their experts."""
        return self.seconds_per_row * rows

    def sending(self, sent: int) -> float:
        """Return the seconds that the bytes of the exchanges take; `sent` are those of one of them."""
        return _EXCHANGES * self.seconds_per_byte * sent

    def predict(self, rows: int, sent: int) -> float:
        """Return the seconds of a layer.

        Args:
            rows: r.
            sent: q.
        """
        return self.constant + self.computing(rows) + self.sending(sent)


class ParallelTiming(Record):
    """The layer at one share of one-expert tokens."""

    share_top1: Share
    """Share of the tokens with one expert; the others have two."""
    mixed: bool
    """Half of the processes have one expert for all their tokens, the others two; else each has the share."""
    rows: _Some
    """Rows of all processes."""
    busiest_rows: _Some
    """Rows of the process whose experts have the most."""
    busiest_bytes: Count
    """The most that a process sends to others, or receives, in one exchange."""
    seconds: _Positive | None
    """Forward and backward, until the last process is done; median of the rounds. None: not measured."""
    spread: Amount | None
    """Distance of the quartiles, seconds; None of a single round."""
    predicted_seconds: _Positive
    """By the model of the case."""


class ParallelCase(Record):
    """One setting of a layer with its experts spread over processes, timed or only predicted."""

    size: PlainName
    """Name of the layer's sizes: `bert`, `gpt2`, `fsmt`."""
    d_model: Count
    """Width of the layer."""
    d_hidden: Count
    """Width inside an expert."""
    experts: Count
    """Experts of the layer, evenly over the processes."""
    tokens: Count
    """Tokens of each process."""
    precision: PlainName
    """`fp32` or `bf16`."""
    processes: Annotated[int, Field(ge=2)]
    """Processes, each with a part of the experts and tokens of its own."""
    device: str
    """What each process computes on."""
    repeats: Count
    """Rounds; 0: nothing was measured."""
    environment: Environment | None
    """Code, libraries and machine of the first process; None: nothing was measured."""
    beside: Amount | None
    """CPUs that other programs kept busy meanwhile, on average; None if unknown."""
    model: SpreadModel
    """Measured in the same rounds, or of assumed figures."""
    rows: list[ParallelTiming]
    """One with two experts for all tokens, to which the others are relative."""

    @model_validator(mode="after")
    def _relative(self) -> Self:
        if all(row.share_top1 > 0 for row in self.rows):
            raise wrong("nothing was timed with two experts for every token")
        return self

    @property
    def key(self) -> tuple[str, int, int, str, int, str]:
        """What identifies the case: a new measurement of it replaces the old one."""
        return self.size, self.experts, self.tokens, self.precision, self.processes, self.device

    @property
    def top2(self) -> ParallelTiming:
        """The layer with two experts for every token."""
        return next(row for row in self.rows if row.share_top1 == 0)
