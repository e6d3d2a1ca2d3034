"""The MoE layer, and the conversion of a Hugging Face model to it."""

from dataclasses import asdict, dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from repro import plugins
from repro._calls import StackCall
from repro.backbones._sites import FFNSite
from repro.config import ExpertsConfig
from repro.cost import Architecture, FFNSize
from repro.errors import UserError
from repro.experts._ffn import FFNWeights, activation_name, compute_dtype
from repro.gates._softmax import Router
from repro.routing import LayerRouting, Routing, RoutingLayer

ROUTER, EXPERTS = "repro: router", "repro: experts"
"""Names of the two parts of a layer in a profile."""
CONFIG_KEY = "repro_moe"
"""Where the settings stand in a converted model's `config.json`."""


@dataclass(frozen=True, kw_only=True)
class MoESettings:
    """Everything that a converted model needs besides the Hugging Face configuration."""

    backbone: str
    head: str
    gate: str
    gate_options: Any
    experts: ExpertsConfig


class Experts(nn.Module):
    """The experts of one layer, their weights stacked; computed by a back-end."""

    w1: nn.Parameter
    b1: nn.Parameter
    w2: nn.Parameter
    b2: nn.Parameter

    def __init__(self, site: FFNSite, config: ExpertsConfig, backend: ModuleType) -> None:
        super().__init__()
        named = "relu" if config.activation == "relu" else site.activation
        self.activation = activation_name(named)
        self.backend = backend
        self.w1, self.b1, self.w2, self.b2 = (
            nn.Parameter(dense.detach().new_empty(config.count, *dense.shape))
            for dense in (site.w1_FD, site.b1_F, site.w2_DF, site.b2_D)
        )

    def reset(self, site: FFNSite, config: ExpertsConfig, std: float, gate: nn.Module) -> None:
        """Fill the weights: copies of the dense FFN (`upcycle`), or N(0, std^2) with zero biases.

        Raw softmax weights of one or two of 16 experts sum to about 0.3. The second matrix of the
        copies is divided by that, so that a converted layer starts at the scale of the dense one.
        """
        with torch.no_grad():
            if config.init == "upcycle":
                total = _mean_weight(gate, site.norm)
                self.w1.copy_(site.w1_FD.expand_as(self.w1))
                self.b1.copy_(site.b1_F.expand_as(self.b1))
                self.w2.copy_((site.w2_DF / total).expand_as(self.w2))
                self.b2.copy_((site.b2_D / total).expand_as(self.b2))
            else:
                self.w1.normal_(std=std)
                self.w2.normal_(std=std)
                self.b1.zero_()
                self.b2.zero_()

    def weights(self) -> FFNWeights:
        """The stacked weights, as back-ends take them."""
        return FFNWeights(self.w1, self.b1, self.w2, self.b2, self.activation)


def sample_routing(gate: nn.Module, norm: nn.LayerNorm) -> Routing:
    """What a fresh gate does with tokens from a norm: the same 4096 random ones every time."""
    gain_D, bias_D = _affine(norm)
    x_TD = torch.randn(4096, len(gain_D), generator=torch.Generator().manual_seed(0)) * gain_D + bias_D
    ids = {"ids_T": torch.arange(len(x_TD))} if _takes_ids(gate) else {}
    with torch.no_grad():
        routing: Routing = gate(x_TD, torch.ones(len(x_TD), dtype=torch.bool), **ids)
    return routing


def _takes_ids(gate: nn.Module) -> bool:
    return bool(getattr(gate, "TOKEN_IDS", False))


def _mean_weight(gate: nn.Module, norm: nn.LayerNorm) -> float:
    """Sum of a token's combine weights under a fresh gate, mean over tokens from a norm."""
    routing = sample_routing(gate, norm)
    return float(routing.weight_A.sum() / routing.mask_T.numel())


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Gain and bias, fp32, on the CPU; those of a fresh norm if it is on the meta device."""
    if norm.weight.is_meta:
        return torch.ones(norm.weight.shape, device="cpu"), torch.zeros(norm.weight.shape, device="cpu")
    return norm.weight.detach().float().cpu(), norm.bias.detach().float().cpu()


def _fit_routers(gate: nn.Module, norm: nn.LayerNorm) -> None:
    """Fit routers to tokens x = gain z + bias, z with mean 0 and variance 1: E x^2 = gain^2 + bias^2."""
    gain_D, bias_D = _affine(norm)
    rms = float((gain_D.square() + bias_D.square()).mean().sqrt())
    for module in gate.modules():
        if isinstance(module, Router):
            module.fit(rms)


class MoELayer(RoutingLayer):
    """Gate, experts and their weighted sum, in the place of one FFN (paper eq. 1-3).

    Input and output have the same shape, two leading axes and D. Padding gives zeros.
    """

    def __init__(
        self, layer: int, gate: nn.Module, experts: Experts, call: StackCall, time_major: bool
    ) -> None:
        super().__init__()
        self.layer = layer
        self.gate = gate
        self.experts = experts
        self._call = call
        self._time_major = time_major

    def forward(self, hidden: Tensor) -> Tensor:
        """Route, compute and combine; the routing goes to the tape, if one is recording."""
        shape = (hidden.shape[0], hidden.shape[1])
        x_TD = hidden.reshape(-1, hidden.shape[-1])
        with record_function(ROUTER):
            mask_T = self._call.mask_T(shape, hidden.device)
            ids = {"ids_T": self._call.ids_T(shape)} if _takes_ids(self.gate) else {}
            routing = self.gate(x_TD, mask_T, best_only=self.best_only, **ids)
        with record_function(EXPERTS):
            y_TD: Tensor = self.experts.backend.forward(x_TD, routing, self.experts.weights())
            if routing.extra_TD is not None:
                y_TD = y_TD + routing.extra_TD
        if self.tape is not None:
            rows_computed = partial(
                self.experts.backend.rows_computed, device=x_TD.device, dtype=compute_dtype(x_TD)
            )
            update = getattr(self.gate, "update_state", None)
            self.tape.entries.append(
                LayerRouting(self.layer, routing, shape, self._time_major, rows_computed, update)
            )
        return y_TD.view(hidden.shape)


def choose_backend(name: str, device: torch.device) -> str:
    """The experts back-end to use: `auto` is `grouped`.

    Raises:
        UserError: there is no such back-end, or it cannot run on this device.
    """
    if name == "auto":
        return "grouped"
    member, _ = plugins.resolve("experts", name, where="experts.backend: ")
    reason = plugins.load("experts", member).available(device)
    if reason:
        raise UserError(f"experts.backend: {name!r} cannot run on {device}: {reason}")
    return member


def convert(model: Any, settings: MoESettings, device: torch.device) -> Architecture:
    """Replace the model's FFNs by MoE layers, in place; a dense gate leaves the model untouched.

    Random experts and routers draw from torch's global generator.

    Raises:
        UserError: the settings do not fit the model.
    """
    backbone = plugins.load("backbones", settings.backbone)
    gate_class = plugins.load("gates", settings.gate).Gate
    sites = list(backbone.ffn_sites(model))
    chosen = [] if gate_class is None else sites[settings.experts.every - 1 :: settings.experts.every]
    if gate_class is not None and not chosen:
        raise UserError(
            f"experts.every: {settings.experts.every} leaves no layer to convert; the model has {len(sites)}"
        )
    _refuse_decoders(settings.gate, chosen)
    stacks = backbone.stacks(model) if chosen else {}
    calls = {name: StackCall(stack, backbone.TIME_MAJOR) for name, stack in stacks.items()}
    std = getattr(model.config, backbone.INIT_STD)
    gate_macs: dict[FFNSite, int | None] = {}
    for index, site in enumerate(chosen):
        d_model = site.w1_FD.shape[1]
        backend = plugins.load("experts", choose_backend(settings.experts.backend, device))
        try:
            gate = gate_class(settings.gate_options, d_model, settings.experts.count)
        except ValueError as error:
            raise UserError(str(error)) from error
        _fit_routers(gate, site.norm)
        experts = Experts(site, settings.experts, backend)
        experts.reset(site, settings.experts, std, gate)
        layer = MoELayer(index, gate, experts, calls[site.stack], backbone.TIME_MAJOR)
        gate_macs[site] = getattr(gate, "macs_per_token", None)
        site.replace(layer.to(site.w1_FD.device).train(model.training))
    if chosen:
        setattr(model.config, CONFIG_KEY, _plain(settings))
    return Architecture(
        backbone=backbone,
        config=model.config,
        head=settings.head,
        ffns=tuple(
            FFNSize(
                stack=site.stack,
                d_model=site.w1_FD.shape[1],
                d_hidden=site.w1_FD.shape[0],
                converted=site in gate_macs,
                gate_macs=gate_macs.get(site),
            )
            for site in sites
        ),
        experts=settings.experts.count,
    )


def _refuse_decoders(gate: str, sites: list[FFNSite]) -> None:
    reason = getattr(plugins.load("gates", gate), "ENCODERS_ONLY", None)
    if reason and any(site.stack == "decoder" for site in sites):
        spelled = plugins.resolve("gates", gate)[0].replace("_", "-")
        raise UserError(f"--gate {spelled}: cannot stand in a decoder: {reason}")


def _plain(settings: MoESettings) -> dict[str, Any]:
    plain = asdict(settings)
    # How experts are computed and were initialised is no property of a trained model.
    plain["experts"] = {key: plain["experts"][key] for key in ("count", "activation", "every")}
    return plain
