"""From a configuration to data, tokenizer and model that are ready to train."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors import SafetensorError

from repro import moe, plugins, saved
from repro.config import RunConfig
from repro.cost import Architecture, reuse_freed_memory
from repro.errors import UserError, named_line, one_line, unknown
from repro.provenance import fingerprint_digests
from repro.records import Places, RunFolder
from repro.tasks._base import Feature, Row, Task
from repro.tasks._data import load_rows, rows_digests
from repro.tasks._features import cached_features
from repro.tasks._tokenizer import pretrained_tokenizer, trained_tokenizer
from repro.trainer import TrainingData


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
    data_record: dict[str, Any]


_BF16_WIDTH = 512
"""Narrower models are no faster in bf16 on a CPU: casting their weights takes what the products save."""


def make_accelerator(
    config: RunConfig, model: Path | None = None, tracked: RunFolder | None = None
) -> Accelerator:
    """Device, precision and processes.

    `auto` precision is bf16 where it is faster: on GPUs that have it, and on CPUs with instructions
    for bf16 products if the model is at least 512 wide; else fp32.

    Args:
        model: the folder of the checkpoint, if it is one.
        tracked: the run whose numbers go to TensorBoard.
    """
    precision = config.training.precision
    if precision == "auto":
        if torch.cuda.is_available():
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = _cpu_multiplies_bf16() and _width(config, model) >= _BF16_WIDTH
        precision = "bf16" if fast else "fp32"
    reuse_freed_memory()
    # A process may do several runs, of different precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with="tensorboard" if tracked else None,
        project_dir=str(tracked.path) if tracked else None,
    )


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _width(config: RunConfig, model: Path | None) -> int:
    """Width of the model; 0 if its configuration is wrong, which is found and reported later."""
    try:
        if config.model.checkpoint is not None:
            sizes = transformers.AutoConfig.from_pretrained(model or config.model.checkpoint)
        else:
            sizes = plugins.load("backbones", config.model.backbone).CONFIG(**dict(config.model.config))
        return int(sizes.hidden_size)
    except Exception:  # the library raises errors of many types
        return 0


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The data of a run, before there is a model."""

    task: Task
    rows: dict[str, list[Row]]
    """Split (`train`, `validation`) -> rows."""
    features: dict[str, list[Feature]]
    fingerprint: str
    """Of the rows of both splits."""


def load_examples(config: RunConfig, places: Places) -> Examples:
    """Read the splits, get the tokenizer, encode.

    Raises:
        UserError: something of it is missing or broken.
    """
    module = plugins.load("tasks", config.task)
    limits = {"train": config.data.train_samples, "validation": config.data.validation_samples}
    rows = {
        split: load_rows(module, config.data.source, places.data, split, limit)
        for split, limit in limits.items()
    }
    tokenizer = _tokenizer(config, module, rows["train"], places)
    task = module.Task(config.task_options, tokenizer, config.data.max_length)
    digests = {split: rows_digests(rows[split]) for split in rows}
    return Examples(
        task=task,
        rows=rows,
        features={
            split: encoded(task, rows[split], split, fingerprint_digests(digests[split])) for split in rows
        },
        fingerprint=fingerprint_digests(digests["train"] + digests["validation"]),
    )


def prepare(config: RunConfig, places: Places, device: torch.device) -> Prepared:
    """Load data, tokenizer and model; everything random comes from the seed.

    Raises:
        UserError: something of it is missing or does not fit.
    """
    check_family(config, places)
    examples = load_examples(config, places)
    task, rows, features = examples.task, examples.rows, examples.features
    set_seed(config.seed)
    module = plugins.load("tasks", config.task)
    converted = saved.is_converted(places.model)
    if converted:
        model, architecture = _converted_model(config, places, device)
    else:
        model = _dense_model(config, module, task.tokenizer, places)
    for parameter in plugins.load("backbones", config.model.backbone).fixed_parameters(model):
        parameter.requires_grad_(False)
    _check_sizes(config, model, task.tokenizer)
    if not converted:
        architecture = moe.convert(model, settings_of(config), device)
    # From here on only dropout is random: the same stream for every gate, another for every process.
    set_seed(config.seed, device_specific=True)
    subset = _fixed_subset(len(features["validation"]), config.evaluation.samples)
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
        data_record={
            "source": config.data.source.split(":")[0],
            "fingerprint": examples.fingerprint,
            "counts": {split: len(rows[split]) for split in rows},
            "features": {split: len(features[split]) for split in rows},
            "cut": {split: _share_cut(features[split]) for split in rows},
        },
    )


def settings_of(config: RunConfig) -> moe.MoESettings:
    """What `moe.convert` needs to know of a run."""
    return moe.MoESettings(
        backbone=config.model.backbone,
        head=plugins.load("tasks", config.task).HEAD,
        gate=config.gate,
        gate_options=config.gate_options,
        experts=config.experts,
    )


def encoded(task: Task, rows: list[Row], split: str, fingerprint: str) -> list[Feature]:
    """The features of a split, whose rows have this fingerprint.

    Raises:
        UserError: the rows give none.
    """
    features = cached_features(task, rows, fingerprint)
    if not features:
        raise UserError(f"data: the {len(rows)} rows of {split!r} hold too little text for one example")
    return features


def _share_cut(features: list[Feature]) -> float:
    """Share of the features that lost something to `data.max_length` or a target's limit."""
    return sum(bool(feature["cut"]) for feature in features) / len(features)


def _check_sizes(config: RunConfig, model: Any, tokenizer: Any) -> None:
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise UserError(f"--model: its tokenizer has {len(tokenizer)} tokens, the model {vocabulary}")
    positions = getattr(model.config, "max_position_embeddings", None)
    lengths = {
        "data.max_length": config.data.max_length,
        "task.max_target_length": getattr(config.task_options, "max_target_length", 0),
    }
    too_long = [
        f"{key}: {length} is more than the {positions} positions of the model"
        for key, length in lengths.items()
        if positions is not None and length > positions
    ]
    if too_long:
        raise UserError(*too_long)


def _tokenizer(config: RunConfig, task: ModuleType, rows: list[Row], places: Places) -> Any:
    if config.model.checkpoint is None:
        texts = (text for row in rows for text in task.texts(row))
        assert config.model.vocab_size is not None, "checked when the configuration was resolved"
        return trained_tokenizer(config.model.backbone, texts, config.model.vocab_size)
    return pretrained_tokenizer(places.model or config.model.checkpoint, where="--model ")


def model_options(config: RunConfig, tokenizer: Any) -> dict[str, Any]:
    """The whole configuration of a run's model: its sizes, and without a checkpoint its vocabulary."""
    options: dict[str, Any] = dict(config.model.config)
    if config.model.checkpoint is None:
        options |= plugins.load("backbones", config.model.backbone).vocabulary(tokenizer)
    return options


def check_family(config: RunConfig, places: Places) -> None:
    """Raise `UserError` unless a checkpoint is of the task's family; before its tokenizer is used."""
    if config.model.checkpoint is None:
        return
    source = places.model or config.model.checkpoint
    wanted = plugins.load("backbones", config.model.backbone).MODEL_TYPE
    try:
        found = transformers.AutoConfig.from_pretrained(source).model_type
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {source}: not a model directory ({one_line(error)})") from error
    if found != wanted:
        raise UserError(f"--model {source}: it is a {found!r} model; task {config.task!r} needs {wanted!r}")


def _dense_model(config: RunConfig, task: ModuleType, tokenizer: Any, places: Places) -> Any:
    """The model before conversion, from scratch or from a checkpoint."""
    backbone = plugins.load("backbones", config.model.backbone)
    model_class = backbone.HEADS[task.HEAD]
    options = model_options(config, tokenizer)
    known = sorted(backbone.CONFIG().to_dict())
    strange = [name for name, _ in config.model.config if name not in known]
    if strange:
        raise UserError(*(f"model.config: {unknown('option', name, known)}" for name in strange))
    if config.model.checkpoint is None:
        try:
            return model_class(backbone.CONFIG(**options, **task.MODEL_OPTIONS))
        except Exception as error:  # the library and torch refuse options with many types
            raise UserError(f"model.config: {named_line(error)}") from error
    source = places.model or config.model.checkpoint
    try:
        return model_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **options, **task.MODEL_OPTIONS
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"--model {source}: cannot be loaded ({one_line(error)})") from error


def _converted_model(config: RunConfig, places: Places, device: torch.device) -> tuple[Any, Architecture]:
    """A model that was trained with MoE layers before, with the gate of this run."""
    assert places.model is not None, "only a local folder holds a converted model"
    without_effect = [
        f"{key}: has no effect on {places.model}, which brings {what}"
        for key, given, what in (
            ("model.config", bool(config.model.config), "its sizes"),
            ("experts.init", config.experts.init != "random", "its experts"),
            ("--gate dense", config.gate == "dense", "MoE layers; give another gate"),
        )
        if given
    ]
    if without_effect:
        raise UserError(*without_effect)
    return saved.load_with_gate(places.model, settings_of(config), device)


def _fixed_subset(size: int, wanted: int) -> list[int]:
    """Evenly spread over the split, the same in every run."""
    wanted = min(size, wanted)
    return [index * size // wanted for index in range(wanted)]
