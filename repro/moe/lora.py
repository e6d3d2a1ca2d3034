"""Low-rank additions: of a large model only small matrices are trained, and the gates as a whole.

"LoRA: Low-Rank Adaptation of Large Language Models" (Hu et al., 2021, https://arxiv.org/abs/2106.09685): a
weight W stays as it is, and alpha / r B A is added to it, of which A (r, in) and B (out, r) are trained. The
library `peft` does it, for the stacked weights of experts, too (its `target_parameters`): each expert has
matrices of its own. B starts as 0, so that the model starts as it was.
"""

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from repro.config import TrainingConfig
from repro.moe.layer import Experts, moe_layers

_EXPERTS = ("w1", "w2")


def is_installed() -> bool:
    """Return whether `peft` is there: it is an extra."""
    return importlib.util.find_spec("peft") is not None


def add_to(model: PreTrainedModel, settings: TrainingConfig) -> None:
    """Add low-rank matrices to a model if the settings of a run say so, in place."""
    rank, alpha = settings.lora_rank, settings.lora_alpha
    if rank is not None:
        add_low_rank(model, rank, 2 * rank if alpha is None else alpha)


def add_low_rank(model: PreTrainedModel, rank: int, alpha: float) -> None:
    """Freeze a model and add low-rank matrices to its products, in place.

    They stand beside all linear layers below the head, and beside the experts' matrices. Trained as they are
    stay the gates, with routers and thresholds, and heads that no pretrained model brings: those of
    classifiers and of question answering. The additions are fp32, whatever the type of the weights.

    Args:
        rank: r.
        alpha: additions are multiplied by alpha / r.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = moe_layers(model)
    gates = {id(module) for layer in layers for module in layer.gate.modules()}
    places = {id(module): name for name, module in model.named_modules()}
    modules = [module for module in model.base_model.modules() if id(module) not in gates]
    stacked = [f"{places[id(layer.experts)]}.{name}" for layer in layers for name in _EXPERTS]
    # The library has layers of GPT-2's kind, too, but not in one model with stacked weights.
    stacked += [f"{places[id(module)]}.weight" for module in modules if isinstance(module, Conv1D)]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=[places[id(module)] for module in modules if isinstance(module, nn.Linear)],
        target_parameters=stacked or None,
    )
    whole = [weight for layer in layers for weight in layer.gate.parameters() if weight.requires_grad]
    whole += _fresh_head(model)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    for parameter in whole:
        parameter.requires_grad_(True)


def count_whole(model: nn.Module) -> int:
    """Count the parameters that a model has without additions."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)


def plain_experts(module: nn.Module) -> Experts:
    """Return the experts of a layer, from within what was added to them."""
    *_, experts = _nested(module)
    assert isinstance(experts, Experts)
    return experts


def keep_share(module: nn.Module, mine: slice) -> None:
    """Keep of the additions to the experts of a layer those of some experts, in place.

    Args:
        module: the experts, with additions or without.
        mine: those that are kept.
    """
    for part in _additions(module):
        for down, up in zip(part.lora_A.children(), part.lora_B.children(), strict=True):
            down_ERI = down.weight.unflatten(0, (part.num_experts, -1))
            up_ORE = up.weight.unflatten(1, (-1, part.num_experts))
            down.weight = nn.Parameter(down_ERI.detach()[mine].flatten(0, 1).clone())
            up.weight = nn.Parameter(up_ORE.detach()[..., mine].flatten(1).clone())
        part.num_experts = mine.stop - mine.start


def experts_last(model: nn.Module) -> dict[nn.Parameter, int]:
    """Find matrices (out, rank x experts) in which neighbouring columns are of different experts.

    Returns:
        Each with its number of experts.
    """
    return {
        up.weight: part.num_experts
        for layer in moe_layers(model)
        for part in _additions(layer.experts)
        for up in part.lora_B.children()
    }


def _additions(module: nn.Module) -> list[Any]:
    return _nested(module)[:-1]


def _nested(module: nn.Module) -> list[Any]:
    """List what stands around the experts of a layer, from without, and the experts."""
    found: list[Any] = [module]
    while not isinstance(found[-1], Experts):
        found.append(found[-1].base_layer)  # of two matrices of an expert one stands around the other
    return found


def _fresh_head(model: PreTrainedModel) -> Iterable[nn.Parameter]:
    """Return the parameters of a head that is no embedding: of a language model they are pretrained."""
    if model.get_output_embeddings() is not None:
        return []
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in body]


def merge_low_rank(model: nn.Module) -> None:
    """Add the low-rank matrices to the weights and take them away, in place: the model is as any other."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    def merged(module: Any) -> nn.Module:
        own: nn.Module = module
        while isinstance(own, BaseTunerLayer):
            own.merge()
            own = own.base_layer  # of two matrices of an expert one stands around the other
        return own

    with torch.no_grad():
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer) and not isinstance(parent, BaseTunerLayer):
                    setattr(parent, name, merged(child))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
