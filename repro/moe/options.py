"""Options of a Hugging Face configuration: which a run may set, their types, whether they make a model."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from repro.checks import Options, OptionValue, shown
from repro.config import ModelConfig
from repro.errors import named_line, unknown
from repro.moe.backbones import base as backbones
from repro.moe.backbones.base import Backbone

MAX_LAYERS = 1000
"""Layers of a stack; building more takes minutes."""
_MAX_ENTRIES, _MAX_WIDTH = 2**20, 2**17
"""Rows of an embedding, and any other size."""
_OTHER_MODELS = {"is_decoder", "is_encoder_decoder", "add_cross_attention"}
"""Options by which a class becomes another model than the one that is converted."""


def option_defaults(backbone: Backbone) -> dict[str, Any]:
    """Return the options of a run's model with their defaults: those that the family's class has itself.

    What every class has (labels, kinds of output, chunks of the feed-forward network) is up to the task;
    options that have parts (of rotary positions) cannot be set.
    """
    shared = {*PreTrainedConfig().to_dict(), *_OTHER_MODELS}
    plain = backbone.CONFIG().to_dict()
    return {name: plain[name] for name in plain if name not in shared and not isinstance(plain[name], dict)}


def typed_options(backbone: Backbone, options: Options, problems: dict[str, str]) -> Options:
    """Give every option the type of its default, so that `0` and `0.0` are one setting.

    Args:
        problems: option -> what is wrong with it; added to.
    """
    defaults = option_defaults(backbone)
    decided = backbone.CONFIG().to_dict().keys() - defaults.keys() | {"num_labels"}
    typed = {}
    for name, value in options:
        if name in defaults:
            is_float = isinstance(defaults[name], float) or "drop" in name
            typed[name] = float(value) if is_float and type(value) is int else value
            problem = _problem(backbone, name, defaults[name], typed[name])
            if problem is not None:
                problems[name] = problem
        elif name in decided:
            problems[name] = "is no setting of a run: the task decides it"
        else:
            problems[name] = unknown("option", name, sorted(defaults))
    return tuple(sorted(typed.items()))


def _problem(backbone: Backbone, name: str, default: object, value: OptionValue) -> str | None:
    """Say what is wrong with a value; None if nothing is."""
    expected = tuple if isinstance(default, list) else type(default)
    if "drop" in name:
        if not isinstance(value, float) or not 0 <= value <= 1:
            return f"must be between 0 and 1, got {shown(value)}"
    elif default is not None and type(value) is not expected:
        return f"expected {_WORDS[type(default)]}, got {shown(value)}"
    elif type(value) is int:
        return wrong_number(backbone, name, value)
    elif name in ("hidden_act", "activation_function") and value not in ACT2FN:
        return unknown("activation", str(value), sorted(ACT2FN))
    return None


def wrong_number(backbone: Backbone, name: str, value: int) -> str | None:
    """Say that a whole number is no size of a model of this family; None if it may be one."""
    low, high = (0 if name.endswith("_id") else 1), _MAX_WIDTH
    if name in backbone.STACKS.values():
        high = MAX_LAYERS
    elif "vocab" in name or "position" in name or name.endswith("_id"):
        high = _MAX_ENTRIES
    return None if low <= value <= high else f"must be between {low} and {high}, got {value}"


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}


def misfit(model: ModelConfig, head: str, task_options: Mapping[str, Any]) -> str | None:
    """Say why a model of these options cannot be built from scratch; None if it can. Nothing is computed.

    Args:
        task_options: what the task adds to the options.
    """
    return _misfit(model.backbone, head, model.config, tuple(sorted(task_options.items())))


@lru_cache(maxsize=256)
def _misfit(name: str, head: str, options: Options, task_options: Options) -> str | None:
    backbone = backbones.load(name)
    plain = ModelConfig(backbone=name, config=options).options
    try:
        with torch.device("meta"):
            one_layer = dict.fromkeys(backbone.STACKS.values(), 1)
            backbone.HEADS[head](backbone.CONFIG(**plain | dict(task_options) | one_layer))
    except Exception as error:  # the library and torch refuse options with many types
        return named_line(error)
    return None
