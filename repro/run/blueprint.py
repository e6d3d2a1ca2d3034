"""The sizes of a run's model, from its configuration alone: converted without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from repro.config import RunConfig
from repro.moe import convert, lora
from repro.moe.backbones.base import load as load_backbone
from repro.moe.flops import Architecture
from repro.moe.folder import configuration
from repro.moe.gates.base import load as load_gate
from repro.moe.initialize import sample_routing
from repro.moe.layer import moe_layers
from repro.results.files import RunPaths
from repro.run.model import configuration_folder, fresh_model, model_options, settings_of, weights_type

_META = torch.device("meta")


class SizeOnly:
    """Stand in for a tokenizer that has not been trained: only its size counts."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A model before it is built, and where its parameters are."""

    architecture: Architecture
    rest: int
    """Parameters outside the experts."""
    experts: int
    """Parameters of the experts of all layers."""
    weights: tuple[int, int]
    """Bytes of what is held while it trains, low-rank additions included: outside experts, and of them."""
    trained: tuple[int, int]
    """Bytes of the part of it that is trained."""
    outside: int
    """Those outside the layers: embeddings and head."""
    largest: tuple[int, int]
    """Parameters of the largest layer: outside its experts, and of them."""

    @property
    def parameters(self) -> int:
        """Return all of them, without additions, which become part of the weights."""
        return self.rest + self.experts


def blueprint(config: RunConfig, options: Mapping[str, Any]) -> Blueprint:
    """Convert a model without weights, and count its parameters.

    Args:
        options: of the Hugging Face configuration class, vocabulary included.

    Raises:
        UserError: the library refuses an option, or settings do not fit the model.
    """
    with _META:
        model = fresh_model(config, options).to(weights_type(config))
    # How experts start is no matter of their sizes.
    unfitted = replace(config, experts=replace(config.experts, init="random", scale="none"))
    architecture = convert.convert(model, settings_of(unfitted), _META)
    for parameter in load_backbone(config.model.backbone).fixed_parameters(model):
        parameter.requires_grad_(False)
    layers = [
        _counted(layer) for module in model.modules() if isinstance(module, nn.ModuleList) for layer in module
    ]
    rest, experts = _counted(model)
    with _META:
        lora.add_to(model, config.training)
    return Blueprint(
        architecture=architecture,
        rest=rest,
        experts=experts,
        weights=_counted(model, lambda parameter: parameter.nbytes),
        trained=_counted(model, lambda parameter: parameter.nbytes * parameter.requires_grad),
        outside=rest - sum(layer_rest for layer_rest, _ in layers),
        largest=max(layers, key=sum),
    )


def planned_options(config: RunConfig, paths: RunPaths | None) -> Mapping[str, Any]:
    """Return the options of a run's model before there is a tokenizer.

    A scale repeats the sizes of its checkpoints; those of others are read from their folders.

    Args:
        paths: None reads nothing.

    Raises:
        UserError: the checkpoint cannot be read, or an option was set that follows from the tokenizer.
    """
    of_checkpoint: Mapping[str, Any] = {}
    if paths is not None and (paths.model or not config.model.config):
        of_checkpoint = checkpoint_options(config, paths)
    return {**of_checkpoint, **model_options(config, SizeOnly(config.model.vocab_size or 0))}


def checkpoint_options(config: RunConfig, paths: RunPaths) -> Mapping[str, Any]:
    """Read the configuration of the checkpoint that a run starts from, if it does.

    Raises:
        UserError: it cannot be read.
    """
    if config.model.checkpoint is None:
        return {}
    folder = configuration_folder(config.model.checkpoint, paths.model)
    options: Mapping[str, Any] = configuration(folder, "--model ").to_dict()
    return options


def mean_experts(config: RunConfig, d_model: int) -> float:
    """Return the experts per token of a fresh gate on layer-normed input; 0 for a dense model."""
    gate_class = load_gate(config.gate).Gate
    if gate_class is None:
        return 0.0
    torch.manual_seed(0)
    gate = gate_class(config.gate_options, d_model, config.experts.count)
    return float(sample_routing(gate, torch.nn.LayerNorm(d_model)).count_T.double().mean())


def _counted(module: nn.Module, size: Callable[[nn.Parameter], int] = nn.Parameter.numel) -> tuple[int, int]:
    """Add up the sizes of the parameters of a module outside experts, and in them."""
    of_experts = {parameter for layer in moe_layers(module) for parameter in layer.experts.parameters()}
    sizes = [(parameter in of_experts, size(parameter)) for parameter in module.parameters()]
    return sum(own for inside, own in sizes if not inside), sum(own for inside, own in sizes if inside)
