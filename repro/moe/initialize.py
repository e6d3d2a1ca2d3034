"""Initialize a converted layer: fit routers to the norm before it, experts to the scale of the dense FFN."""

from typing import Any

import torch
from torch import Tensor, nn

from repro.config import ExpertsConfig
from repro.moe.backbones.base import FFNSite
from repro.moe.gates.base import Gate
from repro.moe.gates.shared.softmax import Router
from repro.moe.layer import Experts
from repro.moe.routing import Routing

_SAMPLES = 4096
"""Random tokens on which a fresh gate is measured."""


def fit_routers(gate: Gate[Any], norm: nn.LayerNorm) -> None:
    """Divide the weights of a gate's routers by the root mean square of what the norm puts out.

    A token is x = gain z + bias, z with mean 0 and variance 1: E x^2 = gain^2 + bias^2.
    """
    gain_D, bias_D = _affine(norm)
    rms = float((gain_D.square() + bias_D.square()).mean().sqrt())
    for module in gate.modules():
        if isinstance(module, Router):
            module.fit(rms)


def initialize_experts(
    experts: Experts, site: FFNSite, config: ExpertsConfig, std: float, gate: Gate[Any]
) -> None:
    """Fill the weights: copies of the dense FFN (`upcycle`), or N(0, std^2) with zero biases.

    Raw softmax weights of one or two of 16 experts sum to about 0.3. The second matrix of the
    copies is divided by that, so that a converted layer starts at the scale of the dense one.
    """
    with torch.no_grad():
        if config.init == "upcycle":
            total = mean_weight(gate, site.norm)
            experts.w1.copy_(site.w1_FD.expand_as(experts.w1))
            experts.b1.copy_(site.b1_F.expand_as(experts.b1))
            experts.w2.copy_((site.w2_DF / total).expand_as(experts.w2))
            experts.b2.copy_((site.b2_D / total).expand_as(experts.b2))
        else:
            experts.w1.normal_(std=std)
            experts.w2.normal_(std=std)
            experts.b1.zero_()
            experts.b2.zero_()


def mean_weight(gate: Gate[Any], norm: nn.LayerNorm) -> float:
    """Return the sum of a token's combine weights under a fresh gate, mean over `sample_routing`."""
    routing = sample_routing(gate, norm)
    return float(routing.weight_A.sum() / routing.mask_T.numel())


def sample_routing(gate: Gate[Any], norm: nn.LayerNorm) -> Routing:
    """Route random tokens as the norm puts them out: the same every time, without the global generator."""
    gain_D, bias_D = _affine(norm)
    generator = torch.Generator().manual_seed(0)
    x_TD = torch.randn(_SAMPLES, len(gain_D), generator=generator) * gain_D + bias_D
    mask_T = torch.ones(_SAMPLES, dtype=torch.bool)
    with torch.no_grad():
        routing: Routing = gate(x_TD, mask_T, ids_T=torch.arange(_SAMPLES))
    return routing


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return gain and bias, fp32, on the CPU; of a fresh norm where it is on the meta device."""
    if norm.weight.is_meta:
        return torch.ones(norm.weight.shape, device="cpu"), torch.zeros(norm.weight.shape, device="cpu")
    return norm.weight.detach().float().cpu(), norm.bias.detach().float().cpu()
