"""Converted models of every backbone and head: masks, dropout, gradient checkpointing."""

from typing import Any

import pytest
import torch
from tiny_models import Tiny, checkpoint_activations, moe_layers

from repro.errors import UserError
from repro.moe.layer import MoELayer
from repro.moe.routing import record_routing

# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["top-1", "top-2", "adaptive"])
def test_padding_is_never_routed(tiny: Tiny, gate: str) -> None:
    model, batch = tiny.converted(gate), tiny.batch()
    masks = tiny.masks(batch)
    with record_routing(model) as tape:
        tiny.outputs(model, batch)
    assert [entry.layer for entry in tape.entries] == list(range(len(tiny.stacks)))
    for entry, stack in zip(tape.entries, tiny.stacks, strict=True):
        mask_BS, routing = masks[stack], entry.routing
        count_BS = entry.count_BS()
        assert count_BS.shape == mask_BS.shape
        assert (count_BS[mask_BS == 0] == 0).all()
        assert (count_BS[mask_BS == 1] >= 1).all()
        # FSMT is time-major inside its layers: position by position, all sequences side by side.
        assert entry.time_major is (tiny.backbone == "fsmt")
        laid_out = mask_BS.t() if entry.time_major else mask_BS
        assert entry.shape == tuple(laid_out.shape)
        assert torch.equal(routing.mask_T, laid_out.flatten().bool())
        assert routing.mask_T[routing.token_A].all()
        assert routing.load_E.sum() == routing.expert_A.numel() == count_BS.sum()
        if gate != "adaptive":
            experts = {"top-1": 1, "top-2": 2}[gate]
            assert count_BS.sum(1).tolist() == [experts * int(length) for length in mask_BS.sum(1)]


def test_ratios_are_shares_of_the_stacks_own_tokens(tiny: Tiny) -> None:
    model, batch = tiny.converted("adaptive", threshold=0.4), tiny.batch()
    with record_routing(model) as tape:
        tiny.outputs(model, batch)
    ratios_BL, masks = tape.ratios_BL(), tiny.masks(batch)
    assert ratios_BL.shape == (3, len(tiny.stacks))
    for column, (entry, stack) in enumerate(zip(tape.entries, tiny.stacks, strict=True)):
        several_B = (entry.count_BS() == 2).sum(1)
        assert torch.equal(tape.num_multi_expert_BL()[:, column], several_B)
        torch.testing.assert_close(ratios_BL[:, column], several_B / masks[stack].sum(1))
    assert 0 < float(ratios_BL.mean()) < 1


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_a_sequence_gives_the_same_alone_and_in_a_padded_batch(tiny: Tiny, gate: str) -> None:
    model, batch = tiny.converted(gate), tiny.batch()
    with record_routing(model) as tape:
        together = tiny.outputs(model, batch)
    lengths = list(tiny.masks(batch).values())[-1].sum(1).tolist() if tiny.per_token else [1] * 3
    for row in range(3):
        with record_routing(model) as alone_tape:
            alone = tiny.outputs(model, tiny.row(batch, row))
        for logits, logits_alone in zip(together, alone, strict=True):
            mine = torch.split(logits, lengths)[row]
            torch.testing.assert_close(mine, logits_alone, rtol=0, atol=1e-5)
        for entry, entry_alone in zip(tape.entries, alone_tape.entries, strict=True):
            count_1S = entry_alone.count_BS()
            assert torch.equal(entry.count_BS()[row, : count_1S.shape[1]], count_1S[0])


def test_what_stands_at_the_padding_changes_nothing(tiny: Tiny) -> None:
    model, batch = tiny.converted("adaptive"), tiny.batch()
    other = dict(batch)
    for name in [name for name in batch if name.endswith("input_ids")]:
        mask = batch[name.replace("input_ids", "attention_mask")].bool()
        other[name] = torch.where(mask, batch[name], 41)
        assert not torch.equal(other[name], batch[name])
    with record_routing(model) as tape:
        expected = tiny.outputs(model, batch)
    with record_routing(model) as other_tape:
        actual = tiny.outputs(model, other)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert float(tape.loss()) == pytest.approx(float(other_tape.loss()), abs=1e-7)
    assert torch.equal(tape.ratios_BL(), other_tape.ratios_BL())


def test_no_mask_means_that_all_tokens_are_real(tiny: Tiny) -> None:
    model = tiny.converted("top-2")
    tiny.outputs(model, tiny.batch())  # must not be remembered
    batch = tiny.batch(masked=False)
    with record_routing(model) as tape:
        actual = tiny.outputs(model, batch)
    assert all((entry.count_BS() == 2).all() for entry in tape.entries)
    ones = {
        name.replace("input_ids", "attention_mask"): torch.ones_like(ids)
        for name, ids in batch.items()
        if name.endswith("input_ids")
    }
    torch.testing.assert_close(tiny.outputs(model, batch | ones), actual, rtol=0, atol=1e-6)


# --- dropout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_layerdrop_is_the_users_error(seq2seq: Tiny, stack: str) -> None:
    model = seq2seq.build(**{f"{stack}_layerdrop": 0.1})
    with pytest.raises(UserError, match=rf"^model\.config\.{stack}_layerdrop: must be 0 for a model"):
        seq2seq.convert(model, "top-2")


def test_no_activation_dropout_behind_moe_layers(seq2seq: Tiny) -> None:
    # It belongs between the two matrices; behind a whole MoE layer it would drop parts of its output.
    sizes, batch = {"activation_dropout": 0.5}, seq2seq.batch()
    model = seq2seq.converted("top-2", sizes=sizes)
    expected = seq2seq.outputs(model, batch)
    assert all(
        torch.equal(a, b) for a, b in zip(seq2seq.outputs(model.train(), batch), expected, strict=True)
    )
    for layer in [*model.model.encoder.layers, *model.model.decoder.layers]:
        assert isinstance(layer.fc1, MoELayer)
        assert (layer.activation_dropout, layer.training) == (0.0, True)
    # The dense model does drop them: the setting had an effect.
    dense = seq2seq.build(**sizes)
    expected = seq2seq.outputs(dense, batch)
    assert not torch.equal(seq2seq.outputs(dense.train(), batch)[0], expected[0])


def test_unconverted_layers_keep_their_activation_dropout(seq2seq: Tiny) -> None:
    model = seq2seq.converted("top-2", sizes={"activation_dropout": 0.5}, experts={"every": 2})
    first, second = model.model.encoder.layers
    assert (first.activation_dropout, second.activation_dropout) == (0.5, 0.0)


def test_dropout_behind_the_ffn_stays(tiny: Tiny) -> None:
    if tiny.is_gated:
        pytest.skip("there is none in Llama")
    name = {"bert": "hidden_dropout_prob", "gpt2": "resid_pdrop"}.get(tiny.backbone, "dropout")
    model, batch = tiny.converted("top-2", sizes={name: 0.5}), tiny.batch()
    seen: list[bool] = []
    module = moe_layers(model)[-1]
    module.register_forward_hook(lambda *_: seen.append(True))
    expected = tiny.outputs(model, batch)
    assert not torch.equal(tiny.outputs(model.train(), batch)[0], expected[0])
    assert len(seen) == 2


# --- gradient checkpointing ---------------------------------------------------------------------


def test_gradient_checkpointing_changes_neither_loss_nor_counts_nor_gradients(tiny: Tiny) -> None:
    if not tiny.build().supports_gradient_checkpointing:
        assert tiny.backbone == "fsmt"
        pytest.skip("transformers has none for FSMT")

    def one_pass(checkpointing: bool) -> tuple[Any, Any, dict[str, torch.Tensor], int]:
        model, calls = tiny.converted("adaptive", balance=0.5), []
        if checkpointing:
            checkpoint_activations(model)
        model.train()
        for layer in moe_layers(model):
            # Before: the repetition stops as soon as it has what it needs.
            layer.register_forward_pre_hook(lambda *_: calls.append(1))
        with record_routing(model) as tape:
            outputs = model(**tiny.batch())
        logits = [value for name, value in outputs.items() if name.endswith("logits")]
        loss = sum(value.square().mean() for value in logits) + tape.loss()
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        return loss.detach(), tape, gradients, len(calls)

    loss, tape, gradients, calls = one_pass(False)
    loss_c, tape_c, gradients_c, calls_c = one_pass(True)
    # Checkpointing was on: every layer ran twice. The tape saw the first pass only.
    layers = len(tiny.stacks)
    assert (calls, calls_c) == (layers, 2 * layers)
    assert len(tape.entries) == len(tape_c.entries) == layers
    for entry, entry_c in zip(tape.entries, tape_c.entries, strict=True):
        assert torch.equal(entry.routing.load_E, entry_c.routing.load_E)
        assert torch.equal(entry.routing.count_T, entry_c.routing.count_T)
    assert torch.equal(loss, loss_c)
    for name, value in gradients.items():
        assert torch.equal(value, gradients_c[name]), name
