"""One line per optimiser step and per evaluation: the records that a run appends to."""

from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from repro.results.base import Amount, Count, Record, Share, wrong
from repro.results.files import whole_lines


class RoutingSummary(Record):
    """How tokens were routed, summed over many forward passes. Padding is never counted."""

    mean_experts: Amount | None
    """Experts per token and MoE layer; None where no token was seen."""
    share_by_count: list[Share] | None
    """Share of (token, layer) pairs by number of experts: index 0, 1, 2, ..."""
    share_by_count_per_layer: list[list[Share] | None]
    """The same for each MoE layer."""
    load_cv_per_layer: list[Amount | None]
    """Coefficient of variation, over experts, of the assignments received; for each MoE layer."""
    logit_std_per_layer: list[Amount | None]
    """Standard deviation of a token's router logits over the experts, root mean square over tokens."""

    @model_validator(mode="after")
    def _shares_of_a_whole(self) -> Self:
        divided = [self.share_by_count, *self.share_by_count_per_layer]
        if any(sum(shares) > 1 + 1e-6 for shares in divided if shares):
            raise wrong("shares of more than the whole")
        return self

    @property
    def share_multi_expert(self) -> float | None:
        """Share of (token, layer) pairs given two or more experts."""
        return multi_expert(self.share_by_count)

    @property
    def share_multi_expert_per_layer(self) -> list[float | None]:
        """The same for each MoE layer."""
        return [multi_expert(shares) for shares in self.share_by_count_per_layer]


def multi_expert(shares: list[float] | None) -> float | None:
    """Sum the shares of two or more experts in shares by number of experts; None of none."""
    return sum(shares[2:]) if shares else None


class RoutingRecord(RoutingSummary):
    """A line of `routing.jsonl`: the routing of one optimiser step."""

    step: Count
    """Optimiser steps done, this one included."""


class StepRecord(Record):
    """A line of `steps.jsonl`: one optimiser step."""

    step: Count
    """Optimiser steps done, this one included."""
    epoch: int
    """Passes over the training data before this one."""
    loss: float
    """Mean task loss over the loss terms of the step, without auxiliary losses."""
    auxiliary_loss: float
    """Mean auxiliary loss of the step (paper eq. 4, times its coefficient)."""
    gradient_norm: float
    """Joint norm of all gradients before clipping."""
    learning_rate: float
    """Learning rate of the step."""
    seconds: float
    """Training time of the step: data, forward, backward, optimiser."""
    tokens: int
    """Real tokens of all stacks."""
    padded_tokens: int
    """Positions computed, padding included."""
    mean_experts: float | None
    """Experts per token and MoE layer; None for a dense model."""
    share_multi_expert: float | None = Field(validation_alias="share_two", serialization_alias="share_two")
    """Share of (token, layer) pairs given two or more experts; None for a dense model."""


class Exchange(Record):
    """What the exchange of tokens with spread experts came to, for one layer, process and step."""

    rows: Count
    """Tokens received for the experts held here."""
    bytes: Count
    """Sent to other processes in the forward pass, tokens and what experts gave for them."""
    seconds: Amount
    """From the beginning of an exchange to its end in the forward pass: waiting for others, mostly."""


class ExchangeRecord(Record):
    """A line of `exchanges.jsonl`: the exchanges of one optimiser step."""

    step: Count
    """Optimiser steps done, this one included."""
    layers: list[list[Exchange]]
    """Of every process, by rank, that of every MoE layer in the order of computation."""


class EvalRecord(Record):
    """A line of `evals.jsonl`: the model's loss on the dev split."""

    step: Count
    """Optimiser steps done."""
    train_seconds: Amount
    """Training time so far."""
    eval_loss: float
    """Mean task loss."""


class CurvePoint(NamedTuple):
    """A point of the curve of `result.json`, `[step, train_seconds, eval_loss]`."""

    step: Count
    """Optimiser steps done."""
    train_seconds: Amount
    """Training time so far."""
    eval_loss: float
    """Mean task loss on the dev split."""


def read_curve(path: Path) -> list[CurvePoint]:
    """Read the points of `evals.jsonl`.

    Raises:
        UserError: a line is no point.
    """
    records = [
        EvalRecord.parse(line, f"{path}: line {number}") for number, line in enumerate(whole_lines(path), 1)
    ]
    return [CurvePoint(record.step, record.train_seconds, record.eval_loss) for record in records]
