"""Convert a Hugging Face model in place: MoE layers take the places of its FFNs, or of its MoE blocks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from repro import plugins
from repro.config import ExpertsConfig
from repro.errors import UserError
from repro.moe.attention import AttentionPeaks, watch
from repro.moe.backbones import base as backbones
from repro.moe.backbones.base import FFNSite
from repro.moe.experts import base as backends
from repro.moe.flops import Architecture, FFNSize
from repro.moe.folder import CONFIG_KEY
from repro.moe.gates import base as gates
from repro.moe.gates.base import Gate, GateClass
from repro.moe.initialize import (
    ffn_rms,
    fit_routers,
    initialize_experts,
    output_scale,
    scale_ffn,
    take_router,
)
from repro.moe.layer import Experts, MoELayer, moe_layers
from repro.moe.settings import MoESettings, SavedSettings
from repro.moe.stack_inputs import StackInputs

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def choose_backend(name: str, device: torch.device) -> str:
    """Choose the experts back-end: `auto` is `grouped`.

    Raises:
        UserError: there is no such back-end, or it cannot run on this device.
    """
    if name == "auto":
        return "grouped"
    member, _ = plugins.resolve("experts", name, where="experts.backend: ")
    reason = backends.load(member).available(device)
    if reason:
        raise UserError(f"experts.backend: {name!r} cannot run on {device}: {reason}")
    return member


def convert(model: PreTrainedModel, settings: MoESettings, device: torch.device) -> Architecture:
    """Replace the model's FFNs, or its MoE blocks if it has any, by MoE layers, in place.

    The experts of a block are taken as they are, and the rows of its router become those of the gate's:
    `top-k` with the options of `own_router` leaves the output as it was. Other networks of such a model stay.

    A dense gate leaves the model as it is, but for the scale of its FFNs where one is set.

    Random experts and routers draw from torch's global generator.

    Raises:
        UserError: the settings do not fit the model.
    """
    backbone = backbones.load(settings.backbone)
    sites = list(backbone.ffn_sites(model))
    gate_class = gates.load(settings.gate).Gate
    layers: dict[FFNSite, MoELayer] = {}
    if gate_class is None:
        for site in sites:
            scale_ffn(site, settings.gate_options.ffn_scale)
    else:
        layers = _replace_ffns(model, settings, _chosen(sites, settings, gate_class), gate_class, device)
        setattr(model.config, CONFIG_KEY, SavedSettings.of(settings).to_json())
    return architecture_of(
        settings.backbone,
        settings.head,
        model.config,
        sites,
        {site: layer.gate for site, layer in layers.items()},
        settings.experts.count,
    )


def architecture_of(
    backbone: str,
    head: str,
    config: PreTrainedConfig,
    sites: Sequence[FFNSite],
    gate_of: Mapping[FFNSite, Gate[Any]],
    experts: int,
) -> Architecture:
    """Return the sizes that decide what a model costs.

    Args:
        sites: the feed-forward networks and MoE blocks of the model before it was converted.
        gate_of: the gates of the MoE layers that took the places of some of them.
        experts: of every MoE layer.
    """
    family = backbones.load(backbone)
    own = family.own_router(config)
    return Architecture(
        backbone=family,
        config=config,
        head=head,
        ffns=tuple(
            FFNSize(
                stack=site.stack,
                d_model=site.ffn.d_model,
                d_hidden=site.ffn.d_hidden,
                is_gated=site.ffn.is_gated,
                has_biases=site.ffn.b1 is not None,
                own=None if site.router_ED is None else own,
                gate_macs=gate_of[site].macs_per_token if site in gate_of else None,
            )
            for site in sites
        ),
        experts=experts,
    )


def convert_measured(
    model: PreTrainedModel, settings: MoESettings, device: torch.device
) -> tuple[Architecture, float | None]:
    """Convert a model, and measure at which scale its layers start.

    Returns:
        Its architecture; root mean square of a fresh layer's output over that of the FFN it replaces
        (`initialize.output_scale`), mean over layers. Of a dense model that of its FFNs, after over before.
        None if one of them gives 0, or where pretrained experts stay as they are.

    Raises:
        UserError: the settings do not fit the model.
    """
    sites = list(backbones.load(settings.backbone).ffn_sites(model))
    if any(site.router_ED is not None for site in sites):
        return convert(model, settings, device), None
    before = [ffn_rms(site) for site in sites]
    architecture = convert(model, settings, device)
    layers = moe_layers(model)
    if 0 in before:
        return architecture, None
    if not layers:
        scales = [ffn_rms(site) / rms for site, rms in zip(sites, before, strict=True)]
    else:
        places = slice(settings.experts.every - 1, None, settings.experts.every)
        scales = [
            output_scale(layer.experts, layer.gate, site.norm, rms)
            for layer, site, rms in zip(layers, sites[places], before[places], strict=True)
        ]
    return architecture, statistics.fmean(scales)


def _chosen(sites: list[FFNSite], settings: MoESettings, gate_class: GateClass) -> list[FFNSite]:
    """Return the sites to convert (`every_nth`).

    Raises:
        UserError: there is none, the gate cannot stand there, or settings do not fit MoE blocks.
    """
    every = settings.experts.every
    chosen = every_nth(sites, every)
    if not chosen:
        places = len(every_nth(sites, 1))
        raise UserError(f"experts.every: {every} leaves no layer to convert; the model has {places}")
    reason = gate_class.encoders_only
    if reason and any(site.stack == "decoder" for site in chosen):
        spelled = plugins.resolve("gates", settings.gate)[0].replace("_", "-")
        raise UserError(f"--gate {spelled}: cannot stand in a decoder: {reason}")
    if chosen[0].router_ED is not None:
        _check_experts(settings.experts, len(chosen[0].ffn.w1))
    return chosen


def every_nth(sites: Sequence[FFNSite], every: int) -> list[FFNSite]:
    """Return the sites that MoE layers take: every n-th one, or every n-th MoE block if there are any."""
    blocks = [site for site in sites if site.router_ED is not None]
    return list(blocks or sites)[every - 1 :: every]


def _check_experts(config: ExpertsConfig, count: int) -> None:
    """Refuse settings of experts that MoE blocks bring.

    Raises:
        UserError: with every setting that has no effect, or does not fit.
    """
    problems = [
        f"experts.{key}: {value!r} has no effect: the model's MoE blocks bring their experts"
        for key, value, is_set in (
            ("init", config.init, config.init != "random"),
            ("scale", config.scale, config.scale != "none"),
        )
        if is_set
    ]
    if config.count != count:
        problems.append(
            f"experts.count: {config.count} are not the {count} experts of the model's MoE blocks;"
            f" set experts.count={count}"
        )
    if problems:
        raise UserError(*problems)


def _replace_ffns(
    model: PreTrainedModel,
    settings: MoESettings,
    sites: list[FFNSite],
    gate_class: GateClass,
    device: torch.device,
) -> dict[FFNSite, MoELayer]:
    """Put an MoE layer in the place of each of these networks or blocks."""
    backbone = backbones.load(settings.backbone)
    backend = backends.load(choose_backend(settings.experts.backend, device))
    inputs = {name: StackInputs(stack, backbone.TIME_MAJOR) for name, stack in backbone.stacks(model).items()}
    std = getattr(model.config, backbone.INIT_STD)
    layers = {}
    for index, site in enumerate(sites):
        try:
            gate = gate_class(settings.gate_options, site.ffn.d_model, settings.experts.count)
        except ValueError as error:
            raise UserError(str(error)) from error
        fit_routers(gate, site.norm)
        experts = Experts(site, settings.experts, backend)
        if site.router_ED is None:
            initialize_experts(experts, site, settings.experts, std, gate)
        else:
            take_router(gate, site.router_ED)
            # Its routers are gone, and with them what such a model balances; gates have losses of their own.
            model.config.output_router_logits = False
        peaks = _watched(model, site, settings) if gate_class.needs_attention else None
        layer = MoELayer(index, gate, experts, inputs[site.stack], backbone.TIME_MAJOR, peaks)
        site.replace(layer.to(site.ffn.w1.device).train(model.training))
        layers[site] = layer
    return layers


def _watched(model: PreTrainedModel, site: FFNSite, settings: MoESettings) -> AttentionPeaks:
    """Watch the attention before a network.

    Raises:
        UserError: its weights cannot be had.
    """
    if site.attention is None:
        spelled = settings.gate.replace("_", "-")
        raise UserError(
            f"--gate {spelled}: cannot stand in {settings.backbone!r} models: they show no attention weights"
        )
    return watch(model, site.attention)
