"""The MoE layer in a BERT of two tiny layers: identity, masks, scopes, gradient checkpointing.

What must hold for every backbone is in `backbones/test_conversion.py`.
"""

from typing import Any

import pytest
import torch
from tiny_bert import (
    HEADS,
    LENGTHS,
    build,
    converted,
    dense_ffn,
    mean_total,
    outputs_of,
    padding_mask,
    real,
    token_ids,
)
from tiny_models import BACKENDS, checkpoint_activations, moe_layers

from repro.moe.backbones import bert
from repro.moe.routing import force_top1_routing, record_routing

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
    actual = outputs_of(model, token_ids(), attention_mask=padding_mask())
    for before, after in zip(expected, actual, strict=True):
        shown = padding_mask()
        torch.testing.assert_close(real(head, after, shown), real(head, before, shown), rtol=0, atol=1e-6)


def test_identity_of_many_equal_experts_with_renormalised_weights() -> None:
    # Copies of one FFN, weights that sum to 1: w1 FFN(x) + w2 FFN(x) = FFN(x), up to rounding.
    expected = outputs_of(build(), token_ids(), attention_mask=padding_mask())
    model = converted("top-2", experts={"init": "upcycle"}, combine="renormalised")
    actual = outputs_of(model, token_ids(), attention_mask=padding_mask())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_raw_weights_scale_the_expert_by_its_probability() -> None:
    # Eq. (3): with all experts equal, top-1 gives p1 * E(x), here with E(x) = FFN(x) / total.
    site = next(iter(bert.ffn_sites(build())))
    layer = moe_layers(converted("top-1", experts={"init": "upcycle", "scale": "fitted"}))[0]
    total = mean_total(layer, site.norm, "top-1")
    hidden = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(3))
    with record_routing(layer) as tape, torch.no_grad():
        output = layer(hidden)
    best_T = tape.entries[0].routing.probs_TE.amax(1)
    expected = dense_ffn(site, hidden) * best_T.view(1, 5, 1) / total
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-6)
    assert best_T.max() < 1


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
        actual = outputs_of(model, other, attention_mask=mask)
    assert not torch.equal(ids, other)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert float(tape.loss()) == pytest.approx(float(other_tape.loss()), abs=1e-7)
    assert torch.equal(tape.ratios_BL(), other_tape.ratios_BL())


def test_no_mask_means_that_all_tokens_are_real() -> None:
    model = converted("top-2")
    outputs_of(model, token_ids(), attention_mask=padding_mask())  # must not be remembered
    with record_routing(model) as tape:
        actual = outputs_of(model, token_ids())
    assert all((entry.count_BS() == 2).all() for entry in tape.entries)
    assert torch.equal(actual[0], outputs_of(model, token_ids(), attention_mask=torch.ones(3, 7))[0])


# --- scopes -------------------------------------------------------------------------------------


def test_nothing_is_recorded_outside_the_block() -> None:
    model = converted("top-2")
    with record_routing(model) as tape:
        outputs_of(model, token_ids())
    outputs_of(model, token_ids())
    assert len(tape.entries) == 2
    assert all(layer.tape is None for layer in moe_layers(model))


def test_force_top1_routing_inside_its_block() -> None:
    model = converted("top-2")

    def experts_of_tokens() -> set[int]:
        with record_routing(model) as tape:
            outputs_of(model, token_ids())
        return {int(count) for entry in tape.entries for count in torch.unique(entry.count_BS())}

    assert experts_of_tokens() == {2}
    with force_top1_routing(model):
        assert experts_of_tokens() == {1}
    assert experts_of_tokens() == {2}
    with force_top1_routing(model, enabled=False):
        assert experts_of_tokens() == {2}
    with pytest.raises(RuntimeError, match="stop"), force_top1_routing(model):
        raise RuntimeError("stop")
    assert experts_of_tokens() == {2}


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_force_top1_routing_is_the_top_1_gate_with_the_same_weights(gate: str) -> None:
    model, switch = converted(gate), converted("top-1")
    switch.load_state_dict(model.state_dict())
    with force_top1_routing(model):
        actual = outputs_of(model, token_ids(), attention_mask=padding_mask())
    assert torch.equal(actual[0], outputs_of(switch, token_ids(), attention_mask=padding_mask())[0])
    assert not torch.equal(actual[0], outputs_of(model, token_ids(), attention_mask=padding_mask())[0])


# --- gradient checkpointing ---------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_gradient_checkpointing_changes_neither_loss_nor_counts_nor_gradients(gate: str) -> None:
    def one_pass(checkpointing: bool) -> tuple[Any, Any, dict[str, torch.Tensor], int]:
        model = converted(gate, balance=0.5)
        if checkpointing:
            checkpoint_activations(model)
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
