"""Build or load the model of a run."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from repro.config import RunConfig
from repro.errors import UserError, named_line, one_line, unknown
from repro.moe import convert, pretrained
from repro.moe.backbones.base import load as load_backbone
from repro.moe.flops import Architecture
from repro.results.files import RunPaths
from repro.tasks.base import TaskModule
from repro.tasks.base import load as load_task


def settings_of(config: RunConfig) -> convert.MoESettings:
    """Pick what `moe.convert` needs out of a configuration."""
    return convert.MoESettings(
        backbone=config.model.backbone,
        head=load_task(config.task).HEAD,
        gate=config.gate,
        gate_options=config.gate_options,
        experts=config.experts,
    )


def check_sizes(config: RunConfig, model: Any, tokenizer: Any) -> None:
    """Refuse a model that is too small for its tokenizer or for the lengths of the run.

    Raises:
        UserError: with every size that does not fit.
    """
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


def model_options(config: RunConfig, tokenizer: Any) -> Mapping[str, Any]:
    """Return a model's Hugging Face options: its sizes, and without a checkpoint its vocabulary."""
    options = dict(config.model.config)
    if config.model.checkpoint is None:
        options |= load_backbone(config.model.backbone).vocabulary(tokenizer)
    return options


def check_family(config: RunConfig, paths: RunPaths) -> None:
    """Refuse a checkpoint of another family than the task's, before its tokenizer is used.

    Raises:
        UserError: it is of another family, or no model at all.
    """
    if config.model.checkpoint is None:
        return
    source = paths.model or config.model.checkpoint
    family = load_backbone(config.model.backbone).MODEL_TYPE
    try:
        model_type = transformers.AutoConfig.from_pretrained(source).model_type
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--model {source}: not a model directory ({one_line(error)})") from error
    if model_type != family:
        raise UserError(
            f"--model {source}: it is a {model_type!r} model; task {config.task!r} needs {family!r}"
        )


def dense_model(config: RunConfig, task: TaskModule, tokenizer: Any, paths: RunPaths) -> Any:
    """Make the model before conversion, from scratch or from a checkpoint.

    Raises:
        UserError: an option is unknown, or the checkpoint cannot be loaded.
    """
    backbone = load_backbone(config.model.backbone)
    model_class = backbone.HEADS[task.HEAD]
    options = model_options(config, tokenizer)
    valid = sorted(backbone.CONFIG().to_dict())
    strange = [name for name, _ in config.model.config if name not in valid]
    if strange:
        raise UserError(*(f"model.config: {unknown('option', name, valid)}" for name in strange))
    if config.model.checkpoint is None:
        try:
            return model_class(backbone.CONFIG(**options, **task.MODEL_OPTIONS))
        except Exception as error:  # the library and torch refuse options with many types
            raise UserError(f"model.config: {named_line(error)}") from error
    source = paths.model or config.model.checkpoint
    try:
        return model_class.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, **options, **task.MODEL_OPTIONS
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"--model {source}: cannot be loaded ({one_line(error)})") from error


def converted_model(config: RunConfig, paths: RunPaths, device: torch.device) -> tuple[Any, Architecture]:
    """Load a model that was trained with MoE layers before, and give it the gate of this run.

    Raises:
        UserError: a setting has no effect on it, or it cannot be loaded.
    """
    assert paths.model is not None, "only a local folder holds a converted model"
    without_effect = [
        f"{key}: has no effect on {paths.model}, which brings {what}"
        for key, is_set, what in (
            ("model.config", bool(config.model.config), "its sizes"),
            ("experts.init", config.experts.init != "random", "its experts"),
            ("--gate dense", config.gate == "dense", "MoE layers; give another gate"),
        )
        if is_set
    ]
    if without_effect:
        raise UserError(*without_effect)
    return pretrained.load_with_gate(paths.model, settings_of(config), device)
