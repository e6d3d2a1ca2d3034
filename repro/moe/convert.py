"""Convert a Hugging Face model in place: MoE layers take the places of its feed-forward networks."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import JsonValue, ValidationError

from repro import plugins
from repro.config import ExpertsConfig
from repro.errors import UserError
from repro.moe.backbones import base as backbones
from repro.moe.backbones.base import FFNSite
from repro.moe.experts import base as backends
from repro.moe.flops import Architecture, FFNSize
from repro.moe.folder import CONFIG_KEY
from repro.moe.gates import base as gates
from repro.moe.gates.base import Gate, GateClass
from repro.moe.initialize import ffn_rms, fit_routers, initialize_experts, output_scale, scale_ffn
from repro.moe.layer import Experts, MoELayer
from repro.moe.stack_inputs import StackInputs
from repro.results.base import Record, describe, wrong_version

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SCHEMA_VERSION: Literal[1] = 1
"""Version of what is saved under `CONFIG_KEY`; models of before it have none."""


@dataclass(frozen=True, kw_only=True)
class MoESettings:
    """Everything that a converted model needs besides the Hugging Face configuration."""

    backbone: str
    head: str
    gate: str
    gate_options: Any
    """The `Config` of the gate's own module."""
    experts: ExpertsConfig


class SavedExperts(Record):
    """The experts of a saved model; how they are computed and were initialized is no property of it."""

    count: int
    activation: Literal["model", "relu"]
    every: int


class SavedSettings(Record):
    """The part of the settings that is saved with a model, under `CONFIG_KEY` in its `config.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    backbone: str
    head: str
    gate: str
    gate_options: dict[str, JsonValue]
    experts: SavedExperts

    @classmethod
    def of(cls, settings: MoESettings) -> SavedSettings:
        """Take from the settings what is saved."""
        experts = settings.experts
        return cls(
            schema_version=SCHEMA_VERSION,
            backbone=settings.backbone,
            head=settings.head,
            gate=settings.gate,
            gate_options=asdict(settings.gate_options),
            experts=SavedExperts(count=experts.count, activation=experts.activation, every=experts.every),
        )

    @classmethod
    def load(cls, plain: object, folder: Path) -> SavedSettings:
        """Check what stands in the configuration of a saved model.

        Raises:
            UserError: it is not of this shape.
        """
        version = plain.get("schema_version", SCHEMA_VERSION) if isinstance(plain, dict) else SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            raise UserError(wrong_version(_unreadable(folder), "schema version", version, SCHEMA_VERSION))
        return cls.parse(json.dumps(plain), _unreadable(folder))

    def settings(self, backend: str, folder: Path) -> MoESettings:
        """Return the settings of the model in a folder, its experts computed by a back-end.

        Raises:
            UserError: there is no such gate, or an option or a size is not valid.
        """
        try:
            return MoESettings(
                backbone=self.backbone,
                head=self.head,
                gate=self.gate,
                gate_options=gates.load(self.gate).Config(**self.gate_options),
                experts=ExpertsConfig(backend=backend, **self.experts.model_dump()),
            )
        except ValidationError as error:
            raise UserError(f"{_unreadable(folder)}: {describe(error)}") from error
        except UserError as error:  # no such gate
            raise UserError(f"{_unreadable(folder)}: {error}") from error


def _unreadable(folder: Path) -> str:
    return f"{folder}: not a saved model ({CONFIG_KEY} in config.json)"


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
    """Replace the model's FFNs by MoE layers, in place.

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
        sites: the feed-forward networks of the dense model.
        gate_of: the gates of the MoE layers that took the places of some of them.
        experts: of every MoE layer.
    """
    return Architecture(
        backbone=backbones.load(backbone),
        config=config,
        head=head,
        ffns=tuple(
            FFNSize(
                stack=site.stack,
                d_model=site.w1_FD.shape[1],
                d_hidden=site.w1_FD.shape[0],
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
        None if one of them gives 0.

    Raises:
        UserError: the settings do not fit the model.
    """
    sites = list(backbones.load(settings.backbone).ffn_sites(model))
    before = [ffn_rms(site) for site in sites]
    architecture = convert(model, settings, device)
    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
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
    """Return every n-th site.

    Raises:
        UserError: there is none, or the gate cannot stand there.
    """
    every = settings.experts.every
    chosen = sites[every - 1 :: every]
    if not chosen:
        raise UserError(f"experts.every: {every} leaves no layer to convert; the model has {len(sites)}")
    reason = gate_class.encoders_only
    if reason and any(site.stack == "decoder" for site in chosen):
        spelled = plugins.resolve("gates", settings.gate)[0].replace("_", "-")
        raise UserError(f"--gate {spelled}: cannot stand in a decoder: {reason}")
    return chosen


def _replace_ffns(
    model: PreTrainedModel,
    settings: MoESettings,
    sites: list[FFNSite],
    gate_class: GateClass,
    device: torch.device,
) -> dict[FFNSite, MoELayer]:
    """Put an MoE layer in the place of each of these networks."""
    backbone = backbones.load(settings.backbone)
    backend = backends.load(choose_backend(settings.experts.backend, device))
    inputs = {name: StackInputs(stack, backbone.TIME_MAJOR) for name, stack in backbone.stacks(model).items()}
    std = getattr(model.config, backbone.INIT_STD)
    layers = {}
    for index, site in enumerate(sites):
        try:
            gate = gate_class(settings.gate_options, site.w1_FD.shape[1], settings.experts.count)
        except ValueError as error:
            raise UserError(str(error)) from error
        fit_routers(gate, site.norm)
        experts = Experts(site, settings.experts, backend)
        initialize_experts(experts, site, settings.experts, std, gate)
        layer = MoELayer(index, gate, experts, inputs[site.stack], backbone.TIME_MAJOR)
        site.replace(layer.to(site.w1_FD.device).train(model.training))
        layers[site] = layer
    return layers
