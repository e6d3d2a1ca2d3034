"""Initialize a converted layer: fit routers to the norm before it, experts to the scale of the dense FFN."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import ExpertsConfig
from repro.errors import UserError
from repro.moe.backbones.base import FFNSite
from repro.moe.experts import loop
from repro.moe.ffn import activation_name
from repro.moe.gates.base import Gate
from repro.moe.gates.shared.softmax import Router
from repro.moe.layer import Experts
from repro.moe.routing import Routing

_SAMPLES = 4096
"""Random tokens on which a fresh gate is measured."""
_MEASURED = 1024
"""Those of them that go through the experts; a ratio of norms is within a few per cent."""


def fit_routers(gate: Gate[Any], norm: nn.Module) -> None:
    """Divide the weights of a gate's routers by the root mean square of what the norm puts out.

    A token is x = gain z + bias, z with variance 1 and mean 0, of RMS norms with mean square 1:
    E x^2 = gain^2 + bias^2.
    """
    gain_D, bias_D = _affine(norm)
    rms = float((gain_D.square() + bias_D.square()).mean().sqrt())
    for module in gate.modules():
        if isinstance(module, Router):
            module.fit(rms)


def take_router(gate: Gate[Any], rows_ED: Tensor) -> None:
    """Give a gate's routers the rows of a trained one; gates without a router stay as they are.

    Args:
        rows_ED: on the meta device there is nothing to take.
    """
    for module in gate.modules():
        if isinstance(module, Router) and not rows_ED.is_meta:
            module.take(rows_ED)


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
    second = [part for part in (experts.w2, experts.b2) if part is not None]
    with torch.no_grad():
        if config.init == "upcycle":
            for stacked, dense in zip(experts.weights().tensors, site.ffn.tensors, strict=True):
                stacked.copy_(dense.expand_as(stacked))
            scale = mean_weight(gate, site.norm) if fitted else 1.0
        else:
            experts.w1.normal_(std=std)
            experts.w2.normal_(std=std)
            for bias in (experts.b1, experts.b2):
                if bias is not None:
                    bias.zero_()
            # On the meta device there is no output.
            measurable = fitted and not experts.w2.is_meta
            scale = output_scale(experts, gate, site.norm, ffn_rms(site)) if measurable else 1.0
        if scale == 0:
            raise UserError(
                "experts.scale: cannot be fitted: the fresh gate gives no token an expert, or the FFNs give 0"
            )
        for part in second:
            part.div_(scale)


def scale_ffn(site: FFNSite, factor: float) -> None:
    """Multiply the output of an FFN, or of all experts: second matrix and bias, in place."""
    with torch.no_grad():
        for part in (site.ffn.w2, site.ffn.b2):
            if part is not None:
                part.mul_(factor)


def output_scale(experts: Experts, gate: Gate[Any], norm: nn.Module, dense_rms: float) -> float:
    """Return the root mean square of a layer's output on random tokens, over that of the FFN it replaces.

    Experts that are no FFNs are left out.

    Args:
        dense_rms: `ffn_rms` of that FFN; if it is 0, so is the result.
    """
    x_TD = sample_tokens(norm)[:_MEASURED]
    with torch.no_grad():
        y_TD = loop.forward(x_TD, _route(gate, x_TD), experts.weights().map(_measurable))
    return float(y_TD.square().mean().sqrt()) / dense_rms if dense_rms else 0.0


def ffn_rms(site: FFNSite) -> float:
    """Return the root mean square of a dense FFN's output on the tokens of `output_scale`."""
    x_TD = sample_tokens(site.norm)[:_MEASURED]
    ffn = replace(site.ffn.map(_measurable), activation=activation_name(site.ffn.activation))
    return float(ffn(x_TD).square().mean().sqrt())


def _measurable(weight: Tensor) -> Tensor:
    return weight.detach().float().cpu()


def mean_weight(gate: Gate[Any], norm: nn.Module) -> float:
    """Return the sum of a token's combine weights under a fresh gate, mean over `sample_tokens`."""
    routing = sample_routing(gate, norm)
    return float(routing.weight_A.sum() / routing.mask_T.numel())


def sample_routing(gate: Gate[Any], norm: nn.Module) -> Routing:
    """Route `sample_tokens`."""
    return _route(gate, sample_tokens(norm))


def sample_tokens(norm: nn.Module) -> Tensor:
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


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return gain and bias, fp32, on the CPU; of a fresh norm where it is on the meta device.

    The bias is 0 where a norm has none.
    """
    weights = dict(norm.named_parameters(recurse=False))
    gain = weights["weight"]
    bias = weights.get("bias", torch.zeros_like(gain))
    if gain.is_meta:
        return torch.ones(gain.shape, device="cpu"), torch.zeros(gain.shape, device="cpu")
    return gain.detach().float().cpu(), bias.detach().float().cpu()
