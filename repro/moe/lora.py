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

from repro.moe.layer import MoELayer

_EXPERTS = ("w1", "w2")


def is_installed() -> bool:
    """Return whether `peft` is there: it is an extra."""
    return importlib.util.find_spec("peft") is not None


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

    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
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
