"""Attention as a gate sees it: the library's own weights, an unchanged output, nothing of later tokens."""

from typing import Any

import pytest
import torch
from tiny_models import Tiny, checkpoint_activations, moe_layers
from torch import Tensor

from repro.moe.attention import attention_weights, watch
from repro.moe.backbones import base as backbones
from repro.moe.routing import record_routing

GATE = "attention-budget"


def peaks_of(model: Any, batch: dict[str, Any]) -> list[Tensor]:
    """What each gate is told in a call, in the order of its tokens."""
    seen: list[Tensor] = []
    hooks = [
        layer.gate.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["attention_T"]), with_kwargs=True
        )
        for layer in moe_layers(model)
    ]
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return seen


def weights_of(outputs: Any, stack: str) -> Tensor:
    """The weights of the first self-attention of a stack, as the library hands them out, (B, H, S, S)."""
    found = outputs.get(f"{stack}_attentions") or outputs["attentions"]
    weights: Tensor = found[0]
    return weights


@pytest.mark.parametrize("masked", [False, True])
def test_a_gate_is_told_the_largest_weight_of_each_token(tiny: Tiny, masked: bool) -> None:
    """Of the first layer of each stack: what is before it no gate has changed."""
    batch = tiny.batch(masked=masked)
    with torch.no_grad():
        outputs = tiny.build(attn_implementation="eager")(**batch, output_attentions=True)
    seen = peaks_of(tiny.converted(GATE), batch)
    assert len(seen) == len(tiny.stacks)
    for stack in tiny.widths:
        first = tiny.stacks.index(stack)
        mask_BS = tiny.masks(batch)[stack].bool()
        expected_BS = weights_of(outputs, stack).amax(-1).mean(1)
        peaks_T, shape = seen[first], mask_BS.shape
        assert peaks_T.dtype == torch.float32
        time_major = backbones.load(tiny.backbone).TIME_MAJOR
        peaks_BS = peaks_T.view(shape[1], shape[0]).t() if time_major else peaks_T.view(shape)
        torch.testing.assert_close(peaks_BS[mask_BS], expected_BS[mask_BS], rtol=1e-5, atol=1e-6)
        assert float(peaks_BS[mask_BS].max()) <= 1.0 + 1e-6


def test_watching_changes_nothing(tiny: Tiny) -> None:
    model, batch = tiny.build(), tiny.batch()
    before = tiny.outputs(model, batch)
    watched = [watch(model, site.attention) for site in backbones.load(tiny.backbone).ffn_sites(model)]
    after = tiny.outputs(model, batch)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert len(watched) == len(tiny.stacks)


@pytest.mark.parametrize("gate", ["top-2", "adaptive"])
def test_other_gates_keep_the_librarys_attention(tiny: Tiny, gate: str) -> None:
    model = tiny.build()
    before = model.config._attn_implementation
    tiny.convert(model, gate)
    assert model.config._attn_implementation == before


def test_later_tokens_have_no_part_in_a_decoder(gpt2: Tiny) -> None:
    model = gpt2.converted(GATE)
    ids = torch.randint(3, 44, (2, 9), generator=torch.Generator().manual_seed(3))
    other = torch.cat([ids[:, :5], ids[:, 5:].flip(1)], dim=1)
    counts = []
    for batch in (ids, other):
        with record_routing(model) as tape, torch.no_grad():
            model(batch)
        counts.append(torch.stack([entry.count_BS() for entry in tape.entries]))
    assert torch.equal(counts[0][:, :, :5], counts[1][:, :, :5])
    assert not torch.equal(counts[0], counts[1])


def test_with_a_key_value_cache(gpt2: Tiny) -> None:
    model = gpt2.converted(GATE)
    ids = torch.randint(3, 44, (2, 6), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = model(ids).logits
        past = model(ids[:, :5], use_cache=True).past_key_values
        last = model(ids[:, 5:], past_key_values=past, use_cache=True).logits
    torch.testing.assert_close(last, whole[:, 5:], rtol=0, atol=1e-5)


def test_generation(seq2seq: Tiny) -> None:
    model, batch = seq2seq.converted(GATE), seq2seq.batch()
    options = {"max_new_tokens": 5, "num_beams": 2, "do_sample": False}
    made = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options)
    assert made.shape[0] == 3


def test_gradient_checkpointing(tiny: Tiny) -> None:
    """The attention is repeated before the layer, so that it is told the same."""
    if not tiny.build().supports_gradient_checkpointing:
        pytest.skip("the library repeats no layers of this model")

    def gradients(repeated: bool) -> list[Tensor]:
        model, batch = tiny.converted(GATE), tiny.batch()
        if repeated:
            checkpoint_activations(model)
        model.train()
        outputs = model(**batch)
        logits = [value for key, value in outputs.items() if key.endswith("logits")]
        sum(value.square().mean() for value in logits).backward()
        return [weight.grad for weight in model.parameters() if weight.grad is not None]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, other)


def test_another_implementation_is_refused_when_it_is_used(gpt2: Tiny) -> None:
    """Not silently routed by what was seen before."""
    model, batch = gpt2.converted(GATE), gpt2.batch()
    gpt2.outputs(model, batch)
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match="needs the weights of the attention before it"):
        model(**batch)


def test_every_second_layer(gpt2: Tiny) -> None:
    model = gpt2.converted(GATE, experts={"every": 2})
    with record_routing(model) as tape, torch.no_grad():
        model(**gpt2.batch())
    assert len(tape.entries) == 1


# --- the weights by hand ----------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    # One head of width 1, queries 1 and 2, keys 0 and log 2, scaling 1: scores (0, log 2) and (0, 2 log 2).
    query, key = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[0.0], [2.0]]]]).clone()
    key[0, 0, 1] = torch.tensor(2.0).log()
    everywhere = attention_weights(query, key, None, 1.0, causal=False)
    torch.testing.assert_close(everywhere[0, 0], torch.tensor([[1 / 3, 2 / 3], [1 / 5, 4 / 5]]))
    causal = attention_weights(query, key, None, 1.0, causal=True)
    torch.testing.assert_close(causal[0, 0], torch.tensor([[1.0, 0.0], [1 / 5, 4 / 5]]))
    only_first = torch.tensor([[[[True, False], [True, False]]]])
    masked = attention_weights(query, key, only_first, 1.0, causal=True)
    torch.testing.assert_close(masked[0, 0], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    nowhere = attention_weights(query, key, ~torch.ones_like(only_first), 1.0, causal=False)
    assert bool(nowhere.isfinite().all())


def test_groups_of_heads_share_keys() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 5, 3, generator=generator)
    key = torch.randn(2, 2, 5, 3, generator=generator)
    shared = attention_weights(query, key, None, None, causal=True)
    alone = attention_weights(query, key[:, [0, 0, 1, 1]], None, None, causal=True)
    torch.testing.assert_close(shared, alone)
