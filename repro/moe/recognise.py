"""Which family and head a model is, and the sizes that decide what it costs, whoever built it."""

import copy

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from repro import plugins
from repro.errors import UserError, unknown
from repro.moe.backbones import base as backbones
from repro.moe.convert import architecture_of, every_nth
from repro.moe.flops import Architecture
from repro.moe.layer import MoELayer
from repro.moe.models import is_converted, saved_settings


def recognise(model: PreTrainedModel) -> tuple[str, str]:
    """Return backbone and head of a model, dense or converted.

    Raises:
        UserError: it is of no family here, or has another head.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, PreTrainedConfig):
        raise UserError(f"model: expected one of transformers, got {type(model).__name__}")
    if is_converted(model):
        saved = saved_settings(config)
        return saved.backbone, saved.head
    heads = {
        base: (name, head)
        for name in plugins.names("backbones")
        for head, base in backbones.load(name).HEADS.items()
    }
    if type(model) in heads:
        return heads[type(model)]
    families = {backbones.load(name).MODEL_TYPE for name in plugins.names("backbones")}
    way_out = "How a family is added, one file: CONTRIBUTING.md, docs/api.md."
    if config.model_type not in families:
        raise UserError(f"model: {unknown('family', config.model_type, sorted(families))} {way_out}")
    classes = sorted(base.__name__ for base in heads if base.config_class.model_type == config.model_type)
    raise UserError(f"model: {unknown('class', type(model).__name__, classes)} {way_out}")


def architecture_of_model(model: PreTrainedModel) -> Architecture:
    """Return the sizes of a model, dense or converted, that decide what it costs.

    Raises:
        UserError: it is of no family here, or has another head.
    """
    backbone, head = recognise(model)
    every, experts = 1, 1
    if is_converted(model):
        saved = saved_settings(model.config)
        every, experts = saved.experts.every, saved.experts.count
    module = backbones.load(backbone)
    with torch.device("meta"):  # converted networks are no sites any more
        sites = list(module.ffn_sites(module.HEADS[head](copy.deepcopy(model.config))))
    layers = [layer for layer in model.modules() if isinstance(layer, MoELayer)]
    layers.sort(key=lambda layer: layer.layer)
    chosen = every_nth(sites, every) if layers else []
    gate_of = {site: layer.gate for site, layer in zip(chosen, layers, strict=True)}
    return architecture_of(backbone, head, model.config, sites, gate_of, experts)
