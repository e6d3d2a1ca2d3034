"""The MoE layer in a BERT of two tiny layers: conversion, masks, checkpointing, saving and loading.

What must hold for every backbone is in `backbones/test_conversion.py`.
"""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file

from repro import moe, plugins, saved
from repro.backbones import bert
from repro.config import ExpertsConfig
from repro.cost import Architecture
from repro.errors import UserError
from repro.gates import top_k
from repro.routing import best_expert_only, record_routing

CPU = torch.device("cpu")
HEADS = sorted(bert.HEADS)
BACKENDS = [name for name in plugins.names("experts") if plugins.load("experts", name).available(CPU) is None]
LENGTHS = [7, 4, 2]


def build(head: str = "sequence-classification", **options: Any) -> Any:
    """A BERT with random weights, biases included, large enough that every part shows in the output."""
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    model = bert.HEADS[head](transformers.BertConfig(**sizes | options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def settings(
    gate: str, head: str = "sequence-classification", *, experts: Any = None, **options: Any
) -> moe.MoESettings:
    file, fixed = plugins.resolve("gates", gate)
    return moe.MoESettings(
        backbone="bert",
        head=head,
        gate=file,
        gate_options=plugins.load("gates", file).Config(**fixed, **options),
        experts=ExpertsConfig(**{"count": 4} | (experts or {})),
    )


def converted(
    gate: str, head: str = "sequence-classification", *, experts: Any = None, **options: Any
) -> Any:
    model = build(head)
    torch.manual_seed(1)
    moe.convert(model, settings(gate, head, experts=experts, **options), CPU)
    return model


def token_ids() -> torch.Tensor:
    return torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(2))


def padding_mask() -> torch.Tensor:
    """Three sequences of 7, 4 and 2 tokens."""
    return (torch.arange(7) < torch.tensor(LENGTHS)[:, None]).long()


def outputs_of(model: Any, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
    """The logits: one tensor of the classifier, start and end logits of question answering."""
    with torch.no_grad():
        return list(model(*args, **kwargs).values())


def real(head: str, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The logits that mean something: all of a classifier, those of real tokens elsewhere."""
    return logits[mask.bool()] if head == "question-answering" else logits


def moe_layers(model: Any) -> list[moe.MoELayer]:
    return [module for module in model.modules() if isinstance(module, moe.MoELayer)]


def converted_ffns(architecture: Architecture) -> list[bool]:
    return [ffn.converted for ffn in architecture.ffns]


# --- identity: one expert, weight 1, copied FFN -------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("padded", [False, True])
def test_one_upcycled_expert_is_the_original_model_exactly(head: str, padded: bool) -> None:
    mask = padding_mask() if padded else None
    expected = outputs_of(build(head), token_ids(), attention_mask=mask)
    model = converted("top-1", head, experts={"count": 1, "init": "upcycle"})
    assert len(moe_layers(model)) == 2
    for before, after in zip(expected, outputs_of(model, token_ids(), attention_mask=mask), strict=True):
        shown = padding_mask() if padded else torch.ones(3, 7)
        assert torch.equal(real(head, after, shown), real(head, before, shown))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_identity_holds_for_every_back_end(head: str, backend: str) -> None:
    # The other back-ends add biases in another order than the dense model: equal up to rounding.
    expected = outputs_of(build(head), token_ids(), attention_mask=padding_mask())
    model = converted("top-1", head, experts={"count": 1, "init": "upcycle", "backend": backend})
    found = outputs_of(model, token_ids(), attention_mask=padding_mask())
    for before, after in zip(expected, found, strict=True):
        shown = padding_mask()
        torch.testing.assert_close(real(head, after, shown), real(head, before, shown), rtol=0, atol=1e-6)


def test_identity_of_many_equal_experts_with_renormalised_weights() -> None:
    # Copies of one FFN, weights that sum to 1: w1 FFN(x) + w2 FFN(x) = FFN(x), up to rounding.
    expected = outputs_of(build(), token_ids(), attention_mask=padding_mask())
    model = converted("top-2", experts={"init": "upcycle"}, combine="renormalised")
    found = outputs_of(model, token_ids(), attention_mask=padding_mask())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def dense_ffn(site: Any, hidden: torch.Tensor) -> torch.Tensor:
    """FFN(x) = W2 gelu(W1 x + b1) + b2, the activation of BERT."""
    inner = torch.nn.functional.gelu(hidden @ site.w1_FD.t() + site.b1_F)
    return (inner @ site.w2_DF.t() + site.b2_D).detach()


def test_raw_weights_scale_the_expert_by_its_probability() -> None:
    # Eq. (3): with all experts equal, top-1 gives p1 * E(x), here with E(x) = FFN(x) / total.
    site = next(iter(bert.ffn_sites(build())))
    layer = moe_layers(converted("top-1", experts={"init": "upcycle"}))[0]
    total = mean_total(layer, site.norm, "top-1")
    hidden = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(3))
    with record_routing(layer) as tape, torch.no_grad():
        found = layer(hidden)
    best_T = tape.entries[0].routing.probs_TE.amax(1)
    expected = dense_ffn(site, hidden) * best_T.view(1, 5, 1) / total
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert best_T.max() < 1


# --- weights ------------------------------------------------------------------------------------


def mean_weight(gate: Any, norm: torch.nn.LayerNorm) -> float:
    with torch.no_grad():
        return moe._mean_weight(gate, norm)


def mean_total(layer: moe.MoELayer, norm: Any, gate: str, threshold: float = 0.1) -> float:
    """Mean over 4096 random tokens from a norm of the sum of their raw combine weights, from the formula.

    p1 for top-1, p1 + p2 for top-2; adaptive: p1 + p2 where (p1 - p2) / (p1 + p2) <= T, else p1.
    """
    x_TD = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x_TD = norm.weight * x_TD + norm.bias
        probs_TE = (x_TD @ layer.gate.router.weight.t()).softmax(1)
    p1_T, p2_T = probs_TE.topk(2, dim=1).values.unbind(1)
    close_T = (p1_T - p2_T) / (p1_T + p2_T) <= threshold
    with_second_T = {"top-1": close_T & False, "top-2": close_T | True, "adaptive": close_T}[gate]
    return float((p1_T + torch.where(with_second_T, p2_T, 0.0)).double().mean())


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
    model = converted(gate, experts={"init": "upcycle"})
    for site, layer in zip(sites, moe_layers(model), strict=True):
        total = mean_total(layer, site.norm, gate)
        assert 0.25 < total < 1  # four experts: p1 is at least a quarter
        for expert in range(4):
            assert torch.equal(layer.experts.w1[expert], site.w1_FD)
            assert torch.equal(layer.experts.b1[expert], site.b1_F)
            torch.testing.assert_close(layer.experts.w2[expert], site.w2_DF / total, rtol=1e-5, atol=0)
            torch.testing.assert_close(layer.experts.b2[expert], site.b2_D / total, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
@pytest.mark.parametrize("count", [4, 16])
def test_an_upcycled_layer_starts_at_the_scale_of_the_dense_one(gate: str, count: int) -> None:
    model = build()
    sites = list(bert.ffn_sites(model))
    for site in sites:
        torch.nn.init.zeros_(site.norm.bias)  # fresh norms; others in `backbones/test_conversion.py`
    torch.manual_seed(1)
    moe.convert(model, settings(gate, experts={"init": "upcycle", "count": count}), CPU)
    x_TD = torch.randn(8192, 16, generator=torch.Generator().manual_seed(4))
    hidden = torch.nn.functional.layer_norm(x_TD, (16,)).view(64, 128, 16)
    for site, layer in zip(sites, moe_layers(model), strict=True):
        with record_routing(layer) as tape, torch.no_grad():
            found = layer(hidden)
        dense = dense_ffn(site, hidden)
        # All experts are equal, so a token's output is dense times (its sum of weights / total).
        scale = float((found * dense).sum() / dense.square().sum())
        assert scale == pytest.approx(1.0, abs=0.06)
        torch.testing.assert_close(found.mean((0, 1)), dense.mean((0, 1)), rtol=0, atol=0.05)
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
    ],
)
def test_weights_that_sum_to_one_leave_the_copies_as_they_are(
    gate: str, options: dict[str, Any], experts: dict[str, Any]
) -> None:
    sites = list(bert.ffn_sites(build()))
    model = converted(gate, experts={"init": "upcycle"} | experts, **options)
    for site, layer in zip(sites, moe_layers(model), strict=True):
        total = mean_weight(layer.gate, site.norm)
        # One expert of one has weight 1 exactly; p1 / s + p2 / s may round.
        assert total == 1.0 if gate == "top-1" else total == pytest.approx(1.0, abs=1e-6)
        for expert in range(layer.experts.w1.shape[0]):
            assert torch.equal(layer.experts.w1[expert], site.w1_FD)
            for copy, original in (
                (layer.experts.w2[expert], site.w2_DF),
                (layer.experts.b2[expert], site.b2_D),
            ):
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
    moe.convert(model, settings("top-2", experts={"count": 8, "init": "random"}), CPU)
    for layer in moe_layers(model):
        for weight in (layer.experts.w1, layer.experts.w2):
            # 8 * 32 * 64 = 16384 draws: the standard error of their std is 0.05 / sqrt(2 * 16384) = 0.0003,
            # that of their mean 0.05 / 128 = 0.0004.
            assert weight.std().item() == pytest.approx(0.05, abs=0.0015)
            assert weight.mean().item() == pytest.approx(0.0, abs=0.002)
            assert not torch.equal(weight[0], weight[1])
        assert torch.count_nonzero(layer.experts.b1) == 0
        assert torch.count_nonzero(layer.experts.b2) == 0


@pytest.mark.parametrize("init", ["random", "upcycle"])
def test_conversion_is_fixed_by_the_seed(init: str) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = build()
        torch.manual_seed(seed)
        moe.convert(model, settings("adaptive", experts={"init": init}), CPU)
        return dict(model.state_dict())

    first, again, other = weights(5), weights(5), weights(6)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    routers = [name for name in first if "router" in name]
    assert len(routers) == 2
    assert not any(torch.equal(first[name], other[name]) for name in routers)


def test_router_logits_have_the_wanted_spread() -> None:
    # On input of unit variance, W ~ N(0, s^2 / D) gives logits of standard deviation s.
    model = build(hidden_size=64, num_attention_heads=2)
    torch.manual_seed(1)
    moe.convert(model, settings("top-2", experts={"count": 64}, logit_std=2.0), CPU)
    weight = moe_layers(model)[0].gate.router.weight
    # 4096 draws of N(0, (2/8)^2): standard error 0.25 / sqrt(8192) = 0.0028.
    assert weight.std().item() == pytest.approx(0.25, abs=0.014)


def test_relu_experts_compute_relu() -> None:
    model = converted("top-1", experts={"count": 1, "init": "upcycle", "activation": "relu"})
    expected = outputs_of(build(hidden_act="relu"), token_ids())
    torch.testing.assert_close(outputs_of(model, token_ids()), expected, rtol=0, atol=1e-6)


# --- which layers -------------------------------------------------------------------------------


def test_dense_leaves_the_model_untouched() -> None:
    model = build()
    expected = outputs_of(model, token_ids(), attention_mask=padding_mask())
    modules = [(name, id(module)) for name, module in model.named_modules()]
    config = model.config.to_dict()
    state = torch.random.get_rng_state()
    architecture = moe.convert(model, settings("dense"), CPU)
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert model.config.to_dict() == config
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(outputs_of(model, token_ids(), attention_mask=padding_mask())[0], expected[0])
    assert converted_ffns(architecture) == [False, False]
    assert architecture.moe == ()
    with record_routing(model) as tape:
        outputs_of(model, token_ids())
    assert tape.entries == []


def test_every_second_layer() -> None:
    model = build()
    architecture = moe.convert(model, settings("top-2", experts={"every": 2}), CPU)
    first, second = model.bert.encoder.layer
    assert isinstance(first.intermediate, transformers.models.bert.modeling_bert.BertIntermediate)
    assert isinstance(first.output.dense, torch.nn.Linear)
    assert isinstance(second.intermediate, moe.MoELayer)
    assert isinstance(second.output.dense, torch.nn.Identity)
    assert converted_ffns(architecture) == [False, True]
    with record_routing(model) as tape:
        outputs_of(model, token_ids())
    assert [entry.layer for entry in tape.entries] == [0]


def test_every_too_large_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"^experts\.every: 3 leaves no layer to convert; the model has 2$"):
        moe.convert(build(), settings("top-2", experts={"every": 3}), CPU)


def test_architecture_has_the_sizes_of_the_model() -> None:
    architecture = moe.convert(build(), settings("adaptive"), CPU)
    assert architecture.experts == 4
    assert [(ffn.stack, ffn.d_model, ffn.d_hidden) for ffn in architecture.ffns] == [("encoder", 16, 32)] * 2
    assert architecture.moe == architecture.ffns
    assert architecture.backbone is bert
    assert architecture.head == "sequence-classification"


# --- wrong settings -----------------------------------------------------------------------------


def test_unknown_activation() -> None:
    with pytest.raises(UserError, match=r"unknown activation 'silu'.*Known: .*gelu"):
        moe.convert(build(hidden_act="silu"), settings("top-2"), CPU)


def test_unknown_activation_matters_not_when_experts_use_relu() -> None:
    model = build(hidden_act="silu")
    moe.convert(model, settings("top-2", experts={"activation": "relu"}), CPU)
    assert [layer.experts.activation for layer in moe_layers(model)] == ["relu", "relu"]


def test_unknown_back_end() -> None:
    with pytest.raises(UserError, match=r"^experts\.backend: unknown .*'groupt'\. Did you mean 'grouped'\?"):
        moe.convert(build(), settings("top-2", experts={"backend": "groupt"}), CPU)


def test_back_end_that_cannot_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.load("experts", "loop"), "available", lambda device: "it is too slow")
    with pytest.raises(UserError, match=r"^experts\.backend: 'loop' cannot run on cpu: it is too slow$"):
        moe.choose_backend("loop", CPU)


def test_auto_chooses_a_back_end_that_runs_here() -> None:
    assert moe.choose_backend("auto", CPU) in BACKENDS


@pytest.mark.parametrize(
    ("gate", "count", "message"),
    [
        ("top-3", 2, r"gate\.k = 3 is more than the 2 experts"),
        ("adaptive", 1, r"at least 2 experts"),
    ],
)
def test_gate_that_needs_more_experts(gate: str, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        moe.convert(build(), settings(gate, experts={"count": count}), CPU)


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
@pytest.mark.parametrize("how", ["keyword", "positional"])
def test_a_sequence_gives_the_same_alone_and_in_a_padded_batch(head: str, gate: str, how: str) -> None:
    model = converted(gate, head)
    ids, mask = token_ids(), padding_mask()
    if how == "keyword":
        together = outputs_of(model, input_ids=ids, attention_mask=mask)
    else:
        together = outputs_of(model, ids, mask)
    for row, length in enumerate(LENGTHS):
        alone = outputs_of(model, ids[row : row + 1, :length])
        for batch_logits, logits in zip(together, alone, strict=True):
            width = length if head == "question-answering" else logits.shape[1]
            torch.testing.assert_close(batch_logits[row, :width], logits[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
@pytest.mark.parametrize("how", ["keyword", "positional"])
def test_padding_is_never_routed(gate: str, how: str) -> None:
    model = converted(gate)
    ids, mask = token_ids(), padding_mask()
    with record_routing(model) as tape:
        _ = outputs_of(model, ids, attention_mask=mask) if how == "keyword" else outputs_of(model, ids, mask)
    assert len(tape.entries) == 2
    for entry in tape.entries:
        count_BS, routing = entry.count_BS(), entry.routing
        assert (count_BS[mask == 0] == 0).all()
        assert (count_BS[mask == 1] >= 1).all()
        assert mask.flatten()[routing.token_A].all()
        assert torch.equal(routing.mask_T, mask.flatten().bool())
        assert routing.load_E.sum() == routing.expert_A.numel() == count_BS.sum()
    if gate == "top-2":
        assert all(entry.routing.load_E.sum() == 2 * (7 + 4 + 2) for entry in tape.entries)


def test_what_stands_at_the_padding_changes_nothing() -> None:
    model = converted("adaptive")
    ids, mask = token_ids(), padding_mask()
    other = torch.where(mask.bool(), ids, 49 - ids)
    with record_routing(model) as tape:
        expected = outputs_of(model, ids, attention_mask=mask)
    with record_routing(model) as other_tape:
        found = outputs_of(model, other, attention_mask=mask)
    assert not torch.equal(ids, other)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert float(tape.loss()) == pytest.approx(float(other_tape.loss()), abs=1e-7)
    assert torch.equal(tape.ratios_BL(), other_tape.ratios_BL())


def test_no_mask_means_that_all_tokens_are_real() -> None:
    model = converted("top-2")
    outputs_of(model, token_ids(), attention_mask=padding_mask())  # must not be remembered
    with record_routing(model) as tape:
        found = outputs_of(model, token_ids())
    assert all((entry.count_BS() == 2).all() for entry in tape.entries)
    assert torch.equal(found[0], outputs_of(model, token_ids(), attention_mask=torch.ones(3, 7))[0])


# --- scopes -------------------------------------------------------------------------------------


def test_nothing_is_recorded_outside_the_block() -> None:
    model = converted("top-2")
    with record_routing(model) as tape:
        outputs_of(model, token_ids())
    outputs_of(model, token_ids())
    assert len(tape.entries) == 2
    assert all(layer.tape is None for layer in moe_layers(model))


def test_best_expert_only_inside_its_block() -> None:
    model = converted("top-2")

    def experts_of_tokens() -> set[int]:
        with record_routing(model) as tape:
            outputs_of(model, token_ids())
        return {int(count) for entry in tape.entries for count in entry.count_BS().unique()}

    assert experts_of_tokens() == {2}
    with best_expert_only(model):
        assert experts_of_tokens() == {1}
    assert experts_of_tokens() == {2}
    with best_expert_only(model, enabled=False):
        assert experts_of_tokens() == {2}
    with pytest.raises(RuntimeError, match="stop"), best_expert_only(model):
        raise RuntimeError("stop")
    assert experts_of_tokens() == {2}


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_best_expert_only_is_the_top_1_gate_with_the_same_weights(gate: str) -> None:
    model, switch = converted(gate), converted("top-1")
    switch.load_state_dict(model.state_dict())
    with best_expert_only(model):
        found = outputs_of(model, token_ids(), attention_mask=padding_mask())
    assert torch.equal(found[0], outputs_of(switch, token_ids(), attention_mask=padding_mask())[0])
    assert not torch.equal(found[0], outputs_of(model, token_ids(), attention_mask=padding_mask())[0])


# --- gradient checkpointing ---------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_gradient_checkpointing_changes_neither_loss_nor_counts_nor_gradients(gate: str) -> None:
    def one_pass(checkpointing: bool) -> tuple[Any, Any, dict[str, torch.Tensor], int]:
        model = converted(gate, balance=0.5)
        if checkpointing:
            # Its name from transformers 5.23 on, and before.
            new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
            getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})
        model.train()
        calls = []
        for layer in moe_layers(model):
            layer.register_forward_hook(lambda *_: calls.append(1))
        with record_routing(model) as tape:
            outputs = model(token_ids(), attention_mask=padding_mask(), labels=torch.tensor([0, 1, 1]))
        loss = outputs.loss + tape.loss()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        return loss.detach(), tape, gradients, len(calls)

    loss, tape, gradients, calls = one_pass(False)
    loss_c, tape_c, gradients_c, calls_c = one_pass(True)
    # Checkpointing was on: both layers ran twice. The tape saw the first pass only.
    assert (calls, calls_c) == (2, 4)
    assert len(tape.entries) == len(tape_c.entries) == 2
    for entry, entry_c in zip(tape.entries, tape_c.entries, strict=True):
        assert torch.equal(entry.routing.load_E, entry_c.routing.load_E)
        assert torch.equal(entry.routing.count_T, entry_c.routing.count_T)
    assert torch.equal(loss, loss_c)
    assert gradients.keys() == gradients_c.keys()
    for name, gradient in gradients.items():
        assert gradient is not None
        assert torch.equal(gradient, gradients_c[name]), name
    assert gradients["bert.encoder.layer.0.intermediate.gate.router.weight"].abs().max() > 0


# --- save and load ------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gate", ["top-2", "adaptive", "dense"])
def test_a_loaded_model_gives_the_same_output_exactly(tmp_path: Path, gate: str, head: str) -> None:
    model = converted(gate, head)
    saved.save(model, tmp_path)
    loaded = saved.load(tmp_path, CPU)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert len(moe_layers(loaded)) == len(moe_layers(model))
    expected = outputs_of(model, token_ids(), attention_mask=padding_mask())
    found = outputs_of(loaded, token_ids(), attention_mask=padding_mask())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_the_gate_stands_in_the_configuration(tmp_path: Path) -> None:
    model = converted("adaptive", threshold=0.25, normalisation="max", experts={"init": "upcycle"})
    saved.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["repro_moe"] == {
        "backbone": "bert",
        "head": "sequence-classification",
        "gate": "adaptive",
        "gate_options": {
            "threshold": 0.25,
            "normalisation": "max",
            "combine": "raw",
            "logit_std": 1.0,
            "balance": 0.01,
        },
        "experts": {"count": 4, "activation": "model", "every": 1},
    }
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert "auto_map" not in config
    gate = moe_layers(saved.load(tmp_path, CPU))[0].gate
    assert (gate.config.threshold, gate.config.normalisation) == (0.25, "max")


def test_a_dense_model_is_saved_as_plain_hugging_face(tmp_path: Path) -> None:
    model = converted("dense")
    saved.save(model, tmp_path)
    assert "repro_moe" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    plain = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(outputs_of(plain, token_ids())[0], outputs_of(model, token_ids())[0])


def test_layers_and_activation_survive_saving(tmp_path: Path) -> None:
    model = converted("top-2", experts={"every": 2, "activation": "relu"})
    saved.save(model, tmp_path)
    loaded = saved.load(tmp_path, CPU)
    assert len(moe_layers(loaded)) == 1
    assert torch.equal(outputs_of(loaded, token_ids())[0], outputs_of(model, token_ids())[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_loading_with_another_back_end(tmp_path: Path, backend: str) -> None:
    model = converted("adaptive")
    saved.save(model, tmp_path)
    loaded = saved.load(tmp_path, CPU, backend)
    assert {layer.experts.backend for layer in moe_layers(loaded)} == {plugins.load("experts", backend)}
    expected = outputs_of(model, token_ids())
    torch.testing.assert_close(outputs_of(loaded, token_ids()), expected, rtol=0, atol=1e-5)


def test_loading_with_an_unknown_back_end(tmp_path: Path) -> None:
    saved.save(converted("top-2"), tmp_path)
    with pytest.raises(UserError, match=r"^experts\.backend: unknown .*'padde'\. Did you mean 'padded'\?"):
        saved.load(tmp_path, CPU, "padde")


def test_weights_in_several_files(tmp_path: Path) -> None:
    model = converted("adaptive")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(
        outputs_of(saved.load(tmp_path, CPU), token_ids())[0], outputs_of(model, token_ids())[0]
    )


def test_code_beside_the_weights_is_never_run(tmp_path: Path) -> None:
    model = converted("top-2")
    saved.save(model, tmp_path)
    (tmp_path / "code.py").write_text("raise SystemExit('remote code was run')\n", encoding="utf-8")
    change_config(tmp_path, auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"})
    loaded = saved.load(tmp_path, CPU)
    assert torch.equal(outputs_of(loaded, token_ids())[0], outputs_of(model, token_ids())[0])


# --- folders that hold no model -----------------------------------------------------------------


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")


def change_settings(folder: Path, **changes: Any) -> None:
    plain = json.loads((folder / "config.json").read_text(encoding="utf-8"))["repro_moe"]
    change_config(folder, repro_moe=plain | changes)


def remove_everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


BROKEN = {
    "empty folder": remove_everything,
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "configuration is not JSON": lambda folder: (folder / "config.json").write_text("{"),
    "no architecture": lambda folder: change_config(folder, architectures=None),
    "unknown architecture": lambda folder: change_config(folder, architectures=["BertForNothing"]),
    "unknown gate": lambda folder: change_settings(folder, gate="nothing"),
    "unknown gate option": lambda folder: change_settings(folder, gate_options={"nothing": 1}),
    "settings without experts": lambda folder: change_settings(folder, experts=None),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights of fewer layers": lambda folder: change_config(folder, num_hidden_layers=3),
    "weights of more layers": lambda folder: change_config(folder, num_hidden_layers=1),
    "weights are rubbish": lambda folder: (folder / "model.safetensors").write_bytes(b"rubbish"),
    "weights are cut short": cut_short,
    "weights of another width": lambda folder: change_config(folder, hidden_size=32),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_folder_is_the_users_error(tmp_path: Path, case: str) -> None:
    saved.save(converted("top-2"), tmp_path)
    BROKEN[case](tmp_path)
    with pytest.raises(UserError) as caught:
        saved.load(tmp_path, CPU)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["absolute", "relative"])
def test_a_folder_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    # A relative path without a folder looks like a hub id; it must not be looked up there.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "nothing" if where == "absolute" else Path("nothing")
    with pytest.raises(UserError, match=r"nothing: not a saved model") as caught:
        saved.load(folder, CPU)
    assert "\n" not in str(caught.value)


def test_rubbish_weights_of_a_dense_model(tmp_path: Path) -> None:
    saved.save(converted("dense"), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="not a saved model"):
        saved.load(tmp_path, CPU)


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    model = converted("top-2")
    saved.save(model, tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="not a saved model"):
        saved.load(tmp_path, CPU)
