"""FLOPs and volumes of examples worked on paper."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import transformers
from tiny_models import numbers
from volumes import encoded, mask_of

from repro.moe.backbones import bert
from repro.moe.backbones.base import Layout
from repro.moe.experts import grouped, loop, padded
from repro.moe.experts.base import ExpertBackend
from repro.moe.flops import Architecture, FFNSize, Work
from repro.moe.routing import LayerRouting, Routing, RoutingTape
from repro.moe.volume import Volume


def round_bert(**options: int) -> transformers.BertConfig:
    sizes = {
        "hidden_size": 10,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 100,
    }
    return transformers.BertConfig(**sizes | options)


def architecture_of(head: str, *, moe_layers: int, experts: int, **options: int) -> Architecture:
    config = round_bert(**options)
    return Architecture(
        backbone=bert,
        config=config,
        head=head,
        ffns=tuple(
            FFNSize(
                stack="encoder",
                d_model=config.hidden_size,
                d_hidden=config.intermediate_size,
                gate_macs=config.hidden_size * experts if layer < moe_layers else None,
            )
            for layer in range(config.num_hidden_layers)
        ),
        experts=experts,
    )


def test_one_sequence_of_100_tokens() -> None:
    # 2 layers, D = 10, F = 100, 16 experts; one sequence of 100 tokens.
    # projections  2 layers * 4 * 10 * 10 * 100 tokens      =    80,000 MACs
    # attention    2 layers * 2 * 10 * 100 * 100 pairs      =   400,000
    # QA head      2 * 10 * 100 tokens                      =     2,000
    # FFN          2 layers * 2 * 10 * 100 * 100 tokens     =   400,000
    # dense                                                     882,000
    volume = encoded(100)
    assert bert.rest_macs(round_bert(), "question-answering", volume) == 482_000
    none = architecture_of("question-answering", moe_layers=0, experts=16)
    assert none.dense_macs(volume) == none.analytic_macs(volume, 1.0) == 882_000
    # With 1.5 experts a token: 1.5 * 400,000 = 600,000; router 2 layers * 10 * 16 * 100 = 32,000.
    # 482,000 + 600,000 + 32,000 = 1,114,000
    both = architecture_of("question-answering", moe_layers=2, experts=16)
    assert both.analytic_macs(volume, 1.5) == 1_114_000
    assert both.dense_macs(volume) == 882_000
    # Half converted: 482,000 + 200,000 kept + 1.5 * 200,000 + 16,000 = 998,000
    half = architecture_of("question-answering", moe_layers=1, experts=16)
    assert half.analytic_macs(volume, 1.5) == 998_000


def test_the_classifier_reads_one_token_of_each_sequence() -> None:
    # 3 sequences: pooler 10 * 10, classifier 10 * 4, so 3 * 140 = 420 MACs, however long they are.
    # Lengths 1, 2, 3: 6 tokens, 1 + 4 + 9 = 14 pairs.
    # projections 2 * 4 * 100 * 6 = 4,800; attention 2 * 2 * 10 * 14 = 560; together with the top 5,780.
    macs = bert.rest_macs(round_bert(num_labels=4), "sequence-classification", encoded(1, 2, 3))
    assert macs == 5_780


def hand_made_tape(backend: ExpertBackend) -> RoutingTape:
    """Two sequences of 3 and 1 tokens, padded to 3: experts 0, 0, 1 and 2 of four."""
    selected_TE = torch.zeros(6, 4, dtype=torch.bool)
    for token, expert in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 3)]:  # tokens 4 and 5 are padding
        selected_TE[token, expert] = True
    mask_T = torch.tensor([True, True, True, True, False, False])
    probs_TE = torch.full((6, 4), 0.25)
    routing = Routing.from_selection(selected_TE, probs_TE, probs_TE, mask_T, torch.tensor(0.0))
    rows = backend.rows_computed(routing.load_E, torch.float32)
    return RoutingTape([LayerRouting(0, routing, (2, 3), False, rows, update_gate=lambda _: None)])


def test_executed_flops_of_a_padded_batch_by_hand() -> None:
    # One layer, D = 8, F = 16, 4 experts, 2 labels. Lengths 3 and 1, padded to 3 and 3.
    #                                      real: 4 tokens, 10 pairs    padded: 6 tokens, 18 pairs
    # projections  4 * 8 * 8 = 256 a token        1,024                       1,536
    # attention    2 * 8 = 16 a pair                160                         288
    # top          8 * (8 + 2) = 80 a sequence      160                         160
    # router       8 * 4 = 32 a token               128                         192
    # experts      2 * 8 * 16 = 256 a row         4 rows: 1,024               `padded` 8 rows: 2,048
    # sum                                         2,496                       4,224
    # per real token (4)                            624                       1,056
    # dense: 1,024 + 160 + 160 + 256 * 4 = 2,368, per token 592
    architecture = architecture_of(
        "sequence-classification",
        moe_layers=1,
        experts=4,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
    )
    # The busiest expert has 2 rows, so `padded` computes 4 * 2 = 8.
    work = Work.of(hand_made_tape(padded), mask_of(3, 1))
    assert work == Work(
        real=Volume(sequences=2, encoder=4, encoder_pairs=10),
        padded=Volume(sequences=2, encoder=6, encoder_pairs=18),
        rows_routed_L=[4],
        rows_computed_L=[8],
        routed_tokens_L=[4],
        router_rows_L=[6],
    )
    assert numbers(work.flops(architecture)) == {
        "per_token": 2 * 624,
        "per_token_executed": 2 * 1056,
        "macs_per_token": 624,
        "dense_per_token": 2 * 592,
    }
    # `grouped` computes the 4 assignments only: 4,224 - 4 * 256 = 3,200, per token 800.
    work = Work.of(hand_made_tape(grouped), mask_of(3, 1))
    assert numbers(work.flops(architecture))["per_token_executed"] == 2 * 800
    # Two passes have twice the work and the same FLOPs per token.
    twice = work + work
    assert (twice.real.tokens, twice.rows_routed_L, twice.router_rows_L) == (8, [8], [12])
    assert twice.flops(architecture) == work.flops(architecture)


def test_rows_that_back_ends_compute() -> None:
    for load, real, slots in [([2, 1, 1, 0], 4, 8), ([3, 3], 6, 6), ([0, 0, 0], 0, 0), ([5], 5, 5)]:
        rows = {one: one.rows_computed(torch.tensor(load), torch.float32) for one in (grouped, loop, padded)}
        assert rows == {grouped: real, loop: real, padded: slots}


def test_padding_of_a_dense_model_by_hand() -> None:
    # As above, without experts. Real: 2,368. Padded: 1,536 + 288 + 160 + 256 * 6 = 3,520.
    architecture = architecture_of(
        "sequence-classification",
        moe_layers=0,
        experts=4,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
    )
    work = Work.of(RoutingTape(), mask_of(3, 1))
    assert numbers(work.flops(architecture)) == {
        "per_token": 2 * 592,
        "per_token_executed": 2 * 880,
        "macs_per_token": 592,
        "dense_per_token": 2 * 592,
    }


def test_nothing_processed_has_no_flops_per_token() -> None:
    architecture = architecture_of("question-answering", moe_layers=2, experts=16)
    assert Work().flops(architecture).to_json() == {
        "per_token": None,
        "per_token_executed": None,
        "macs_per_token": None,
        "dense_per_token": None,
    }


def test_any_backbone_can_be_counted() -> None:
    @dataclass(frozen=True)
    class Round:
        LAYOUT = Layout(heads={}, dropout="", attention_dropout="")

        def rest_macs(self, config: Any, head: str, volume: Volume) -> int:
            return 100 * volume.tokens + volume.encoder_pairs + volume.cross_pairs

    def ffn(stack: str, hidden: int, converted: bool) -> FFNSize:
        return FFNSize(stack=stack, d_model=5, d_hidden=hidden, gate_macs=5 * 8 if converted else None)

    assert ffn("encoder", 50, True).row_macs == 2 * 5 * 50
    # 10 tokens: rest 1,000 + 100 = 1,100; four FFNs of 2 * 5 * 50 * 10 = 5,000 MACs, two converted.
    # Each of these: 20 experts' rows * 2 * 5 * 50 = 10,000; router 5 * 8 * 10 = 400.
    # 1,100 + 2 * 5,000 + 2 * (10,000 + 400) = 31,900
    architecture = Architecture(
        backbone=Round(),
        config=None,
        head="any",
        ffns=tuple(ffn("encoder", 50, number % 2 == 1) for number in range(4)),
        experts=8,
    )
    assert architecture.analytic_macs(encoded(10), 2.0) == 31_900
    assert architecture.dense_macs(encoded(10)) == 21_100
    # Two stacks: 10 tokens and 4, 40 crossed pairs. Rest 1,400 + 100 + 40 = 1,540. Encoder FFN kept:
    # 5,000. Decoder FFN of width 30 converted: 3 experts' rows * 2 * 5 * 30 = 900; router 5 * 8 * 4.
    mixed = replace(architecture, ffns=(ffn("encoder", 50, False), ffn("decoder", 30, True)))
    volume = Volume.of({"encoder": [10], "decoder": [4]})
    assert mixed.moe == (ffn("decoder", 30, True),)
    assert mixed.moe_macs(volume, [3], [4]) == 1_540 + 5_000 + 900 + 160
    assert mixed.dense_macs(volume) == 1_540 + 5_000 + 1_200
    with pytest.raises(ValueError, match="zip"):
        mixed.moe_macs(volume, [3, 3], [4, 4])


def test_work_adds_up() -> None:
    one = Work(real=encoded(1), padded=encoded(2), rows_routed_L=[3, 1], rows_computed_L=[4, 2])
    two = Work(
        real=encoded(5),
        rows_routed_L=[1, 1],
        rows_computed_L=[10, 5],
        routed_tokens_L=[20],
        router_rows_L=[30],
    )
    assert one + two == Work(
        real=encoded(1, 5),
        padded=encoded(2),
        rows_routed_L=[4, 2],
        rows_computed_L=[14, 7],
        routed_tokens_L=[20],
        router_rows_L=[30],
    )
    assert one + Work() == Work() + one == one
    assert one.rows_routed_L == [3, 1]  # nothing was changed in place


def test_volumes_add_up() -> None:
    assert Volume() == Volume.of({}) == encoded()
    assert encoded(3, 4) == Volume(sequences=2, encoder=7, encoder_pairs=25)
    assert Volume.of({"decoder": [3, 4]}) == Volume(sequences=2, decoder=7, decoder_pairs=25)
    assert encoded(3, 4) + encoded(5) == encoded(3, 4, 5)
    assert encoded(3, 4) + Volume() == encoded(3, 4)


def test_a_volume_of_two_stacks_crosses_pairs_of_one_sequence() -> None:
    # 3 * 2 + 4 * 5 = 26 pairs across.
    both = Volume.of({"encoder": [3, 4], "decoder": [2, 5]})
    assert both == Volume(
        sequences=2, encoder=7, decoder=7, encoder_pairs=25, decoder_pairs=29, cross_pairs=26
    )
    assert (both.tokens, both.of_stack("encoder"), both.of_stack("decoder")) == (14, 7, 7)
    parts = [Volume.of({"encoder": [a], "decoder": [b]}) for a, b in ((3, 2), (4, 5))]
    assert parts[0] + parts[1] == both
    with pytest.raises(ValueError, match="zip"):
        Volume.of({"encoder": [3, 4], "decoder": [2]})
