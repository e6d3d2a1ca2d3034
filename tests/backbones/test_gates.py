"""Gates in whole models: token ids, extra output, state under gradient checkpointing, saving, refusals."""

from pathlib import Path

import pytest
import torch
from tiny_models import Tiny, checkpoint_activations, gradient, moe_layers, router_weight

from repro import plugins
from repro.errors import UserError
from repro.moe import pretrained
from repro.moe.gates import base as gates
from repro.moe.gates.shared.hashing import hashed
from repro.moe.routing import LayerRouting, record_routing

CPU = torch.device("cpu")
GATES = [name for name in plugins.names("gates") if name != "dense"]
STATEFUL: dict[str, dict[str, float]] = {
    "adaptive_budget": {},
    "attention_budget": {"k": 1.5},
    "ratio": {"share": 0.4},
    "relu": {"penalty": 0.01},
}


def gates_for(tiny: Tiny) -> list[str]:
    """The gates that can stand in this model."""
    causal = "decoder" in tiny.widths
    classes = {name: gates.load(name).Gate for name in GATES}
    return [name for name, one in classes.items() if one is not None and not (causal and one.encoders_only)]


def hashed_as(entry: LayerRouting, ids_BS: torch.Tensor) -> bool:
    """Whether every assignment of a layer is the hash of its token's id."""
    ids_T = (ids_BS.t() if entry.time_major else ids_BS).reshape(-1)
    expected_T = hashed(ids_T, 0) % 4
    return torch.equal(entry.routing.expert_A, expected_T[entry.routing.token_A])


# --- token ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_hash_sees_the_ids_of_its_own_stack(tiny: Tiny, masked: bool) -> None:
    model, batch = tiny.converted("hash"), tiny.batch(masked=masked)
    with record_routing(model) as tape, torch.no_grad():
        model(**batch)
    assert len(tape.entries) == len(tiny.stacks)
    for entry in tape.entries:
        stack = tiny.stacks[entry.layer]
        prefix = "decoder_" if len(tiny.widths) == 2 and stack == "decoder" else ""
        assert hashed_as(entry, batch[f"{prefix}input_ids"])
        assert torch.equal(entry.count_BS(), tiny.masks(batch)[stack].long())
        assert len(torch.unique(entry.routing.expert_A)) > 1


def test_hash_with_a_key_value_cache(gpt2: Tiny) -> None:
    model = gpt2.converted("hash")
    ids = torch.randint(3, 44, (2, 6), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = model(ids).logits
        past = model(ids[:, :4], use_cache=True).past_key_values
        with record_routing(model) as tape:
            last = model(ids[:, 4:], past_key_values=past, use_cache=True).logits
    assert all(hashed_as(entry, ids[:, 4:]) for entry in tape.entries)
    torch.testing.assert_close(last, whole[:, 4:], rtol=0, atol=1e-5)


def test_hash_without_ids_says_so(gpt2: Tiny) -> None:
    model = gpt2.converted("hash")
    with pytest.raises(ValueError, match="needs token ids"):
        model(inputs_embeds=torch.randn(1, 3, 16))


# --- frequencies ------------------------------------------------------------------------------------


def test_frequencies_are_saved_with_the_model(tmp_path: Path, tiny: Tiny) -> None:
    model, batch = tiny.converted("maskmoe", rare=0.5), tiny.batch()
    for number, layer in enumerate(moe_layers(model)):
        layer.gate.learn_frequencies(torch.arange(20 + number))
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU)
    for one, other in zip(moe_layers(model), moe_layers(loaded), strict=True):
        table = one.gate.state_dict()["rare_V"]
        assert torch.equal(other.gate.state_dict()["rare_V"], table)
        assert 0 < int(table.sum()) < len(table)
    for actual, expected in zip(tiny.outputs(loaded, batch), tiny.outputs(model, batch), strict=True):
        assert torch.equal(actual, expected)


# --- every gate in every model ----------------------------------------------------------------------


def test_forward_and_backward_of_every_gate(tiny: Tiny) -> None:
    for name in gates_for(tiny):
        model, batch = tiny.converted(name).train(), tiny.batch()
        with record_routing(model) as tape:
            outputs = model(**batch)
        logits = [value for key, value in outputs.items() if key.endswith("logits")]
        (sum(value.square().mean() for value in logits) + tape.loss()).backward()
        tape.update_gates()
        for key, parameter in model.named_parameters():
            if ".gate." in key or ".experts." in key:
                assert parameter.grad is not None, (name, key)
                assert bool(parameter.grad.isfinite().all()), (name, key)
        for entry in tape.entries:
            mask_BS = tiny.masks(batch)[tiny.stacks[entry.layer]]
            assert int(entry.count_BS()[mask_BS == 0].sum()) == 0, name


def test_every_gate_survives_saving(tmp_path: Path, tiny: Tiny) -> None:
    for name in gates_for(tiny):
        model, batch = tiny.converted(name), tiny.batch()
        for layer in moe_layers(model):
            for buffer in layer.gate.buffers():
                if buffer.dtype == torch.bool:
                    buffer.logical_not_()
                else:
                    buffer.add_(1) if buffer.dtype == torch.int64 else buffer.mul_(0.5)
        pretrained.save(model, tmp_path / name)
        loaded = pretrained.load(tmp_path / name, CPU)
        for one, other in zip(moe_layers(model), moe_layers(loaded), strict=True):
            state = other.gate.state_dict()
            assert one.gate.state_dict().keys() == state.keys()
            assert all(torch.equal(value, state[key]) for key, value in one.gate.state_dict().items()), name
        for actual, expected in zip(tiny.outputs(loaded, batch), tiny.outputs(model, batch), strict=True):
            assert torch.equal(actual, expected), name


@pytest.mark.parametrize("name", sorted(STATEFUL))
def test_gradient_checkpointing_moves_the_state_once(gpt2: Tiny, name: str) -> None:
    def two_steps(repeated: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        model, batch = gpt2.converted(name, **STATEFUL[name]), gpt2.batch()
        if repeated:
            checkpoint_activations(model)
        model.train()
        calls: list[int] = []
        for layer in moe_layers(model):
            layer.register_forward_pre_hook(lambda *_: calls.append(1))
        for _ in range(2):
            with record_routing(model) as tape:
                logits = model(**batch).logits
            (logits.square().mean() + tape.loss()).backward()
            tape.update_gates()
        assert len(calls) == (8 if repeated else 4)
        layers = moe_layers(model)
        states = [value.clone() for layer in layers for value in layer.gate.buffers()]
        return states, [gradient(router_weight(layer)) for layer in layers]

    fresh = gpt2.converted(name, **STATEFUL[name])
    start = [value.clone() for layer in moe_layers(fresh) for value in layer.gate.buffers()]
    (states, gradients), (states_c, gradients_c) = two_steps(False), two_steps(True)
    assert any(not torch.equal(one, other) for one, other in zip(start, states, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(states, states_c, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(gradients, gradients_c, strict=True))


# --- cheap experts ----------------------------------------------------------------------------------


def test_extra_output_is_added_to_that_of_the_experts(gpt2: Tiny) -> None:
    layer = moe_layers(gpt2.converted("zero-compute"))[0]
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    with record_routing(layer) as tape, torch.no_grad():
        output_TD = layer(hidden).view(10, 16)
        routing = tape.entries[0].routing
        experts = layer.experts.backend.forward(hidden.view(10, 16), routing, layer.experts.weights())
    assert routing.extra_TD is not None
    assert routing.extra_TD.abs().max() > 0
    torch.testing.assert_close(output_TD, experts + routing.extra_TD)


# --- decoders ---------------------------------------------------------------------------------------


def test_expert_choice_is_refused_in_decoders(tiny: Tiny) -> None:
    if "decoder" not in tiny.widths:
        assert len(moe_layers(tiny.converted("expert-choice"))) == 2
        return
    with pytest.raises(UserError) as caught:
        tiny.converted("expert-choice")
    assert list(caught.value.problems) == [
        "--gate expert-choice: cannot stand in a decoder:"
        " its experts choose among all tokens of a batch, later ones too"
    ]
