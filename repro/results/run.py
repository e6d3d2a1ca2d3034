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

SCHEMA_VERSION: Literal[2] = 2
"""Version of `result.json`."""


class Metric(Record):
    """The task's headline metric on the full validation split."""

    name: PlainName
    """A member of `metrics`."""
    value: float | None
    """None if it is not a finite number."""
    higher_is_better: bool
    """Whether a higher value is a better one."""
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
    """Spearman's correlations over the training samples; None if undefined."""

    length_ratio_correlation: float | None
    """Of a sample's length with its share of two-expert tokens, in the last whole epoch."""
    length_count_correlation: float | None
    """Of a sample's length with its number of two-expert tokens, in the last whole epoch."""
    place_ratio_correlation: float | None
    """Of a sample's place in the order of an epoch with its share of two-expert tokens (mean over layers) in
    the epoch before, from which the order was made; mean over the ordered epochs. 1: the easiest first. None
    in random order."""


class Parameters(Record):
    """Numbers of parameters."""

    total: Count
    """Of the whole model."""
    active: Count
    """Those that an average token meets in a forward pass."""


class Data(Record):
    """What the run was trained and evaluated on, by split."""

    source: str
    """`synthetic`, `hub` or `folder`."""
    counts: dict[str, int]
    """Rows of `train`, `dev` and `validation`."""
    fingerprints: dict[str, str]
    """Over the rows, 16 hex digits."""
    skipped: dict[str, int]
    """Further rows of the file that lack a text and were left out; those of `train` may be of `dev`."""
    features: dict[str, int]
    """Examples encoded from them."""
    cut: dict[str, float]
    """Share of the features that lost something to a length limit."""


class RunResult(Record):
    """One finished run. Times are of training alone; qualities are of the full validation split."""

    schema_version: Literal[2]
    """Of this file; older results are brought to the present one when they are read."""
    run_id: PlainName
    """`<task>-<gate>-s<seed>-<8 hex digits of the configuration>`."""
    task: TaskName
    """A member of `tasks`."""
    gate: PlainName
    """A gate as it is typed, such as `top-2`."""
    scale: PlainName
    """A file in `experiments/`."""
    seed: Count
    """Of the data order, the weights at the start and dropout."""
    config: dict[str, JsonValue]
    """The `RunConfig` as plain data; `config.from_dict` reads it."""
    status: Literal["finished"]
    """Results are of finished runs alone."""
    steps: Annotated[int, Field(ge=1)]
    """Optimiser steps."""
    epochs: Amount
    """Sequences trained on, over those of the training split."""
    tokens: Count
    """Real tokens trained on, all stacks."""
    samples_per_step: Amount | None = None
    """Examples in an optimiser step, of all processes together, mean; None if unknown (older results)."""
    samples_left_out: Count = 0
    """Training examples that no step of an epoch has."""
    train_seconds: Amount
    """Data wait, forward, backward and optimiser; evaluation, checkpoints and records excluded."""
    seconds_per_step: Amount
    """Median over the fair steps; over all of them if there are none."""
    fair_steps: Count | None = None
    """Steps during which all lanes were training, so that their times may be compared with those of the runs
    in turns with this one; None if unknown (older results)."""
    lanes: Annotated[int, Field(ge=1)] = 1
    """Runs that trained at the same time, each on cores of its own."""
    seconds_per_step_by_epoch: Annotated[list[Amount], Field(min_length=1)]
    """Median over the steps of each epoch; the last may have been cut short. Orders by ratios act from the
    second on: the first is the same work in all of them and in random order."""
    tokens_per_second: Amount
    """`tokens` / `train_seconds`."""
    cpu_steal_fraction: float | None = Field(
        default=None, validation_alias="stolen_share", serialization_alias="stolen_share"
    )
    """Share of the CPUs' time, while training, that other virtual machines took; None if unknown. Above a
    tenth the tables warn: times are too long."""
    interleaved_with: list[str] | None = Field(
        default=None, validation_alias="beside", serialization_alias="beside"
    )
    """Ids of the runs that trained between the steps of this one, as it happened; None if unknown."""
    neighbours: dict[str, Count] = Field(default_factory=dict)
    """Run id -> fair steps of this run during which that one trained on another lane."""
    metric: Metric
    """With the gate as trained."""
    metrics: dict[str, JsonValue]
    """Everything that the metric gives, e.g. BLEU's signature or ROUGE-2."""
    metric_top1: Metric | None
    """With the best expert alone at inference; None for a dense model."""
    metric_trivial: float | None = None
    """The metric of an answer that needs no model (`Task.trivial`): the majority of the training labels, the
    first three tokens of the context, a copy of the source, the first three sentences, unigram frequencies,
    the place where most right choices stand.
    None if the task names none."""
    eval_loss: float
    """Mean task loss on the validation split."""
    dev_loss: float
    """The same on the dev split."""
    curve: Annotated[list[CurvePoint], Field(min_length=1)]
    """Loss of the trunk on the dev split, from which times to a target are read."""
    flops: Flops
    """Of the trained tokens."""
    flops_eval: Flops
    """Of the validation split."""
    routing: RoutingSummary | None
    """Of the trained tokens; None for a dense model."""
    output_scale: float | None = None
    """Root mean square of a layer's output at the start over that of the FFN it replaces, mean over layers,
    on random tokens; None if the experts were trained before."""
    curriculum: Curriculum | None = None
    """None for a dense model."""
    routing_eval: RoutingSummary | None
    """Of the validation split, with the trained model; None for a dense model."""
    parameters: Parameters
    """Of the model as it was trained."""
    peak_memory_bytes: Count
    """Peak resident size of the process since the run began, or allocated on the GPU; after other runs in the
    same process it includes what they left."""
    data: Data
    """What it was trained and evaluated on."""
    environment: Environment
    """Code, libraries and machine."""

    @property
    def checkpoint(self) -> str | None:
        """The pretrained model that the run started from, as in `ModelConfig.checkpoint`."""
        model = self.config.get("model")
        checkpoint = model.get("checkpoint") if isinstance(model, dict) else None
        return checkpoint if isinstance(checkpoint, str) else None

    @property
    def schedule(self) -> str:
        """The schedule of its learning rate, as in `TrainingConfig.schedule`."""
        training = self.config.get("training")
        assert isinstance(training, dict), "a configuration has this section"
        return str(training["schedule"])


class RunIdentity(Record):
    """The head of `config.json`: which run it is, without its settings."""

    model_config = ConfigDict(extra="ignore")

    task: TaskName
    """A member of `tasks`."""
    scale: PlainName
    """A file in `experiments/`."""
    gate: PlainName
    """A gate as it is typed."""
    seed: Count
    """Its seed."""


class RowsRead(Record):
    """The rows of a split."""

    fingerprint: str
    """Over the rows, 16 hex digits."""
    count: int
    """How many there are."""


class EvalResult(Record):
    """What `repro eval` finds on a split."""

    run_id: str
    """The run."""
    task: str
    """Its task."""
    gate: str
    """Its gate."""
    split: str
    """`train`, `dev`, `validation` or `test`."""
    gate_at_inference: Literal["same", "top-1"]
    """`same` as trained, or `top-1`."""
    metric: Metric
    """The headline metric."""
    metrics: dict[str, JsonValue]
    """Everything that the metric gives."""
    eval_loss: float
    """Mean task loss."""
    routing: RoutingSummary | None
    """None for a dense model."""
    data: RowsRead
    """The rows that were read."""


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
