"""Make data, tokenizer and model of a configuration ready to train."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from repro.config import RunConfig
from repro.data.features import cached_features, report_special_tokens
from repro.data.rows import load_rows, load_training, rows_fingerprint
from repro.data.tokenizers import pretrained_tokenizer, trained_tokenizer
from repro.errors import UserError
from repro.moe import convert, lora, pretrained
from repro.moe.backbones.base import load as load_backbone
from repro.moe.flops import Architecture
from repro.moe.gates.base import load as load_gate
from repro.moe.layer import moe_layers
from repro.results.files import RunPaths
from repro.results.run import Data
from repro.run.model import check_family, check_sizes, converted_model, dense_model, settings_of
from repro.tasks.base import Feature, Row, Task, TaskModule
from repro.tasks.base import load as load_task
from repro.training.curriculum import TrainingData


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to train."""

    task: Task
    metric: str
    tokenizer: Any
    model: Any
    architecture: Architecture
    output_scale: float | None
    """Of a fresh layer against the FFN it replaces (`convert_measured`); None if experts were trained."""
    data: TrainingData
    dev: list[Feature]
    """Features of the dev split: curves and targets."""
    validation: list[Feature]
    """Features of the validation split: the final measurement."""
    rows: list[Row]
    """What those of the validation split were encoded from."""
    data_record: Data
    """For the result."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The data of a run, before there is a model."""

    task: Task
    rows: dict[str, list[Row]]
    """Split (`train`, `dev`, `validation`) -> rows."""
    features: dict[str, list[Feature]]
    fingerprints: dict[str, str]
    """Of the rows."""
    skipped: dict[str, int]
    """Further rows, which lack a text."""


def load_examples(config: RunConfig, paths: RunPaths) -> Examples:
    """Read the splits, get the tokenizer, encode.

    Raises:
        UserError: something of it is missing or broken.
    """
    module = load_task(config.task)
    data, folder = config.data, paths.data
    loaded = load_training(
        module, config.task_options, data.source, folder, data.train_samples, data.dev_samples
    )
    loaded["validation"] = load_rows(module, data.source, folder, "validation", data.validation_samples)
    rows = {split: loaded[split].rows for split in loaded}
    tokenizer = _tokenizer(config, module, rows["train"], paths)
    for split, read in rows.items():
        report_special_tokens(module, read, split, tokenizer)
    task = module.Task(config.task_options, tokenizer, config.data.max_length)
    fingerprints = {split: rows_fingerprint(rows[split]) for split in rows}
    return Examples(
        task=task,
        rows=rows,
        features={split: encoded(task, rows[split], split, fingerprints[split]) for split in rows},
        fingerprints=fingerprints,
        skipped={split: loaded[split].skipped for split in loaded},
    )


def prepare(config: RunConfig, paths: RunPaths, device: torch.device) -> Prepared:
    """Load data, tokenizer and model; everything random comes from the seed.

    Raises:
        UserError: something of it is missing or does not fit.
    """
    check_family(config, paths)
    examples = load_examples(config, paths)
    task, rows, features = examples.task, examples.rows, examples.features
    set_seed(config.seed)
    module = load_task(config.task)
    converted = pretrained.is_converted(paths.model)
    output_scale = None
    if converted:
        model, architecture = converted_model(config, paths, device)
    else:
        model = dense_model(config, module, task.tokenizer, paths)
    for parameter in load_backbone(config.model.backbone).fixed_parameters(model):
        parameter.requires_grad_(False)
    check_sizes(config, model, task.tokenizer)
    task.configure(model, features["train"])
    if not converted:
        architecture, output_scale = convert.convert_measured(model, settings_of(config), device)
    _tell_frequencies(config, model, task, features["train"])
    lora.add_to(model, config.training)
    # From here on only dropout is random: the same stream for every gate, another for every process.
    set_seed(config.seed, device_specific=True)
    return Prepared(
        task=task,
        metric=module.METRIC,
        tokenizer=task.tokenizer,
        model=model,
        architecture=architecture,
        output_scale=output_scale,
        data=TrainingData(task=task, train=features["train"]),
        dev=features["dev"],
        validation=features["validation"],
        rows=rows["validation"],
        data_record=_data_record(config, examples),
    )


def _tell_frequencies(config: RunConfig, model: Any, task: Task, features: list[Feature]) -> None:
    """Tell gates that decide by it how often each token id stands in the training split, stack by stack."""
    gate_class = load_gate(config.gate).Gate
    if gate_class is None or not gate_class.needs_frequencies:
        return
    for name, stack in load_backbone(config.model.backbone).stacks(model).items():
        counts_V = token_counts(task.inputs(feature)[name] for feature in features)
        for layer in moe_layers(stack.module):
            layer.gate.learn_frequencies(counts_V)


def token_counts(sequences: Iterable[list[int]]) -> Tensor:
    """Count how often each token id stands in sequences, int64, up to the largest one there is."""
    counts = Counter[int]()
    for ids in sequences:
        counts.update(ids)
    counts_V = torch.zeros(max(counts) + 1, dtype=torch.int64)
    counts_V[[*counts]] = torch.tensor([*counts.values()])
    return counts_V


def _data_record(config: RunConfig, examples: Examples) -> Data:
    rows, features = examples.rows, examples.features
    return Data(
        source=config.data.source.split(":")[0],
        counts={split: len(rows[split]) for split in rows},
        fingerprints=examples.fingerprints,
        skipped=examples.skipped,
        features={split: len(features[split]) for split in rows},
        cut={split: _share_cut(features[split]) for split in rows},
    )


def encoded(task: Task, rows: list[Row], split: str, fingerprint: str) -> list[Feature]:
    """Encode the rows of a split, or read them from the cache.

    Args:
        fingerprint: of the rows.

    Raises:
        UserError: the rows give none.
    """
    features = cached_features(task, rows, fingerprint)
    if not features:
        raise UserError(f"data: the {len(rows)} rows of {split!r} hold too little text for one example")
    return features


def _share_cut(features: list[Feature]) -> float:
    """Return the share of the features that lost something to `data.max_length` or a target's limit."""
    return sum(bool(feature["cut"]) for feature in features) / len(features)


def _tokenizer(config: RunConfig, task: TaskModule, rows: list[Row], paths: RunPaths) -> Any:
    if config.model.checkpoint is None:
        texts = (text for row in rows for text in task.texts(row))
        assert config.model.vocab_size is not None, "checked when the configuration was resolved"
        return trained_tokenizer(config.model.backbone, texts, config.model.vocab_size)
    return pretrained_tokenizer(paths.model or config.model.checkpoint, where="--model ")


def evenly_spread(size: int, samples: int) -> list[int]:
    """Spread `samples` indices (at most `size`) evenly over a split, ascending; the same every time."""
    samples = min(size, samples)
    return [index * size // samples for index in range(samples)]
