"""From a configuration to data, tokenizer and model that are ready to train."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors import SafetensorError

from repro import moe, plugins
from repro.config import RunConfig
from repro.cost import Architecture
from repro.errors import UserError, one_line, unknown
from repro.records import Places, RunFolder
from repro.tasks._data import load_rows, rows_fingerprint
from repro.tasks._tokenizer import pretrained_tokenizer, trained_tokenizer
from repro.trainer import TrainingData


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to train."""

    task: ModuleType
    tokenizer: Any
    model: Any
    architecture: Architecture
    data: TrainingData
    validation: list[dict[str, Any]]
    """All validation features, in the order of their rows."""
    subset: list[dict[str, Any]]
    """Those that the loss curve is measured on."""
    references: list[Any]
    data_record: dict[str, Any]


def make_accelerator(config: RunConfig, tracked: RunFolder | None = None) -> Accelerator:
    """Device, precision and processes; `auto` precision is bf16 on GPUs that have it, else fp32."""
    precision = config.training.precision
    if precision == "auto":
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if has_bf16 else "fp32"
    # A process may do several runs, of different precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        log_with="tensorboard" if tracked else None,
        project_dir=str(tracked.path) if tracked else None,
    )


def prepare(config: RunConfig, places: Places, device: torch.device) -> Prepared:
    """Load data, tokenizer and model; everything random comes from the seed.

    Raises:
        UserError: something of it is missing or does not fit.
    """
    task = plugins.load("tasks", config.task)
    limits = {"train": config.data.train_samples, "validation": config.data.validation_samples}
    rows = {
        split: load_rows(task, config.data.source, places.data, split, limit)
        for split, limit in limits.items()
    }
    set_seed(config.seed)
    tokenizer = _tokenizer(config, task, rows["train"], places)
    features = {split: task.encode(rows[split], tokenizer, config.data.max_length) for split in rows}
    model = _dense_model(config, task, tokenizer, places)
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"--model: its tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}"
        )
    positions = getattr(model.config, "max_position_embeddings", config.data.max_length)
    if config.data.max_length > positions:
        raise UserError(
            f"data.max_length: {config.data.max_length} is more than the {positions} positions of the model"
        )
    settings = moe.MoESettings(
        backbone=config.model.backbone,
        head=task.HEAD,
        gate=config.gate,
        gate_options=config.gate_options,
        experts=config.experts,
    )
    architecture = moe.convert(model, settings, device)
    # From here on only dropout is random: the same stream for every gate, another for every process.
    set_seed(config.seed, device_specific=True)
    subset = _fixed_subset(len(rows["validation"]), config.evaluation.samples)
    return Prepared(
        task=task,
        tokenizer=tokenizer,
        model=model.to(device),
        architecture=architecture,
        data=TrainingData(
            task=task,
            train=features["train"],
            pad_id=tokenizer.pad_token_id,
        ),
        validation=features["validation"],
        subset=[features["validation"][index] for index in subset],
        references=task.references(rows["validation"]),
        data_record={
            "source": config.data.source.split(":")[0],
            "fingerprint": rows_fingerprint(rows["train"] + rows["validation"]),
            "counts": {split: len(rows[split]) for split in rows},
        },
    )


def _tokenizer(config: RunConfig, task: ModuleType, rows: list[dict[str, Any]], places: Places) -> Any:
    if config.model.checkpoint is None:
        texts = (text for row in rows for text in task.texts(row))
        assert config.model.vocab_size is not None, "checked when the configuration was resolved"
        return trained_tokenizer(config.model.backbone, texts, config.model.vocab_size)
    return pretrained_tokenizer(places.model or config.model.checkpoint, where="--model ")


def _dense_model(config: RunConfig, task: ModuleType, tokenizer: Any, places: Places) -> Any:
    """The model before conversion, from scratch or from a checkpoint."""
    backbone = plugins.load("backbones", config.model.backbone)
    model_class = backbone.HEADS[task.HEAD]
    options = dict(config.model.config)
    known = sorted(backbone.CONFIG().to_dict())
    strange = [name for name in options if name not in known]
    if strange:
        raise UserError(*(f"model.config: {unknown('option', name, known)}" for name in strange))
    if config.model.checkpoint is None:
        options |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        try:
            return model_class(backbone.CONFIG(**options, **task.MODEL_OPTIONS))
        except Exception as error:  # the library and torch refuse options with many types
            raise UserError(f"model.config: {type(error).__name__}: {one_line(error)}") from error
    source = places.model or config.model.checkpoint
    try:
        found = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {source}: not a model directory ({one_line(error)})") from error
    if found.model_type != backbone.MODEL_TYPE:
        raise UserError(
            f"--model {source}: it is a {found.model_type!r} model;"
            f" task {config.task!r} needs {backbone.MODEL_TYPE!r}"
        )
    try:
        return model_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **options, **task.MODEL_OPTIONS
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"--model {source}: cannot be loaded ({one_line(error)})") from error


def _fixed_subset(size: int, wanted: int) -> list[int]:
    """Evenly spread over the split, the same in every run."""
    wanted = min(size, wanted)
    return [index * size // wanted for index in range(wanted)]
