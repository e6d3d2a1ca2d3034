"""How a converted layer starts: copies at the scale of the dense FFN, random experts, fitted routers."""

from typing import Any

import pytest
import torch
from command_line import TrainedRuns
from tiny_bert import CPU, build, converted, dense_ffn, mean_total, outputs_of, settings, token_ids
from tiny_models import moe_layers, parts_of, router_weight

from repro.errors import UserError
from repro.moe.backbones import bert
from repro.moe.convert import convert, convert_measured
from repro.moe.gates import top_k
from repro.moe.initialize import mean_weight
from repro.moe.routing import record_routing

FITTED_COPIES = {"init": "upcycle", "scale": "fitted"}


def test_the_mean_weight_of_two_experts_by_hand() -> None:
    # Router (1, 0), (-1, 0) in two dimensions: the logits are x and -x, so p1 = 1 / (1 + exp(-2 |x|)).
    # With x from N(0, 1) its mean is 0.5 + the mean of tanh(|x|) / 2 = 0.5 + 0.5560 / 2 = 0.7780.
    gate = top_k.Gate(top_k.Config(k=1), 2, 2)
    with torch.no_grad():
        gate.router.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    grid = torch.linspace(-8, 8, 16_001, dtype=torch.float64)
    density = torch.exp(-grid.square() / 2) / (2 * torch.pi) ** 0.5
    expected = 0.5 + 0.5 * float((grid.abs().tanh() * density).sum() * 0.001)
    assert expected == pytest.approx(0.7780, abs=1e-4)
    # 4096 draws of a spread of 0.15: standard error 0.0023.
    assert mean_weight(gate, torch.nn.LayerNorm(2)) == pytest.approx(expected, abs=0.01)
    # Both experts: p1 + p2 = 1.
    gate.config = top_k.Config(k=2)
    assert mean_weight(gate, torch.nn.LayerNorm(2)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
def test_upcycle_copies_the_ffn_and_divides_its_second_half(gate: str) -> None:
    sites = list(bert.ffn_sites(build()))
    model = converted(gate, experts=FITTED_COPIES)
    for site, layer in zip(sites, moe_layers(model), strict=True):
        total = mean_total(layer, site.norm, gate)
        assert 0.25 < total < 1  # four experts: p1 is at least a quarter
        for expert in range(4):
            (w1, b1, w2, b2), dense = parts_of(layer.experts.weights()), parts_of(site.ffn)
            assert torch.equal(w1[expert], dense[0])
            assert torch.equal(b1[expert], dense[1])
            torch.testing.assert_close(w2[expert], dense[2] / total, rtol=1e-5, atol=0)
            torch.testing.assert_close(b2[expert], dense[3] / total, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
@pytest.mark.parametrize("count", [4, 16])
def test_an_upcycled_layer_starts_at_the_scale_of_the_dense_one(gate: str, count: int) -> None:
    model = build()
    sites = list(bert.ffn_sites(model))
    for site in sites:
        # Fresh norms; others in `backbones/test_conversion.py`.
        torch.nn.init.zeros_(site.norm.get_parameter("bias"))
    torch.manual_seed(1)
    convert(model, settings(gate, experts=FITTED_COPIES | {"count": count}), CPU)
    x_TD = torch.randn(8192, 16, generator=torch.Generator().manual_seed(4))
    hidden = torch.nn.functional.layer_norm(x_TD, (16,)).view(64, 128, 16)
    for site, layer in zip(sites, moe_layers(model), strict=True):
        with record_routing(layer) as tape, torch.no_grad():
            output = layer(hidden)
        dense = dense_ffn(site, hidden)
        # All experts are equal, so a token's output is dense times (its sum of weights / total).
        scale = float((output * dense).sum() / dense.square().sum())
        assert scale == pytest.approx(1.0, abs=0.06)
        torch.testing.assert_close(output.mean((0, 1)), dense.mean((0, 1)), rtol=0, atol=0.05)
        # Without the division it would be far smaller: 16 raw probabilities are about 0.2 each.
        weights = tape.entries[0].routing.weight_A
        assert float(weights.sum() / 8192) < 0.9


@pytest.mark.parametrize(
    ("gate", "options", "experts"),
    [
        ("top-1", {}, {"count": 1}),
        ("top-1", {"combine": "renormalised"}, {}),
        ("top-2", {"combine": "renormalised"}, {}),
        ("adaptive", {"combine": "renormalised"}, {}),
        ("top-1", {"combine": "straight-through"}, {}),
        ("top-2", {"combine": "straight-through"}, {}),
    ],
)
def test_weights_that_sum_to_one_leave_the_copies_as_they_are(
    gate: str, options: dict[str, Any], experts: dict[str, Any]
) -> None:
    sites = list(bert.ffn_sites(build()))
    model = converted(gate, experts=FITTED_COPIES | experts, **options)
    for site, layer in zip(sites, moe_layers(model), strict=True):
        total = mean_weight(layer.gate, site.norm)
        # One expert of one has weight 1 exactly; p1 / s + p2 / s may round.
        assert total == 1.0 if gate == "top-1" else total == pytest.approx(1.0, abs=1e-6)
        (w1, _, w2, b2), dense = parts_of(layer.experts.weights()), parts_of(site.ffn)
        for expert in range(len(w1)):
            assert torch.equal(w1[expert], dense[0])
            for copy, original in ((w2[expert], dense[2]), (b2[expert], dense[3])):
                if gate == "top-1":
                    assert torch.equal(copy, original)
                else:
                    torch.testing.assert_close(copy, original, rtol=1e-6, atol=0)


def test_measuring_the_weights_draws_nothing_from_the_global_generator() -> None:
    gate = top_k.Gate(top_k.Config(), 16, 4)
    state = torch.random.get_rng_state()
    norm = torch.nn.LayerNorm(16)
    assert mean_weight(gate, norm) == mean_weight(gate, norm)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_experts_have_the_models_spread_and_zero_biases() -> None:
    model = build(hidden_size=32, intermediate_size=64, initializer_range=0.05)
    torch.manual_seed(1)
    convert(model, settings("top-2", experts={"count": 8, "init": "random"}), CPU)
    for layer in moe_layers(model):
        for weight in (layer.experts.w1, layer.experts.w2):
            # 8 * 32 * 64 = 16384 draws: the standard error of their std is 0.05 / sqrt(2 * 16384) = 0.0003,
            # that of their mean 0.05 / 128 = 0.0004.
            assert weight.std().item() == pytest.approx(0.05, abs=0.0015)
            assert weight.mean().item() == pytest.approx(0.0, abs=0.002)
            assert not torch.equal(weight[0], weight[1])
        _, b1, _, b2 = parts_of(layer.experts.weights())
        assert torch.count_nonzero(b1) == 0
        assert torch.count_nonzero(b2) == 0


def wide(**options: Any) -> Any:
    """A BERT wide enough for the law of large numbers, with fresh norms and no biases."""
    model = build(hidden_size=64, intermediate_size=256, initializer_range=0.1, **options)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    return model


def norm_ratio(gate: str, scale: str, std: float = 0.1, **options: Any) -> list[float]:
    """Norm of a layer's output over that of the dense one's, for each layer, on tokens of no other use.

    `std` is the spread of the dense FFN, that of the experts is 0.1.
    """
    model = wide()
    sites = list(bert.ffn_sites(model))
    for site in sites:
        torch.nn.init.normal_(site.ffn.w2, std=std)
    torch.manual_seed(1)
    convert(model, settings(gate, experts={"count": 16, "scale": scale}, **options), CPU)
    hidden = torch.randn(8, 256, 64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        pairs = [
            (layer(hidden), dense_ffn(site, hidden))
            for site, layer in zip(sites, moe_layers(model), strict=True)
        ]
    return [float(output.norm() / dense.norm()) for output, dense in pairs]


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive", "top-p", "zero-compute"])
@pytest.mark.parametrize("std", [0.1, 0.02])
def test_fitted_random_experts_start_at_the_scale_of_the_dense_layer(gate: str, std: float) -> None:
    """Whatever the spread of the dense weights, as of a checkpoint or of GPT-2's second matrices."""
    options = {"copies": 0, "constants": 0} if gate == "zero-compute" else {}
    assert norm_ratio(gate, "fitted", std, **options) == pytest.approx([1.0, 1.0], abs=0.05)


@pytest.mark.parametrize(
    ("gate", "options", "ratio"),
    [
        # Over 16 logits of spread 1, E p1^2 = 0.263^2, E (p1^2 + p2^2) = 0.304^2; adaptive in between.
        ("top-1", {}, 0.263),
        ("top-2", {}, 0.304),
        ("adaptive", {}, 0.279),
        # One expert of weight 1 is a dense FFN; two with sum 1 have p1^2 + p2^2 = 0.54 (p1 + p2)^2 or so.
        ("top-1", {"combine": "straight-through"}, 1.0),
        ("top-2", {"combine": "renormalised"}, 0.74),
    ],
)
def test_random_experts_that_are_not_fitted_start_at_that_of_their_weights(
    gate: str, options: dict[str, Any], ratio: float
) -> None:
    assert norm_ratio(gate, "none", **options) == pytest.approx([ratio, ratio], rel=0.06)


def test_fitting_draws_the_same_experts() -> None:
    def layers(scale: str) -> Any:
        model = wide()
        torch.manual_seed(1)
        convert(model, settings("top-1", experts={"scale": scale}), CPU)
        return moe_layers(model), torch.random.get_rng_state()

    (plain, state), (fitted, after) = layers("none"), layers("fitted")
    assert torch.equal(state, after)
    for left, right in zip(plain, fitted, strict=True):
        assert torch.equal(left.experts.w1, right.experts.w1)
        factor = right.experts.w2 / left.experts.w2
        assert factor.min().item() == pytest.approx(factor.max().item(), rel=1e-5)
        assert factor.mean().item() > 1


def test_what_cannot_be_fitted_is_one_line() -> None:
    """No token gets an expert whose cosine with it is above 10."""
    for init in ("random", "upcycle"):
        chosen = settings("top-any", experts={"scale": "fitted", "init": init}, threshold=10.0)
        with pytest.raises(UserError, match=r"experts\.scale: cannot be fitted"):
            convert(wide(), chosen, CPU)


@pytest.mark.parametrize(("scale", "expected"), [("none", 0.304), ("fitted", 1.0)])
def test_the_scale_at_the_start_is_measured(scale: str, expected: float) -> None:
    torch.manual_seed(1)
    _, measured = convert_measured(wide(), settings("top-2", experts={"count": 16, "scale": scale}), CPU)
    assert measured == pytest.approx(expected, rel=0.1)


def test_a_result_says_at_which_scale_its_layers_started(trained: TrainedRuns) -> None:
    """Four experts: raw top-2 weights of 0.42 and 0.27 or so, in a layer of 32 dimensions."""
    assert trained("dense").result["output_scale"] == 1.0
    assert trained("top-2").result["output_scale"] == pytest.approx(0.55, abs=0.1)


def test_every_second_layer_is_measured_against_its_own() -> None:
    model = wide()
    torch.nn.init.normal_(next(iter(bert.ffn_sites(model))).ffn.w2, std=5.0)
    torch.manual_seed(1)
    chosen = settings("top-1", experts={"every": 2}, combine="renormalised")
    assert convert_measured(model, chosen, CPU)[1] == pytest.approx(1.0, rel=0.06)


def test_a_dense_model_starts_at_the_scale_asked_for() -> None:
    model, plain = wide(), wide()
    for layer in (*model.bert.encoder.layer, *plain.bert.encoder.layer):
        torch.nn.init.ones_(layer.output.dense.bias)
    _, measured = convert_measured(model, settings("dense", ffn_scale=0.3), CPU)
    assert measured == pytest.approx(0.3, rel=1e-5)
    changed = {"output.dense.weight", "output.dense.bias"}
    for (name, value), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        is_second = any(name.endswith(f".{layer}.{part}") for layer in (0, 1) for part in changed)
        factor = 0.3 if is_second and "attention" not in name else 1.0
        torch.testing.assert_close(value, factor * other)


@pytest.mark.parametrize("init", ["random", "upcycle"])
def test_conversion_is_fixed_by_the_seed(init: str) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = build()
        torch.manual_seed(seed)
        convert(model, settings("adaptive", experts={"init": init}), CPU)
        return dict(model.state_dict())

    first, again, other = weights(5), weights(5), weights(6)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    routers = [name for name in first if "router" in name]
    assert len(routers) == 2
    assert not any(torch.equal(first[name], other[name]) for name in routers)


def test_router_logits_have_the_spread_asked_for() -> None:
    # On input of unit variance, W ~ N(0, s^2 / D) gives logits of standard deviation s.
    model = build(hidden_size=64, num_attention_heads=2)
    torch.manual_seed(1)
    convert(model, settings("top-2", experts={"count": 64}, logit_std=2.0), CPU)
    weight = router_weight(moe_layers(model)[0])
    # 4096 draws of N(0, (2/8)^2): standard error 0.25 / sqrt(8192) = 0.0028.
    assert weight.std().item() == pytest.approx(0.25, abs=0.014)


def test_relu_experts_compute_relu() -> None:
    model = converted("top-1", experts={"count": 1, "init": "upcycle", "activation": "relu"})
    expected = outputs_of(build(hidden_act="relu"), token_ids())
    torch.testing.assert_close(outputs_of(model, token_ids()), expected, rtol=0, atol=1e-6)
