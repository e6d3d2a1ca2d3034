"""Whether the settings of a run go together: with its model's library, and with each other."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repro import plugins
from repro.checks import Where
from repro.config import ORDERS_BY_RATIOS, ModelConfig, RunConfig, Sections
from repro.errors import UserError
from repro.moe import lora
from repro.moe.backbones.base import load as load_backbone
from repro.moe.options import misfit, typed_options
from repro.tasks.base import load as load_task

_LOW_RANK = ("training.lora_rank", "training.lora_alpha", "model.dtype")
_MOST_GENERATED = 1_000_000
"""Rows of a generated corpus, which is in memory as a whole."""


@dataclass(frozen=True)
class Override:
    """A value that the user gave, and the option it came from."""

    value: Any
    origin: str


def checked_model(config: RunConfig, where: Where) -> ModelConfig:
    """Give the options of the model the types that the library has for them.

    Raises:
        UserError: with every option that is unknown or wrong, or saying why they do not go together.
    """
    task = load_task(config.task)
    try:
        backbone = load_backbone(config.model.backbone)
    except UserError as error:
        raise UserError(
            *(f"{where('model.backbone')}model.backbone: {line}" for line in error.problems)
        ) from None
    if task.HEAD not in backbone.HEADS:
        raise UserError(
            f"{where('model.backbone')}model.backbone: {config.model.backbone!r} has no head for the task"
            f" {config.task!r}, whose backbone is {task.BACKBONE!r}"
        )
    wrong: dict[str, str] = {}
    model = dataclasses.replace(config.model, config=typed_options(backbone, config.model.config, wrong))
    if not wrong and model.checkpoint is None:
        reason = misfit(model, task.HEAD, task.MODEL_OPTIONS)
        if reason is not None:
            raise UserError(f"model.config: {reason}")
    keys = {f"model.config.{name}": problem for name, problem in wrong.items()}
    if keys:
        raise UserError(*(f"{where(key)}{key}: {problem}" for key, problem in keys.items()))
    return model


def contradictions(
    sections: Sections, overrides: Mapping[str, Override], gate_name: str, adaptive: bool
) -> list[str]:
    """Find settings that exclude each other, or that would have no effect."""
    dense = gate_name == "dense"
    problems = []
    model = sections["model"]
    if model.get("checkpoint") is not None and "model.vocab_size" in overrides:
        problems.append("--set model.vocab_size: has no effect with a checkpoint, which brings its tokenizer")
    if sections["data"].get("source", "synthetic") == "synthetic":
        problems += [
            f"{overrides[key].origin}: {key}: a generated corpus has at most {_MOST_GENERATED} rows"
            for key in ("data.train_samples", "data.dev_samples", "data.validation_samples")
            if key in overrides and type(size := overrides[key].value) is int and size > _MOST_GENERATED
        ]
    problems += _of_low_rank(sections, overrides)
    problems += _without_order(sections, overrides, gate_name, adaptive)
    if sections["training"]["curriculum"] == "length" and "training.length_pool" in overrides:
        problems.append("--set training.length_pool: has no effect on the curriculum 'length'")
    if dense:
        problems += [
            f"{override.origin}: {key} has no effect: the gate 'dense' has no experts"
            for key, override in overrides.items()
            if key.startswith("experts.")
        ]
    else:
        backend = sections["experts"].get("backend", "auto")
        if backend != "auto":
            origin = overrides.get("experts.backend", Override(None, "experts.backend")).origin
            try:
                plugins.resolve("experts", str(backend), where=f"{origin}: ")
            except UserError as error:
                problems += error.problems
    return problems


def _of_low_rank(sections: Sections, overrides: Mapping[str, Override]) -> list[str]:
    """Find what does not go together about additions to weights, and weights in bf16."""
    training, model = sections["training"], sections["model"]
    rank = training.get("lora_rank")
    origin = {key: overrides[key].origin if key in overrides else key for key in _LOW_RANK}
    problems = []
    if rank not in (None, "none"):
        if not lora.is_installed():
            problems.append(
                f"{origin['training.lora_rank']}: peft is not installed; pip install 'repro[lora]'"
            )
    elif training.get("lora_alpha") not in (None, "none"):
        problems.append(f"{origin['training.lora_alpha']}: has no effect without training.lora_rank")
    if model.get("dtype", "fp32") != "fp32" and model.get("checkpoint") is None:
        problems.append(f"{origin['model.dtype']}: has no effect without a checkpoint (--model)")
    return problems


def _without_order(
    sections: Sections, overrides: Mapping[str, Override], gate_name: str, adaptive: bool
) -> list[str]:
    """Find an order by ratios that would never act; a number of steps is compared after the data are read."""
    override = overrides.get("training.curriculum")
    if override is None or override.value not in ORDERS_BY_RATIOS:
        return []
    if not adaptive:
        return [
            f"{override.origin}: {override.value!r} orders samples by their share of two-expert tokens,"
            f" which is the same for all under {gate_name!r}; use random or length"
        ]
    epochs = sections["training"].get("epochs")
    if isinstance(epochs, int | float) and epochs <= 1:
        return [
            f"{override.origin}: {override.value!r} acts from the second epoch on, and training.epochs is"
            f" {epochs:g}; give more than 1, or --curriculum random"
        ]
    return []
