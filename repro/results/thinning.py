"""`thinning.json`: pretrained MoE models evaluated with other gates than their own, without training."""

from pydantic import Field

from repro.checks import PlainName
from repro.results.base import Record
from repro.results.environment import Environment
from repro.results.records import RoutingSummary
from repro.results.run import Flops, Metric, RowsRead


class ThinPoint(Record):
    """A model with one gate, on one split."""

    gate: PlainName
    """As results name it: `top-2`, `adaptive`."""
    threshold: float | None
    """Of a gate that has one."""
    metric: Metric
    """Of the task."""
    eval_loss: float
    """Mean loss over its terms, nats."""
    flops: Flops
    """Operations of a token."""
    routing: RoutingSummary
    """What the gate did."""


class Thinning(Record):
    """A model with its own gate, and with others in its place; nothing was trained."""

    model: str
    """Hub id, or `dir:<name>:<fingerprint>` of a folder."""
    task: PlainName
    """What it was evaluated on."""
    split: PlainName
    """Of its data."""
    precision: PlainName
    """In which weights are multiplied: `fp32` or `bf16`."""
    own: ThinPoint
    """With the model's own top-k."""
    points: list[ThinPoint]
    """With the other gates."""
    data: RowsRead
    """What was read."""
    environment: Environment
    """Where it was evaluated."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the curve: a new measurement of it replaces the old one."""
        return self.model, self.task, self.split


class Thinnings(Record):
    """All curves of a scale."""

    curves: list[Thinning] = Field(default_factory=list)
    """By model, task and split."""
