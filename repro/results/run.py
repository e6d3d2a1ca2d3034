"""`result.json`: one finished run, everything that tables are rebuilt from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from repro.checks import PlainName
from repro.errors import UserError
from repro.results.base import Amount, Count, Record, TaskName, parse_object, read_bytes, wrong_version
from repro.results.environment import Environment
from repro.results.records import CurvePoint, RoutingSummary

SCHEMA_VERSION: Literal[1] = 1
"""Version of `result.json`."""


class Metric(Record):
    """The task's headline metric on the full validation split."""

    name: PlainName
    """A member of `metrics`."""
    value: float | None
    """None if it is not a finite number."""
    higher_is_better: bool
    count: Count
    """Examples that were compared."""


class Flops(Record):
    """Operations of a forward pass per real token; FLOPs are 2 x multiply-adds. None of no token."""

    per_token: Amount | None
    """As routed."""
    per_token_executed: Amount | None
    """As computed, padding of positions and of the back-end included."""
    macs_per_token: Amount | None
    """Multiply-adds, as routed."""
    dense_per_token: Amount | None
    """Of the unconverted model."""


class Curriculum(Record):
    """Spearman's correlations over the training samples of the last whole epoch; None if undefined."""

    length_ratio_correlation: float | None
    """Of a sample's length with its share of two-expert tokens."""
    length_count_correlation: float | None
    """Of a sample's length with its number of two-expert tokens."""


class Parameters(Record):
    """Numbers of parameters."""

    total: Count
    active: Count
    """Those that an average token meets in a forward pass."""


class Data(Record):
    """What the run was trained and evaluated on, by split."""

    source: str
    """`synthetic`, `hub` or `folder`."""
    fingerprint: str
    """Over the rows of both splits, 16 hex digits."""
    counts: dict[str, int]
    """Rows."""
    features: dict[str, int]
    """Examples encoded from them."""
    cut: dict[str, float]
    """Share of the features that lost something to a length limit."""
    skipped: dict[str, int] | None = None
    """Further rows, which lack a text and were left out; None if there are none, and in older results."""


class RunResult(Record):
    """One finished run. Times are of training alone; qualities are of the full validation split."""

    schema_version: Literal[1]
    run_id: PlainName
    """`<task>-<gate>-s<seed>-<8 hex digits of the configuration>`."""
    task: TaskName
    gate: PlainName
    scale: PlainName
    seed: Count
    config: dict[str, JsonValue]
    """The `RunConfig` as plain data; `config.from_dict` reads it."""
    status: Literal["finished"]
    steps: Annotated[int, Field(ge=1)]
    """Optimiser steps."""
    epochs: Amount
    """Sequences trained on, over those of the training split."""
    tokens: Count
    """Real tokens trained on, all stacks."""
    train_seconds: Amount
    """Data wait, forward, backward and optimiser; evaluation, checkpoints and records excluded."""
    seconds_per_step: Amount
    """Median over the steps."""
    tokens_per_second: Amount
    """`tokens` / `train_seconds`."""
    cpu_steal_fraction: float | None = Field(
        default=None, validation_alias="stolen_share", serialization_alias="stolen_share"
    )
    """Share of the CPUs' time, while training, that other virtual machines took; None if unknown."""
    interleaved_with: list[str] | None = Field(
        default=None, validation_alias="beside", serialization_alias="beside"
    )
    """Run ids whose steps were interleaved with this run's; None if unknown (older results)."""
    metric: Metric
    """With the gate as trained."""
    metrics: dict[str, JsonValue]
    """Everything that the metric gives, e.g. BLEU's signature or ROUGE-2."""
    metric_top1: Metric | None
    """With the best expert alone at inference; None for a dense model."""
    eval_loss: float
    """Mean task loss."""
    curve: Annotated[list[CurvePoint], Field(min_length=1)]
    """Loss on the fixed validation subset over training."""
    flops: Flops
    """Of the trained tokens."""
    flops_eval: Flops
    """Of the validation split."""
    routing: RoutingSummary | None
    """Of the trained tokens; None for a dense model."""
    curriculum: Curriculum | None = None
    """None for a dense model."""
    routing_eval: RoutingSummary | None
    """Of the validation split, with the trained model; None for a dense model."""
    parameters: Parameters
    peak_memory_bytes: Count
    """Resident in the process, or allocated on the GPU."""
    data: Data
    environment: Environment

    @property
    def checkpoint(self) -> str | None:
        """The pretrained model that the run started from, as in `ModelConfig.checkpoint`."""
        model = self.config.get("model")
        checkpoint = model.get("checkpoint") if isinstance(model, dict) else None
        return checkpoint if isinstance(checkpoint, str) else None

    @property
    def final_loss(self) -> float:
        """Loss on the fixed validation subset at the end of training."""
        return self.curve[-1].eval_loss


class RunIdentity(Record):
    """The head of `config.json`: which run it is, without its settings."""

    model_config = ConfigDict(extra="ignore")

    task: TaskName
    scale: PlainName
    gate: PlainName
    seed: Count


class RowsRead(Record):
    """The rows of a split."""

    fingerprint: str
    count: int


class EvalResult(Record):
    """What `repro eval` finds on a split."""

    run_id: str
    task: str
    gate: str
    split: str
    gate_at_inference: Literal["same", "top-1"]
    """`same` as trained, or `top-1`."""
    metric: Metric
    metrics: dict[str, JsonValue]
    eval_loss: float
    routing: RoutingSummary | None
    data: RowsRead


_MIGRATIONS: dict[int, Callable[[dict[str, JsonValue]], dict[str, JsonValue]]] = {}
"""Schema version -> what turns a result of it into one of the next."""


def parse_result(text: str | bytes, where: object) -> RunResult:
    """Check one result, of any schema version that can be brought to the present one.

    Args:
        where: the file, and if need be the line, for messages.

    Raises:
        UserError: it is not a result, or of an unknown version.
    """
    try:
        return RunResult.parse(text, where)
    except UserError:
        plain = parse_object(text, where)
        version = plain.get("schema_version")
        if version == SCHEMA_VERSION:
            raise
    while isinstance(version, int) and version in _MIGRATIONS:
        plain = _MIGRATIONS[version](plain)
        version = plain["schema_version"]
    if version != SCHEMA_VERSION:
        raise UserError(wrong_version(where, "schema version", version, SCHEMA_VERSION))
    return RunResult.parse(json.dumps(plain), where)


def read_result(path: Path) -> RunResult:
    """Read `result.json`.

    Raises:
        UserError: it cannot be read, or is not a result.
    """
    return parse_result(read_bytes(path), path)
