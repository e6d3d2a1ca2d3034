"""Save and load converted models, with the gate they were trained with or with another one."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from repro import plugins
from repro.errors import UserError, named_line, one_line, unknown
from repro.moe import models
from repro.moe.backbones import base as backbones
from repro.moe.backbones.base import Backbone, OwnRouter
from repro.moe.convert import convert
from repro.moe.flops import Architecture
from repro.moe.folder import CONFIG_KEY, configuration, family_of, read_configuration, read_weights
from repro.moe.gates.shared.softmax import cycled
from repro.moe.settings import MoESettings, SavedSettings
from repro.moe.sizes import refuse_too_large


def save(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write a model, converted or dense, in `save_pretrained` layout: config.json and safetensors.

    That of a converted model has a `model_type` of its own, and plain `transformers` refuses it.

    Args:
        weights: its whole tensors, where the model itself holds parts of them.
    """
    # By default the library takes stacked experts apart, into the names that other versions of it had.
    model.save_pretrained(folder, state_dict=weights, save_original_format=False)
    if models.is_converted(model):
        models.own_config(model.config).save_pretrained(folder)


def load(folder: Path, device: torch.device, backend: str = "auto") -> PreTrainedModel:
    """Load what `save` wrote. Needs no remote code; nothing but safetensors is read.

    Raises:
        UserError: the folder holds no model, or one that is too large for this machine.
    """
    config = configuration(folder)
    plain = getattr(config, CONFIG_KEY, None)
    weights = read_weights(folder)
    try:
        if plain is None:
            model = _dense(config, folder, weights)
        else:
            settings = SavedSettings.load(plain, folder).settings(backend, folder)
            model = _fresh(config, settings, folder, weights)
            convert(model, settings, device)
        _load_weights(model, weights)
        _load_generation(model, folder)
    except UserError:
        raise
    except Exception as error:  # the library and torch refuse sizes and weights with many types
        raise UserError(f"{folder}: not a saved model ({one_line(error)[:200]})") from error
    return model.to(device).eval()


def _dense(config: PreTrainedConfig, folder: Path, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """Build a model that was saved without MoE layers: one of the heads of its family."""
    backbone = family_of({"model_type": config.model_type}, folder)
    heads = {model_class.__name__: model_class for model_class in backbone.HEADS.values()}
    name = str((config.architectures or [""])[0])
    if name not in heads:
        raise UserError(f"{folder}: not a saved model ({unknown('head', name, heads)})")
    refuse_too_large(backbone, heads[name], config, str(folder), weights=weights)
    return heads[name](config)


def _fresh(
    config: PreTrainedConfig, settings: MoESettings, folder: Path, weights: Mapping[str, Tensor]
) -> PreTrainedModel:
    """Build the model that settings are of, not yet converted.

    Raises:
        UserError: they are of another family, or the model does not fit into memory.
    """
    backbone = family_of({"model_type": config.model_type}, folder)
    if settings.backbone not in plugins.names("backbones") or backbone is not backbones.load(
        settings.backbone
    ):
        raise UserError(
            f"{folder}: not a saved model ({settings.backbone!r} is not its model_type {config.model_type!r})"
        )
    if settings.head not in backbone.HEADS:
        raise UserError(f"{folder}: not a saved model ({unknown('head', settings.head, backbone.HEADS)})")
    count, every = settings.experts.count, settings.experts.every
    model_class = backbone.HEADS[settings.head]
    refuse_too_large(backbone, model_class, config, str(folder), experts=count, every=every, weights=weights)
    return model_class(config)


def load_checkpoint(
    folder: Path,
    backbone: Backbone,
    model_class: type[PreTrainedModel],
    options: Mapping[str, Any],
    where: str,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Load a pretrained model, to be converted and trained on; a head that it lacks is fresh.

    Args:
        options: entries of its configuration that take the place of its own.
        where: the option that named the folder, for messages.
        dtype: of its weights in memory.

    Raises:
        UserError: the folder holds no such model, or it does not fit into memory.
    """
    config = configuration(folder, where, options)
    weights = read_weights(folder, where, pickled=True)
    try:
        refuse_too_large(backbone, model_class, config, f"{where}{folder}", weights=weights, dtype=dtype)
        model = model_class.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
        _load_generation(model, folder)
    except UserError:
        raise
    except Exception as error:  # as in `load`
        raise UserError(f"{where}{folder}: cannot be loaded ({named_line(error)[:300]})") from error
    return model


def is_converted(folder: Path | None) -> bool:
    """Return whether a folder holds a model with MoE layers, as `save` writes it."""
    if folder is None or not (folder / "config.json").is_file():
        return False
    return CONFIG_KEY in read_configuration(folder, "--model ")


def own_router(folder: Path | None) -> OwnRouter | None:
    """Return how the MoE blocks of the model in a folder route by themselves.

    None if it has none, was converted, or cannot be read, which is said where it is loaded.
    """
    with suppress(UserError):
        if folder is None or is_converted(folder):
            return None
        model_type = read_configuration(folder).get("model_type")
        for backbone in map(backbones.load, plugins.names("backbones")):
            if model_type == backbone.MODEL_TYPE and backbone.own_router(backbone.CONFIG()) is not None:
                return backbone.own_router(configuration(folder))
    return None


def load_with_gate(
    folder: Path, settings: MoESettings, device: torch.device
) -> tuple[PreTrainedModel, Architecture]:
    """Load a converted model and put another gate before its experts, to train on.

    All weights but the gates' are taken over, and of a gate the weights with the same name: a router with
    as many experts is taken whole; one with more (null experts) gets copies of its rows behind them, from
    the first on, as in AdaMoE (https://arxiv.org/abs/2406.13233, 3.5). Ties go to the lowest index, so k = 3
    with a null expert for each true one starts as top-2.

    Raises:
        UserError: the folder holds no such model, or one with other experts or another task's head.
    """
    config = configuration(folder, "--model ")
    saved = SavedSettings.load(getattr(config, CONFIG_KEY), folder)
    pairs = {
        "head": (saved.head, settings.head),
        "experts.count": (saved.experts.count, settings.experts.count),
        "experts.activation": (saved.experts.activation, settings.experts.activation),
        "experts.every": (saved.experts.every, settings.experts.every),
    }
    problems = [
        f"--model {folder}: its {key} is {its!r}, the run's {own!r}"
        for key, (its, own) in pairs.items()
        if its != own
    ]
    if problems:
        raise UserError(*problems)
    stored = read_weights(folder, "--model ")
    try:
        model = _fresh(config, settings, folder, stored)
        architecture = convert(model, settings, device)
        fresh = model.state_dict()
        weights = {}
        for key, value in stored.items():
            if ".gate." not in key or (key in fresh and fresh[key].shape == value.shape):
                weights[key] = value
            elif key in fresh and _has_more_rows(fresh[key], value):
                weights[key] = cycled(value, len(fresh[key]))
        gates = {key: value for key, value in fresh.items() if ".gate." in key}
        _load_weights(model, gates | weights)
        _load_generation(model, folder)
    except UserError:
        raise
    except Exception as error:  # as in `load`
        raise UserError(f"--model {folder}: cannot be loaded ({one_line(error)[:200]})") from error
    return model.to(device), architecture


def _has_more_rows(fresh: Tensor, saved: Tensor) -> bool:
    """Return whether only the first axis is longer; numbers have none: states of gates may share a name."""
    if fresh.dim() != saved.dim() or saved.dim() == 0:
        return False
    return fresh.shape[1:] == saved.shape[1:] and len(fresh) > len(saved)


def _load_generation(model: PreTrainedModel, folder: Path) -> None:
    """Take over the generation settings; older models have them in their `config.json`."""
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    elif model.can_generate():
        model.generation_config = transformers.GenerationConfig.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True
        )


def _load_weights(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise ValueError(f"missing {sorted(set(missing) - tied)}, unexpected {unexpected}")
