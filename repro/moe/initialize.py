"""Initialize a converted layer: fit routers to the norm before it, experts to the scale of the dense FFN."""

from typing import Any

import torch
from torch import Tensor, nn

from repro.config import ExpertsConfig
from repro.errors import UserError
from repro.moe.backbones.base import FFNSite
from repro.moe.experts import loop
from repro.moe.experts.base import FFNWeights
from repro.moe.experts.shared.ffn import activate, activation_name
from repro.moe.gates.base import Gate
from repro.moe.gates.shared.softmax import Router
from repro.moe.layer import Experts
from repro.moe.routing import Routing

_SAMPLES = 4096
"""Random tokens on which a fresh gate is measured."""
_MEASURED = 1024
"""Those of them that go through the experts; a ratio of norms is within a few per cent."""


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

    With `scale` fitted the second matrices and biases are divided by one number, so that the layer starts
    at the scale of the dense one:

    * Copies: by the mean over tokens of the sum of a token's weights (`mean_weight`), 1 where they are
      rescaled. Copies of one FFN add up, so a token with sum w starts at w / mean of the dense output.
    * Random experts: by the ratio of the root mean squares of the layer's output and the dense one
      (`output_scale`). Independent experts add up as the root of the sum of squared weights.

    Raises:
        UserError: it is to be fitted, and the fresh gate gives no token an expert.
    """
    fitted = config.scale == "fitted"
    with torch.no_grad():
        if config.init == "upcycle":
            experts.w1.copy_(site.w1_FD.expand_as(experts.w1))
            experts.b1.copy_(site.b1_F.expand_as(experts.b1))
            experts.w2.copy_(site.w2_DF.expand_as(experts.w2))
            experts.b2.copy_(site.b2_D.expand_as(experts.b2))
            scale = mean_weight(gate, site.norm) if fitted else 1.0
        else:
            experts.w1.normal_(std=std)
            experts.w2.normal_(std=std)
            experts.b1.zero_()
            experts.b2.zero_()
            # On the meta device there is no output.
            measurable = fitted and not experts.w2.is_meta
            scale = output_scale(experts, gate, site.norm, ffn_rms(site)) if measurable else 1.0
        if scale == 0:
            raise UserError(
                "experts.scale: cannot be fitted: the fresh gate gives no token an expert, or the FFNs give 0"
            )
        experts.w2.div_(scale)
        experts.b2.div_(scale)


def scale_ffn(site: FFNSite, factor: float) -> None:
    """Multiply the output of a dense FFN: its second matrix and bias, in place."""
    with torch.no_grad():
        site.w2_DF.mul_(factor)
        site.b2_D.mul_(factor)


def output_scale(experts: Experts, gate: Gate[Any], norm: nn.LayerNorm, dense_rms: float) -> float:
    """Return the root mean square of a layer's output on random tokens, over that of the FFN it replaces.

    Experts that are no FFNs are left out.

    Args:
        dense_rms: `ffn_rms` of that FFN; if it is 0, so is the result.
    """
    x_TD = sample_tokens(norm)[:_MEASURED]
    stacked = (experts.w1, experts.b1, experts.w2, experts.b2)
    w1_EFD, b1_EF, w2_EDF, b2_ED = (weight.detach().float().cpu() for weight in stacked)
    with torch.no_grad():
        y_TD = loop.forward(
            x_TD, _route(gate, x_TD), FFNWeights(w1_EFD, b1_EF, w2_EDF, b2_ED, experts.activation)
        )
    return float(y_TD.square().mean().sqrt()) / dense_rms if dense_rms else 0.0


def ffn_rms(site: FFNSite) -> float:
    """Return the root mean square of a dense FFN's output on the tokens of `output_scale`."""
    x_TD = sample_tokens(site.norm)[:_MEASURED]
    dense = (site.w1_FD, site.b1_F, site.w2_DF, site.b2_D)
    w1_FD, b1_F, w2_DF, b2_D = (weight.detach().float().cpu() for weight in dense)
    hidden_TF = activate(x_TD @ w1_FD.t() + b1_F, activation_name(site.activation))
    return float((hidden_TF @ w2_DF.t() + b2_D).square().mean().sqrt())


def mean_weight(gate: Gate[Any], norm: nn.LayerNorm) -> float:
    """Return the sum of a token's combine weights under a fresh gate, mean over `sample_tokens`."""
    routing = sample_routing(gate, norm)
    return float(routing.weight_A.sum() / routing.mask_T.numel())


def sample_routing(gate: Gate[Any], norm: nn.LayerNorm) -> Routing:
    """Route `sample_tokens`."""
    return _route(gate, sample_tokens(norm))


def sample_tokens(norm: nn.LayerNorm) -> Tensor:
    """Draw random tokens as the norm puts them out, (T, D): the same every time, by an own generator."""
    gain_D, bias_D = _affine(norm)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_SAMPLES, len(gain_D), generator=generator) * gain_D + bias_D


def _route(gate: Gate[Any], x_TD: Tensor) -> Routing:
    """Route random tokens, each of its own id; of their attention nothing is known: its peaks are uniform."""
    more = {}
    if gate.needs_attention:
        more["attention_T"] = torch.rand(len(x_TD), generator=torch.Generator().manual_seed(0))
    mask_T = torch.ones(len(x_TD), dtype=torch.bool)
    with torch.no_grad():
        routing: Routing = gate(x_TD, mask_T, ids_T=torch.arange(len(x_TD)), **more)
    return routing


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return gain and bias, fp32, on the CPU; of a fresh norm where it is on the meta device."""
    if norm.weight.is_meta:
        return torch.ones(norm.weight.shape, device="cpu"), torch.zeros(norm.weight.shape, device="cpu")
    return norm.weight.detach().float().cpu(), norm.bias.detach().float().cpu()
