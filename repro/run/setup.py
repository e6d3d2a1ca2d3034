"""Make data, tokenizer and model of a configuration ready to train."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import set_seed

from repro.config import RunConfig
from repro.data.features import cached_features, report_special_tokens
from repro.data.rows import load_rows, rows_digests
from repro.data.tokenizers import pretrained_tokenizer, trained_tokenizer
from repro.errors import UserError
from repro.moe import convert, pretrained
from repro.moe.backbones.base import load as load_backbone
from repro.moe.flops import Architecture
from repro.provenance import fingerprint_digests
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
    data: TrainingData
    validation: list[Feature]
    """All validation features."""
    rows: list[Row]
    """What they were encoded from."""
    subset: list[Feature]
    """Those that the loss curve is measured on."""
    data_record: Data
    """For the result."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The data of a run, before there is a model."""

    task: Task
    rows: dict[str, list[Row]]
    """Split (`train`, `validation`) -> rows."""
    features: dict[str, list[Feature]]
    fingerprint: str
    """Of the rows of both splits."""
    skipped: dict[str, int]
    """Further rows, which lack a text."""


def load_examples(config: RunConfig, paths: RunPaths) -> Examples:
    """Read the splits, get the tokenizer, encode.

    Raises:
        UserError: something of it is missing or broken.
    """
    module = load_task(config.task)
    limits = {"train": config.data.train_samples, "validation": config.data.validation_samples}
    loaded = {
        split: load_rows(module, config.data.source, paths.data, split, limit)
        for split, limit in limits.items()
    }
    rows = {split: loaded[split].rows for split in loaded}
    tokenizer = _tokenizer(config, module, rows["train"], paths)
    for split, read in rows.items():
        report_special_tokens(module, read, split, tokenizer)
    task = module.Task(config.task_options, tokenizer, config.data.max_length)
    digests = {split: rows_digests(rows[split]) for split in rows}
    return Examples(
        task=task,
        rows=rows,
        features={
            split: encoded(task, rows[split], split, fingerprint_digests(digests[split])) for split in rows
        },
        fingerprint=fingerprint_digests(digests["train"] + digests["validation"]),
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
    if converted:
        model, architecture = converted_model(config, paths, device)
    else:
        model = dense_model(config, module, task.tokenizer, paths)
    for parameter in load_backbone(config.model.backbone).fixed_parameters(model):
        parameter.requires_grad_(False)
    check_sizes(config, model, task.tokenizer)
    task.configure(model, features["train"])
    if not converted:
        architecture = convert.convert(model, settings_of(config), device)
    # From here on only dropout is random: the same stream for every gate, another for every process.
    set_seed(config.seed, device_specific=True)
    subset = evenly_spread(len(features["validation"]), config.evaluation.samples)
    return Prepared(
        task=task,
        metric=module.METRIC,
        tokenizer=task.tokenizer,
        model=model.to(device),
        architecture=architecture,
        data=TrainingData(task=task, train=features["train"]),
        validation=features["validation"],
        rows=rows["validation"],
        subset=[features["validation"][index] for index in subset],
        data_record=_data_record(config, examples),
    )


def _data_record(config: RunConfig, examples: Examples) -> Data:
    rows, features = examples.rows, examples.features
    record = Data(
        source=config.data.source.split(":")[0],
        fingerprint=examples.fingerprint,
        counts={split: len(rows[split]) for split in rows},
        features={split: len(features[split]) for split in rows},
        cut={split: _share_cut(features[split]) for split in rows},
    )
    # Without such rows there is no entry, as there was none in older results.
    some = any(examples.skipped.values())
    return record.model_copy(update={"skipped": examples.skipped}) if some else record


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
