"""Conversion of every backbone and head: identity and weights."""

from typing import Any

import pytest
import torch
from tiny_models import BACKENDS, Tiny, gradient, moe_layers, router_weight

from repro.moe.backbones import base as backbones
from repro.moe.routing import record_routing

ONE_COPY = {"count": 1, "init": "upcycle"}


def sites_of(tiny: Tiny, model: Any) -> list[Any]:
    return list(backbones.load(tiny.backbone).ffn_sites(model))


def shapes_of(tiny: Tiny, width: int) -> list[tuple[int, ...]]:
    """Shapes of the weights of one network; gated ones have no biases."""
    return [(2 * width, 16), (16, width)] if tiny.is_gated else [(width, 16), (width,), (16, width), (16,)]


# --- identity: one expert, weight 1, copied FFN -------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_one_upcycled_expert_is_the_original_model_exactly(tiny: Tiny, masked: bool) -> None:
    # GPT-2's own activation is a chain of Python operations in transformers, one fused function in
    # the experts: they differ in the last bit. ReLU does not round.
    sizes = {"activation_function": "relu"} if tiny.backbone == "gpt2" else {}
    batch = tiny.batch(masked=masked)
    expected = tiny.outputs(tiny.build(**sizes), batch)
    model = tiny.converted("top-1", sizes=sizes, experts=ONE_COPY)
    assert len(moe_layers(model)) == len(tiny.stacks)
    # Llama's gate and up are two products there and one here, which may round otherwise.
    tolerance = 2e-6 if tiny.is_gated else 0.0
    for before, after in zip(expected, tiny.outputs(model, batch), strict=True):
        assert before.std() > 0.1
        torch.testing.assert_close(after, before, rtol=0, atol=tolerance)


def test_gpt2_with_its_own_activation_is_the_same_up_to_rounding(gpt2: Tiny) -> None:
    assert gpt2.build().config.activation_function == "gelu_new"
    batch = gpt2.batch()
    expected = gpt2.outputs(gpt2.build().double(), batch)
    model = gpt2.converted("top-1", experts=ONE_COPY).double()
    torch.testing.assert_close(gpt2.outputs(model, batch), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_identity_holds_for_every_back_end(tiny: Tiny, backend: str) -> None:
    expected = tiny.outputs(tiny.build(), tiny.batch())
    model = tiny.converted("top-1", experts=ONE_COPY | {"backend": backend})
    torch.testing.assert_close(tiny.outputs(model, tiny.batch()), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_identity_of_many_equal_experts_with_renormalised_weights(tiny: Tiny, gate: str) -> None:
    # Copies of one FFN, weights that sum to 1: w1 FFN(x) + w2 FFN(x) = FFN(x), up to rounding.
    expected = tiny.outputs(tiny.build(), tiny.batch())
    model = tiny.converted(gate, experts={"init": "upcycle"}, combine="renormalised")
    torch.testing.assert_close(tiny.outputs(model, tiny.batch()), expected, rtol=0, atol=5e-5)


# --- weights ------------------------------------------------------------------------------------


def test_sites_and_expert_shapes_follow_the_stacks(tiny: Tiny) -> None:
    model = tiny.build()
    widths = [tiny.widths[stack] for stack in tiny.stacks]
    sites = sites_of(tiny, model)
    assert [site.stack for site in sites] == tiny.stacks
    for site, width in zip(sites, widths, strict=True):
        assert [tuple(part.shape) for part in site.ffn.tensors] == shapes_of(tiny, width)
        assert (site.ffn.d_model, site.ffn.d_hidden) == (16, width)
    architecture = tiny.convert(model, "top-2", experts={"count": 3})
    layers = moe_layers(model)
    assert [layer.layer for layer in layers] == list(range(len(widths)))
    for layer, width in zip(layers, widths, strict=True):
        shapes = [tuple(part.shape) for part in layer.experts.weights().tensors]
        assert shapes == [(3, *shape) for shape in shapes_of(tiny, width)]
    ffns = [(ffn.stack, ffn.d_model, ffn.d_hidden, ffn.converted) for ffn in architecture.ffns]
    assert ffns == [(stack, 16, tiny.widths[stack], True) for stack in tiny.stacks]


def test_the_norm_of_a_site_is_what_its_network_reads(tiny: Tiny) -> None:
    model = tiny.build()
    norms = [site.norm for site in sites_of(tiny, model)]
    read, normed = [], []
    for norm in norms:
        norm.register_forward_hook(lambda _, args, output: normed.append(output))
    tiny.convert(model, "top-2")
    for layer in moe_layers(model):
        layer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    tiny.outputs(model, tiny.batch())
    assert len(read) == len(normed) == len(norms)
    for hidden, output in zip(read, normed, strict=True):
        assert torch.equal(hidden, output)


@pytest.mark.parametrize("gate", ["top-2", "adaptive", "adamoe"])
def test_routers_are_fitted_to_the_norm_before_them(tiny: Tiny, gate: str) -> None:
    def routers(gain: float, bias: float) -> list[torch.Tensor]:
        model = tiny.build()
        for site in sites_of(tiny, model):
            has_bias = hasattr(site.norm, "bias")
            torch.nn.init.constant_(site.norm.weight, gain if has_bias else (gain**2 + bias**2) ** 0.5)
            if has_bias:
                torch.nn.init.constant_(site.norm.bias, bias)
        tiny.convert(model, gate)
        return [router_weight(layer) for layer in moe_layers(model)]

    fresh = routers(1.0, 0.0)
    assert [weight.shape[1] for weight in fresh] == [16] * len(tiny.stacks)
    # N(0, 1 / 16): at least 4 * 16 draws a layer, standard error 0.25 / sqrt(128) = 0.022.
    assert all(weight.std().item() == pytest.approx(0.25, abs=0.08) for weight in fresh)
    # 0.3^2 + 0.4^2 = 0.5^2: inputs half as large, weights twice.
    for fitted, weight in zip(routers(0.3, 0.4), fresh, strict=True):
        torch.testing.assert_close(fitted, 2 * weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
def test_upcycled_layers_behind_small_norms_start_at_the_scale_of_the_dense_ones(
    tiny: Tiny, gate: str
) -> None:
    model = tiny.build()
    sites = sites_of(tiny, model)
    for site in sites:
        torch.nn.init.normal_(site.norm.weight, 0.5, 0.1)
    tiny.convert(model, gate, experts={"init": "upcycle", "scale": "fitted", "count": 16})
    for site, layer in zip(sites, moe_layers(model), strict=True):
        x_TD = site.norm(torch.randn(8192, 16, generator=torch.Generator().manual_seed(4))).detach()
        with record_routing(layer) as tape, torch.no_grad():
            layer(x_TD.view(64, 128, 16))
        weights = tape.entries[0].routing.weight_A
        # w2 is divided by the mean total: what is left of it over all tokens is the scale.
        divided = (site.ffn.w2 / layer.experts.w2[0]).median().detach()
        # Tokens of 16 entries with |x|^2 = 16 exactly have slightly flatter probabilities than Gaussian ones.
        assert float(weights.sum() / 8192 / divided) == pytest.approx(1.0, abs=0.05)


def test_upcycled_experts_are_copies(tiny: Tiny) -> None:
    sites = sites_of(tiny, tiny.build())
    model = tiny.converted("top-2", experts={"init": "upcycle"}, combine="renormalised")
    for site, layer in zip(sites, moe_layers(model), strict=True):
        for expert in range(4):
            assert torch.equal(layer.experts.w1[expert], site.ffn.w1)
            for stacked, dense in zip(layer.experts.weights().tensors, site.ffn.tensors, strict=True):
                torch.testing.assert_close(stacked[expert], dense, rtol=1e-6, atol=0)


def test_random_experts_have_the_models_spread_and_zero_biases(tiny: Tiny) -> None:
    std = backbones.load(tiny.backbone).INIT_STD
    model = tiny.converted("top-2", sizes={std: 0.05}, experts={"count": 8, "init": "random"})
    for layer in moe_layers(model):
        for weight in (layer.experts.w1, layer.experts.w2):
            # At least 8 * 16 * 24 = 3072 draws: the standard error of their std is
            # 0.05 / sqrt(2 * 3072) = 0.0006, that of their mean 0.05 / sqrt(3072) = 0.0009.
            assert weight.std().item() == pytest.approx(0.05, abs=0.003)
            assert weight.mean().item() == pytest.approx(0.0, abs=0.0045)
            assert not torch.equal(weight[0], weight[1])
        biases = [part for part in layer.experts.weights().tensors if part.ndim == 2]
        assert len(biases) == (0 if tiny.is_gated else 2)
        assert all(torch.count_nonzero(bias) == 0 for bias in biases)


def test_nothing_of_the_dense_ffns_is_left(tiny: Tiny) -> None:
    dense = sum(parameter.numel() for parameter in tiny.build().parameters())
    parameters = sum(parameter.numel() for parameter in tiny.converted("top-2").parameters())
    # An FFN of width F has 2 * 16 F + F + 16 parameters, a gated one 3 * 16 F; three more, and a router of
    # 4 x 16.
    sizes = [48 * tiny.widths[one] if tiny.is_gated else 33 * tiny.widths[one] + 16 for one in tiny.stacks]
    extra = [3 * size + 64 for size in sizes]
    assert parameters == dense + sum(extra)


def test_every_parameter_of_a_converted_model_is_trained(tiny: Tiny) -> None:
    model = tiny.converted("top-2").train()
    with record_routing(model) as tape:
        outputs = model(**tiny.batch())
    logits = [value for name, value in outputs.items() if name.endswith("logits")]
    (sum(value.square().mean() for value in logits) + tape.loss()).backward()
    trained = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    assert [name for name, one in trained if one.grad is None] == []
    for layer in moe_layers(model):
        for part in (router_weight(layer), *layer.experts.weights().tensors):
            assert gradient(part).abs().max() > 0
