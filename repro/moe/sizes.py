"""How much memory a model takes, known before it is built."""

import copy
import os
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from repro.errors import UserError
from repro.moe.backbones.base import Backbone

_HEAD = 2**20
"""Parameters that a model may have beside those in its folder: a head that is fresh."""


def refuse_too_large(
    backbone: Backbone,
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    where: str,
    *,
    experts: int = 1,
    every: int = 1,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Refuse a model whose parameters alone do not fit into the memory of this machine.

    Args:
        where: what describes the model, for the message.
        experts: experts in the place of every n-th feed-forward network.
        weights: those that it will get; sizes that are far from theirs would be built for nothing.
        dtype: of its parameters. In fp32 training takes four times as much.

    Raises:
        UserError: it does not fit.
    """
    parameters = count_parameters(backbone, model_class, config, experts=experts, every=every)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if dtype.itemsize * parameters > memory:
        raise UserError(
            f"{where}: {parameters:.2g} parameters take {dtype.itemsize * parameters / 1e9:.3g} GB,"
            f" and this machine has {memory / 1e9:.3g} GB; choose smaller sizes"
        )
    given = parameters if weights is None else sum(tensor.numel() for tensor in weights.values())
    if parameters > 2 * given + _HEAD:
        raise UserError(
            f"{where}: config.json is of {parameters:.2g} parameters, its weights are {given:.2g}"
        )


def count_parameters(
    backbone: Backbone,
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    *,
    experts: int = 1,
    every: int = 1,
) -> int:
    """Count the parameters without those of gates, from models of one and two layers without weights.

    Models with MoE blocks are built whole, since their layers may differ; they bring their experts.
    """
    if backbone.own_router(config) is not None:
        with torch.device("meta"):
            return sum(part.numel() for part in model_class(copy.deepcopy(config)).parameters())

    def built(second: str | None = None) -> PreTrainedModel:
        small = copy.deepcopy(config)
        for entry in backbone.STACKS.values():
            setattr(small, entry, 2 if entry == second else 1)
        with torch.device("meta"):
            return model_class(small)

    one = built()
    total = size = sum(parameter.numel() for parameter in one.parameters())
    for entry in backbone.STACKS.values():
        layer = sum(parameter.numel() for parameter in built(entry).parameters()) - size
        total += (getattr(config, entry) - 1) * layer
    if experts > 1:
        for site in backbone.ffn_sites(one):
            ffn = sum(part.numel() for part in site.ffn.tensors)
            total += (experts - 1) * ffn * (getattr(config, backbone.STACKS[site.stack]) // every)
    return int(total)
