"""Save and load converted models, with the gate they were trained with or with another one."""

import json
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from repro.errors import UserError, one_line
from repro.moe.convert import CONFIG_KEY, MoESettings, SavedSettings, convert
from repro.moe.flops import Architecture


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write a model, converted or dense, in `save_pretrained` layout: config.json and safetensors."""
    model.save_pretrained(folder)


def load(folder: Path, device: torch.device, backend: str = "auto") -> PreTrainedModel:
    """Load what `save` wrote. Needs no remote code; nothing but safetensors is read.

    Raises:
        UserError: the folder holds no model.
    """
    config = _configuration(folder)
    plain = getattr(config, CONFIG_KEY, None)
    try:
        model_class = getattr(transformers, (config.architectures or [""])[0])
        if plain is None:
            return model_class.from_pretrained(folder).to(device)
        model = model_class(config)
        convert(model, SavedSettings.load(plain, folder).settings(backend, folder), device)
        _load_weights(model, _weights(folder))
        _load_generation(model, folder)
    except _UNREADABLE as error:
        raise UserError(f"{folder}: not a saved model ({one_line(error)[:200]})") from error
    return model.to(device).eval()


def is_converted(folder: Path | None) -> bool:
    """Return whether a folder holds a model with MoE layers, as `save` writes it."""
    if folder is None or not (folder / "config.json").is_file():
        return False
    return CONFIG_KEY in json.loads((folder / "config.json").read_text(encoding="utf-8"))


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
    config = _configuration(folder)
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
    try:
        model = getattr(transformers, config.architectures[0])(config)
        architecture = convert(model, settings, device)
        fresh = model.state_dict()
        weights = {}
        for key, value in _weights(folder).items():
            if ".gate." not in key or (key in fresh and fresh[key].shape == value.shape):
                weights[key] = value
            elif key in fresh and _has_more_rows(fresh[key], value):
                weights[key] = value[torch.arange(len(fresh[key])) % len(value)]
        gates = {key: value for key, value in fresh.items() if ".gate." in key}
        _load_weights(model, gates | weights)
        _load_generation(model, folder)
    except _UNREADABLE as error:
        raise UserError(f"--model {folder}: cannot be loaded ({one_line(error)[:200]})") from error
    return model.to(device), architecture


def _has_more_rows(fresh: Tensor, saved: Tensor) -> bool:
    """Return whether only the first axis is longer; numbers have none: states of gates may share a name."""
    if fresh.dim() != saved.dim() or saved.dim() == 0:
        return False
    return fresh.shape[1:] == saved.shape[1:] and len(fresh) > len(saved)


_UNREADABLE = (OSError, ValueError, AttributeError, KeyError, TypeError, RuntimeError, SafetensorError)
"""What libraries raise for a folder that holds something else."""


def _configuration(folder: Path) -> PreTrainedConfig:
    if not (folder / "config.json").is_file():  # a library would look for it on the hub
        raise UserError(f"{folder}: not a saved model (no config.json in it)")
    try:
        return transformers.AutoConfig.from_pretrained(folder)
    except _UNREADABLE as error:
        raise UserError(f"{folder}: not a saved model ({one_line(error)[:200]})") from error


def _load_generation(model: PreTrainedModel, folder: Path) -> None:
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)


def _weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    return {key: value for name in files for key, value in load_file(folder / name).items()}


def _load_weights(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise ValueError(f"missing {sorted(set(missing) - tied)}, unexpected {unexpected}")
