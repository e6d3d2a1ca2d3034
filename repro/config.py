"""One run as a frozen, hashable value, and the strict reading of it from TOML, JSON or the command line."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticUndefined

from repro import plugins
from repro.checks import (
    Options,
    PlainName,
    Scalar,
    Seed,
    SourceName,
    Where,
    decode,
)
from repro.errors import UserError
from repro.identity import identity

Settings = TypeVar("Settings")
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def bounded(
    default: Any = PydanticUndefined,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """Make a field with limits: `low` and `high` are inclusive, `above` is exclusive."""
    return Field(default, ge=low, le=high, gt=above)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[Settings]) -> type[Settings]:
    """Make a class of settings a frozen, hashable dataclass that checks types and limits.

    An int is a valid float; infinities and NaN are not.
    """
    return cast(type[Settings], pydantic_dataclass(cls, frozen=True, kw_only=True, config=_STRICT))


@settings
class ModelConfig:
    """Which network: an architecture built from scratch, or a pretrained checkpoint."""

    backbone: str
    checkpoint: str | None = None
    """Hub id, `dir:<name>:<fingerprint>` of a local directory, or `run:<run id>` of the run of a study
    whose model this one goes on with; None builds from `config`."""
    vocab_size: int | None = bounded(None, low=32, high=2**20)
    """Size of the tokenizer trained on the training split; None with a checkpoint."""
    config: Options = ()
    """Options of the Hugging Face configuration class, by its own names."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """In which the weights of a checkpoint are held; bf16 for those that are not trained themselves."""

    @property
    def options(self) -> dict[str, Scalar | list[Scalar]]:
        """Return the options as JSON has them, and as the library takes them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.config}


@settings
class DataConfig:
    """Which examples, and how long."""

    source: SourceName = "synthetic"
    """`synthetic`, `hub`, or `folder:<fingerprint>` (the content, not the place, names the data)."""
    max_length: int = bounded(low=4)
    train_samples: int | None = bounded(None, low=1)
    """Use at most this many training examples; the synthetic corpora generate exactly this many."""
    dev_samples: int = bounded(low=1)
    """At most this many further examples of the training split are the dev split, which curves, targets and
    learning rates are measured on; examples that belong together stay together, so one group may be more."""
    validation_samples: int | None = bounded(None, low=1)


@settings
class ExpertsConfig:
    """The experts of every MoE layer (paper 2.1, 4.3)."""

    count: int = bounded(16, low=1, high=2**12)
    init: Literal["random", "upcycle"] = "random"
    """`upcycle`: every expert is a copy of the dense FFN."""
    scale: Literal["none", "fitted"] = "none"
    """`fitted`: a layer starts at the scale of the FFN it replaces (`repro.moe.initialize`). Unless it is
    set, a run fits copies and leaves random experts as they are drawn."""
    activation: Literal["model", "relu"] = "model"
    backend: str = "auto"
    every: int = bounded(1, low=1)
    """Convert every n-th feed-forward network."""
    parallel: int | None = bounded(None, low=1)
    """Processes over which the experts of a layer are spread (paper, 4.3); None: all, if they divide them."""


@settings
class TrainingConfig:
    """Optimisation and data order. Of `steps` and `epochs`, and of the two batch sizes, one is set."""

    steps: int | None = bounded(None, low=1)
    epochs: float | None = bounded(None, above=0, high=1_000_000)
    batch_size: int | None = bounded(None, low=1)
    """Samples in a batch."""
    batch_tokens: int | None = bounded(None, low=1)
    """Positions in a batch: samples times the longest of them, source or target."""
    accumulation: int = bounded(1, low=1)
    learning_rate: float = bounded(above=0)
    schedule: Literal["wsd", "linear", "constant"] = "wsd"
    """`wsd`: constant, and in the end a cooldown to 0; `linear`: falls to 0 from the warm-up on."""
    warmup: float = bounded(0.1, low=0, high=1)
    """Share of the steps over which the learning rate rises linearly."""
    cooldown: float = bounded(0.2, low=0, high=1)
    """Share of the steps over which `wsd` falls linearly to 0."""
    weight_decay: float = bounded(0.01, low=0)
    clip_norm: float | None = bounded(1.0, above=0)
    lora_rank: int | None = bounded(None, low=1)
    """Train additions of this rank beside the weights, which stay, and the gates (`repro.moe.lora`)."""
    lora_alpha: float | None = bounded(None, above=0)
    """The additions are multiplied by alpha / rank; None: twice the rank."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    balance_late: float = bounded(1.0, low=0)
    """Factor of the losses of gates in the second half of the budget."""
    curriculum: Literal["random", "cosine", "distance", "mean", "count", "length"] = "random"
    """Orders by what the gate did (all but `random` and `length`) act from the second epoch on."""
    length_pool: int = bounded(50, low=1)
    """Batches are cut from pools of this many, sorted by length; 1 keeps a curriculum's order exactly."""
    checkpoint_every: int = bounded(500, low=1)
    batch_tokens_of: Literal["process", "batch"] = "process"
    """Whose `batch_tokens` are: of each process, as in fairseq, or of all of them together."""
    balance_over: Literal["global", "process"] = "global"
    """What gates balance, and move their states by: the whole batch, or each process its own part of it."""
    shard: Literal["none", "fsdp"] = "none"
    """How several processes hold what is no expert: a copy each, or a share of every tensor each."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    exchange_times: bool = False
    """Record, per layer and process, tokens received, bytes and seconds of the exchanges; it costs time."""


@settings
class EvaluationConfig:
    """The loss curve during training and the final measurement."""

    points: int = bounded(50, low=1)
    """Places of the budget at which the loss on the dev split is measured."""
    batch_size: int = bounded(64, low=1)


@settings
class RunNames:
    """Which run it is: what its id, and with it the names of its folders, are made of."""

    task: PlainName
    scale: PlainName
    gate: PlainName
    seed: Seed


@settings
class RunConfig(RunNames):
    """Everything that decides the numbers of one run, and nothing else (no paths, no devices)."""

    task_options: Any
    """The `Config` of the task's own module."""
    gate_options: Any
    """The `Config` of the gate's own module."""
    model: ModelConfig
    data: DataConfig
    experts: ExpertsConfig
    training: TrainingConfig
    evaluation: EvaluationConfig

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with `model.config` as a mapping; `from_dict` reads it."""
        plain = dataclasses.asdict(self)
        plain["model"]["config"] = self.model.options
        return plain

    @property
    def run_id(self) -> str:
        """Return `<task>-<gate>-s<seed>-<8 hex digits of the canonical JSON>`."""
        canonical = json.dumps(identity(self.to_dict()), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return f"{self.task}-{self.gate}-s{self.seed}-{digest}"


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "experts": ExpertsConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}

ORDERS_BY_RATIOS = ("cosine", "distance", "mean", "count")
"""Orders of `training.curriculum` by what the gate did in the epoch before: they act from the second on."""

ALTERNATIVES = (("steps", "epochs"), ("batch_size", "batch_tokens"))
"""Keys of `training` of which exactly one is given."""

Sections = dict[str, dict[str, Any]]
"""Section of `RunConfig` -> key -> value, as TOML, JSON or the command line give it, not yet checked."""


def from_dict(plain: Mapping[str, Any], where: Where = lambda key: "") -> RunConfig:
    """Check a whole run and make it a value.

    Args:
        plain: the sections of `RunConfig` as nested mappings.
        where: maps a dotted key to a prefix that tells the user where the value came from.

    Raises:
        UserError: with one line for every unknown key, wrong type, value out of range or missing key.
    """
    names = [entry.name for entry in dataclasses.fields(RunNames)]
    missing = [key for key in (*names, "task_options", "gate_options", *SECTIONS) if key not in plain]
    if missing:
        raise UserError(f"{where(missing[0])}no {missing[0]!r}: written by another version of repro")
    problems: list[str] = []
    run = decode(RunNames, {name: plain[name] for name in names}, "", where, problems)
    if problems:
        raise UserError(*problems)
    classes = {
        "task_options": options_class("tasks", run.task),
        "gate_options": options_class("gates", run.gate),
        **SECTIONS,
    }
    sections = {
        name: decode(cls, plain[name], f"{name.removesuffix('_options')}.", where, problems)
        for name, cls in classes.items()
    }
    if isinstance(plain["training"], Mapping):
        for pair in ALTERNATIVES:
            if sum(plain["training"].get(key) not in (None, "none") for key in pair) != 1:
                problems.append(f"training.{pair[0]}, training.{pair[1]}: give exactly one of them")
    if problems:
        raise UserError(*problems)
    return RunConfig(**dataclasses.asdict(run), **sections)


def options_class(family: str, member: str) -> type:
    """Return the class of a gate's or a task's own options.

    Raises:
        UserError: no member has that name.
    """
    options: type = plugins.load(family, member).Config
    return options


def option_names(family: str, member: str) -> list[str]:
    """Return the names of the options of a gate or a task."""
    return [entry.name for entry in dataclasses.fields(options_class(family, member))]
