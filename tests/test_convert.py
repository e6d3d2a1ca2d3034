"""Conversion of a BERT of two tiny layers: which layers are replaced, and what is refused."""

import pytest
import torch
import transformers
from tiny_bert import CPU, build, converted_ffns, outputs_of, padding_mask, settings, token_ids
from tiny_models import BACKENDS, moe_layers

from repro.errors import UserError
from repro.moe.backbones import bert
from repro.moe.convert import choose_backend, convert
from repro.moe.experts import base as backends
from repro.moe.layer import MoELayer
from repro.moe.routing import record_routing

# --- which layers -------------------------------------------------------------------------------


def test_dense_leaves_the_model_untouched() -> None:
    model = build()
    expected = outputs_of(model, token_ids(), attention_mask=padding_mask())
    modules = [(name, id(module)) for name, module in model.named_modules()]
    config = model.config.to_dict()
    state = torch.random.get_rng_state()
    architecture = convert(model, settings("dense"), CPU)
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
    architecture = convert(model, settings("top-2", experts={"every": 2}), CPU)
    first, second = model.bert.encoder.layer
    assert isinstance(first.intermediate, transformers.models.bert.modeling_bert.BertIntermediate)
    assert isinstance(first.output.dense, torch.nn.Linear)
    assert isinstance(second.intermediate, MoELayer)
    assert isinstance(second.output.dense, torch.nn.Identity)
    assert converted_ffns(architecture) == [False, True]
    with record_routing(model) as tape:
        outputs_of(model, token_ids())
    assert [entry.layer for entry in tape.entries] == [0]


def test_every_too_large_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"^experts\.every: 3 leaves no layer to convert; the model has 2$"):
        convert(build(), settings("top-2", experts={"every": 3}), CPU)


def test_architecture_has_the_sizes_of_the_model() -> None:
    architecture = convert(build(), settings("adaptive"), CPU)
    assert architecture.experts == 4
    assert [(ffn.stack, ffn.d_model, ffn.d_hidden) for ffn in architecture.ffns] == [("encoder", 16, 32)] * 2
    assert architecture.moe == architecture.ffns
    assert architecture.backbone is bert
    assert architecture.head == "sequence-classification"


# --- wrong settings -----------------------------------------------------------------------------


def test_unknown_activation() -> None:
    with pytest.raises(UserError, match=r"unknown activation 'tanh'.*Known: .*gelu"):
        convert(build(hidden_act="tanh"), settings("top-2"), CPU)


def test_unknown_activation_matters_not_when_experts_use_relu() -> None:
    model = build(hidden_act="tanh")
    convert(model, settings("top-2", experts={"activation": "relu"}), CPU)
    assert [layer.experts.activation for layer in moe_layers(model)] == ["relu", "relu"]


def test_unknown_back_end() -> None:
    with pytest.raises(UserError, match=r"^experts\.backend: unknown .*'groupt'\. Did you mean 'grouped'\?"):
        convert(build(), settings("top-2", experts={"backend": "groupt"}), CPU)


def test_back_end_that_cannot_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.load("loop"), "available", lambda device: "it is too slow")
    with pytest.raises(UserError, match=r"^experts\.backend: 'loop' cannot run on cpu: it is too slow$"):
        choose_backend("loop", CPU)


def test_auto_chooses_a_back_end_that_runs_here() -> None:
    assert choose_backend("auto", CPU) in BACKENDS


@pytest.mark.parametrize(
    ("gate", "count", "message"),
    [
        ("top-3", 2, r"gate\.k = 3 is more than the 2 experts"),
        ("adaptive", 1, r"at least 2 experts"),
    ],
)
def test_gate_that_needs_more_experts(gate: str, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(build(), settings(gate, experts={"count": count}), CPU)
