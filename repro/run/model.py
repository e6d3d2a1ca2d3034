"""Build or load the model of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from repro import plugins
from repro.config import RunConfig
from repro.errors import UserError, named_line
from repro.moe import hub, pretrained
from repro.moe.backbones.base import load as load_backbone
from repro.moe.flops import Architecture
from repro.moe.folder import family_of, read_configuration
from repro.moe.settings import MoESettings
from repro.moe.sizes import refuse_too_large
from repro.results.files import RunPaths
from repro.tasks.base import TaskModule
from repro.tasks.base import load as load_task


def settings_of(config: RunConfig) -> MoESettings:
    """Pick what `moe.convert` needs out of a configuration."""
    return MoESettings(
        backbone=config.model.backbone,
        head=load_task(config.task).HEAD,
        gate=config.gate,
        gate_options=config.gate_options,
        experts=config.experts,
    )


def weights_type(config: RunConfig) -> torch.dtype:
    """Return the type in which the weights of a checkpoint are held."""
    return torch.bfloat16 if config.model.dtype == "bf16" else torch.float32


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
    """Return a model's Hugging Face options: its sizes, and without a checkpoint its vocabulary.

    Raises:
        UserError: an option was set that follows from the tokenizer.
    """
    options = config.model.options
    if config.model.checkpoint is not None:
        return options
    vocabulary = load_backbone(config.model.backbone).vocabulary(tokenizer)
    without_effect = [name for name in vocabulary if name in options]
    if without_effect:
        raise UserError(
            *(f"model.config.{name}: has no effect: it follows from the tokenizer" for name in without_effect)
        )
    return options | vocabulary


def checkpoint_folder(checkpoint: str, model: Path | None) -> Path:
    """Return the folder of the model that a run starts from: the one given, or that of a model of the hub.

    Raises:
        UserError: the hub has no such model, or it cannot be fetched.
    """
    return model or hub.snapshot(checkpoint, "--model ")


def configuration_folder(checkpoint: str, model: Path | None) -> Path:
    """Return a folder with the configuration of the model that a run starts from; of the hub, only with it.

    Raises:
        UserError: the hub has no such model, or it cannot be fetched.
    """
    return model or hub.configuration_folder(checkpoint, "--model ")


def blocks_folder(backbone: str, model: str | None) -> Path | None:
    """Return a folder with the configuration of a model of the hub, if its family has MoE blocks; else None.

    Args:
        model: its name; None where the user gave none: what a scale says of its own needs no look.

    Raises:
        UserError: it is not in the cache of the hub, and cannot be fetched.
    """
    if model is None or backbone not in plugins.names("backbones"):
        return None
    family = load_backbone(backbone)
    has_blocks = family.own_router(family.CONFIG()) is not None
    return configuration_folder(model, None) if has_blocks else None


def check_family(config: RunConfig, paths: RunPaths) -> None:
    """Refuse a checkpoint of another family than the task's, before its tokenizer is used.

    Raises:
        UserError: it is of another family, or no model at all.
    """
    if config.model.checkpoint is None:
        return
    folder = configuration_folder(config.model.checkpoint, paths.model)
    found = family_of(read_configuration(folder, "--model "), folder, "--model ")
    needed = load_backbone(config.model.backbone).MODEL_TYPE
    if needed != found.MODEL_TYPE:
        fits = load_task(config.task).HEAD in found.HEADS
        raise UserError(
            f"--model {paths.model or config.model.checkpoint}: it is a {found.MODEL_TYPE!r} model;"
            f" task {config.task!r} needs {needed!r}"
            + (f", or give --set model.backbone={found.MODEL_TYPE}" if fits else "")
        )


def fresh_model(config: RunConfig, options: Mapping[str, Any]) -> PreTrainedModel:
    """Build the model of a run with fresh weights, on the default device.

    Args:
        options: of the Hugging Face configuration class, vocabulary included.

    Raises:
        UserError: the library refuses an option, or the model does not fit into memory.
    """
    backbone, task = load_backbone(config.model.backbone), load_task(config.task)
    model_class = backbone.HEADS[task.HEAD]
    experts = config.experts
    try:
        sizes = backbone.CONFIG(**options, **task.MODEL_OPTIONS)
        if torch.get_default_device().type != "meta":
            refuse_too_large(
                backbone,
                model_class,
                sizes,
                "model.config",
                experts=1 if config.gate == "dense" else experts.count,
                every=experts.every,
            )
        return model_class(sizes)
    except UserError:
        raise
    except Exception as error:  # the library and torch refuse options with many types
        raise UserError(f"model.config: {named_line(error)}") from error


def dense_model(config: RunConfig, task: TaskModule, tokenizer: Any, paths: RunPaths) -> Any:
    """Make the model before conversion, from scratch or from a checkpoint.

    Raises:
        UserError: an option is refused, the checkpoint cannot be loaded, or it does not fit into memory.
    """
    options = model_options(config, tokenizer)
    if config.model.checkpoint is None:
        return fresh_model(config, options)
    folder = checkpoint_folder(config.model.checkpoint, paths.model)
    backbone = load_backbone(config.model.backbone)
    return pretrained.load_checkpoint(
        folder,
        backbone,
        backbone.HEADS[task.HEAD],
        {**options, **task.MODEL_OPTIONS},
        "--model ",
        weights_type(config),
    )


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
            ("experts.scale", config.experts.scale != "none", "its experts"),
            ("model.dtype", config.model.dtype != "fp32", "the type of its weights"),
            ("--gate dense", config.gate == "dense", "MoE layers; give another gate"),
        )
        if is_set
    ]
    if without_effect:
        raise UserError(*without_effect)
    return pretrained.load_with_gate(paths.model, settings_of(config), device)
