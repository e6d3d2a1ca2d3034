"""What other programs call, as `repro.convert`, `repro.load`, `repro.record_routing` and `repro.flops`."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel

import repro.hf  # noqa: F401 (what is saved can then be loaded by its Auto class)
from repro import plugins
from repro.checks import describe
from repro.config import ExpertsConfig, option_names, options_class
from repro.errors import UserError, unknown
from repro.moe import models, pretrained
from repro.moe.backbones import base as backbones
from repro.moe.convert import convert as replace_ffns
from repro.moe.flops import Work
from repro.moe.gates import base as gates
from repro.moe.recognise import architecture_of_model, recognise
from repro.moe.routing import record_routing
from repro.moe.settings import MoESettings
from repro.results.run import Flops

__all__ = ["convert", "flops", "load", "record_routing"]


def convert(
    model: PreTrainedModel,
    gate: str = "adaptive",
    *,
    experts: int | None = None,
    init: Literal["upcycle", "random"] | None = None,
    scale: Literal["fitted", "none"] | None = None,
    activation: Literal["model", "relu"] = "model",
    every: int = 1,
    backend: str = "auto",
    **options: object,
) -> PreTrainedModel:
    """Put MoE layers into the places of a model's feed-forward networks, in place, and return the model.

    Of a pretrained MoE model they take the places of its MoE blocks, with their experts and their routers'
    rows. Family and head are recognised. Fresh routers, and experts that are not copies, draw from torch's
    global generator. The model's class becomes a subclass of its own (`repro.moe.models`): it is saved, and
    loaded again after `import repro.hf`, as any other model.

    Args:
        gate: `adaptive`, `top-2`, ...: docs/gates.md.
        experts: in each layer; None is 16, or as many as the MoE blocks of the model have.
        init: `upcycle` makes every expert a copy of the network that it stands for, `random` draws them;
            None is the former. MoE blocks bring their experts: leave it, and `scale`, out.
        scale: `fitted` lets a layer start at the scale of that network; None does so for copies.
        activation: of the experts: the model's own, or `relu`.
        every: convert every n-th network.
        backend: what computes the experts; `auto` is `grouped`.
        options: of the gate, for example `threshold=0.1`.

    Raises:
        UserError: the model is not supported or has MoE layers already, or an option is not valid.
    """
    backbone, head = recognise(model)
    if models.is_converted(model):
        raise UserError("model: has MoE layers already; convert a dense one, or load it with another gate")
    member, chosen = _gate_options(gate, options)
    own = backbones.load(backbone).own_router(model.config)
    init = init or ("upcycle" if own is None else "random")
    settings = MoESettings(
        backbone=backbone,
        head=head,
        gate=member,
        gate_options=chosen,
        experts=_checked(
            ExpertsConfig,
            {
                "count": (16 if own is None else own.experts) if experts is None else experts,
                "init": init,
                "scale": scale or ("fitted" if init == "upcycle" else "none"),
                "activation": activation,
                "every": every,
                "backend": backend,
            },
            "experts.",
        ),
    )
    models.set_config(model, copy.deepcopy(model.config))  # other models may have the same one
    replace_ffns(model, settings, model.device)
    return models.adopt(model)


def _gate_options(gate: str, options: Mapping[str, object]) -> tuple[str, Any]:
    """Return the member that a gate's name stands for, and its checked options.

    Raises:
        UserError: there is no such gate or option, or a value is not valid.
    """
    member, fixed = plugins.resolve("gates", gate, where="gate: ")
    if gates.load(member).Gate is None:
        raise UserError(f"gate: {gate!r} has no MoE layers; give another one")
    names = option_names("gates", member)
    problems = [f"gate: {unknown('option', name, names)}" for name in options if name not in names]
    problems += [
        f"gate: the name {gate!r} fixes {name} = {value}; use gate={member.replace('_', '-')!r}"
        for name, value in fixed.items()
        if name in options
    ]
    if problems:
        raise UserError(*problems)
    return member, _checked(options_class("gates", member), {**fixed, **options}, "gate.")


def _checked(cls: type, values: Mapping[str, object], where: str) -> Any:
    """Make a value of a class of settings.

    Raises:
        UserError: with a line for every value that is not valid.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        hints = get_type_hints(cls)
        problems = {str(problem["loc"][0]): problem for problem in error.errors(include_url=False)}
        raise UserError(
            *(
                f"{where}{key}: {describe(problem, cls, key, hints, values.get(key))}"
                for key, problem in problems.items()
            )
        ) from error


def load(folder: str | Path, device: str | torch.device = "cpu", backend: str = "auto") -> PreTrainedModel:
    """Load the model of a run, or a saved model of any version, in `eval` mode.

    Args:
        folder: of the run, or of the model in it.
        device: where to.
        backend: what computes the experts; `auto` is `grouped`.

    Raises:
        UserError: there is no such model, or one that is too large for this machine.
    """
    place = Path(folder)
    if (place / "model" / "config.json").is_file():
        place /= "model"
    model = pretrained.load(place, torch.device(device), backend)
    return models.adopt(model) if models.is_converted(model) else model


def flops(model: PreTrainedModel, batch: Mapping[str, Any]) -> Flops:
    """Count operations of a forward pass per real token: as routed, as executed, of the dense model.

    The batch is run once, without gradient and dropout; how it is counted: `repro.moe.flops`.

    Args:
        batch: arguments of the model: ids of every stack, and masks where there is padding.

    Raises:
        UserError: the model is not supported, or ids are missing.
    """
    architecture = architecture_of_model(model)
    masks = _masks(recognise(model)[0], batch)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), record_routing(model) as tape:
            model(**batch)
    finally:
        model.train(was_training)
    return Work.of(tape, masks).flops(architecture)


def _masks(backbone: str, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the mask of real tokens of each stack, (B, S)."""
    stacks = backbones.load(backbone).STACKS
    masks: dict[str, Tensor] = {}
    for stack in stacks:
        prefix = "decoder_" if stack == "decoder" and "encoder" in stacks else ""
        ids = batch.get(f"{prefix}input_ids")
        if ids is None:
            raise UserError(f"batch: no {prefix}input_ids; operations are counted by token")
        mask = batch.get(f"{prefix}attention_mask")
        masks[stack] = torch.ones_like(ids) if mask is None else mask
    return masks
