"""How much memory a run takes: counted by hand, and against what training really holds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest
import transformers
from command_line import SMALL_BY_TASK
from launches import launch
from measured_memory import Measured, measure
from resolved import config as resolved_config
from resolved import resolved

from repro.checks import OptionValue
from repro.config import RunConfig
from repro.moe.activations import Activations, ForwardPass
from repro.moe.backbones import base as backbones
from repro.moe.flops import Architecture, FFNSize
from repro.moe.numerics import Numerics
from repro.moe.volume import Volume
from repro.run.blueprint import Blueprint, blueprint, planned_options
from repro.run.memory import Memory, Way, frozen_weights, largest_parts, memory_of, spread_over, ways

CPU = Numerics(device="cpu", bf16=False)
GPU = Numerics(device="cuda", bf16=True)


# --- activations by hand ---------------------------------------------------------------------------


def tiny_pass(
    backbone: str,
    head: str,
    sizes: Mapping[str, Any],
    lengths: Mapping[str, list[int]],
    *,
    numerics: Numerics = CPU,
    experts: float = 1,
    parallel: int = 1,
    converted: bool = True,
) -> Activations:
    """Of one layer a stack, D = 10, F = 20, two heads and four experts."""
    module = backbones.load(backbone)
    ffns = [
        FFNSize(
            stack=stack,
            d_model=10,
            d_hidden=20,
            is_gated=backbone == "llama",
            gate_macs=40 if converted else None,
        )
        for stack in module.STACKS
    ]
    return ForwardPass(
        architecture=Architecture(
            backbone=module, config=module.CONFIG(**sizes), head=head, ffns=tuple(ffns), experts=4
        ),
        volume=Volume.of(lengths),
        experts=experts,
        numerics=numerics,
        parallel=parallel,
    ).activations()


BERT = {"hidden_size": 10, "num_attention_heads": 2, "intermediate_size": 20}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tiny_bert(*lengths: int, dropout: bool = False, **options: Any) -> Activations:
    sizes = BERT | ({} if dropout else NO_DROPOUT)
    return tiny_pass("bert", "question-answering", sizes, {"encoder": list(lengths)}, **options)


class TestActivations:
    def test_a_layer_in_fp32(self) -> None:
        """Eight positions.

        By position: input 40, queries, keys and values 120, output 40, sums of two heads 8, two norms 96,
        router 40, probabilities of four experts 56, a row 4 (2 x 10 + 2 x 20) + 32 = 272: 672.
        """
        counted = tiny_bert(8)
        assert counted.layers == (8 * 672,)
        assert counted.inputs == (8 * 40,)
        # Outside: embeddings' norm 48, indices 8, input of the head 40.
        assert counted.ends == 8 * 96
        assert counted.kept(checkpointing=False) == 8 * 768
        assert counted.kept(checkpointing=True) == 8 * 136
        # Gradients of rows: 4 (2 x 20 + 3 x 10) = 280 a position; no logits of a vocabulary.
        assert (counted.layer_work, counted.loss_work) == (8 * 280, 0)
        assert counted.peak(checkpointing=False) == 8 * (768 + 280)
        # The layer alone with what is in work is more than its end.
        assert counted.peak(checkpointing=True) == 8 * (40 + 672 + 280)

    def test_rows_of_experts(self) -> None:
        """A second expert costs another row; rows that come back from other processes are kept once more."""
        assert tiny_bert(8, experts=2).layers == (8 * (672 + 272),)
        assert tiny_bert(8, experts=1.5, parallel=2).layers == (8 * (672 + 136 + 1.5 * 40),)

    def test_a_dense_layer(self) -> None:
        """Instead of router and row: input 40, before and behind the activation 160."""
        assert tiny_bert(8, converted=False).layers == (8 * (672 - 40 - 56 - 272 + 200),)

    def test_the_mask_of_padding(self) -> None:
        """Two sequences of four: 32 pairs of 4 bytes."""
        assert tiny_bert(4, 4).layers == (8 * 672 + 32 * 4,)

    def test_dropout_on_the_cpu(self) -> None:
        """Masks of 40 behind attention and experts; for each of 64 pairs and two heads three numbers.

        Attention is not fused then, so that there are no sums.
        """
        assert tiny_bert(8, dropout=True).layers == (8 * (672 + 80 - 8) + 64 * 2 * 12,)
        assert tiny_bert(8, dropout=True).ends == 8 * (96 + 40)

    def test_a_layer_in_bf16_on_a_gpu(self) -> None:
        """Input thrice 60, projected 60, output 20, mask 10, sums 8, norms 96, router 96.

        A row 2 (20 + 40) + 32 = 152, mask 10: 512. Copies of matrices: 400 of attention, 400 of each expert.
        """
        copies = 2 * (400 + 4 * 400)
        assert tiny_bert(8, dropout=True, numerics=GPU).layers == (8 * 512 + copies,)
        spread = tiny_bert(8, dropout=True, numerics=GPU, parallel=4)
        assert spread.layers == (8 * (512 + 20) + 2 * (400 + 400),)

    def test_gpt2_has_logits(self) -> None:
        """Input, queries, keys and values, output, sums, norms, router, row; then the head.

        Final norm 48, input of the head 40, log-probabilities of 50 tokens 200, indices 16.
        """
        sizes = {"n_embd": 10, "n_head": 2, "n_inner": 20, "vocab_size": 50}
        dropout = {"resid_pdrop": 0.0, "attn_pdrop": 0.0}
        counted = tiny_pass("gpt2", "causal-language-model", sizes | dropout, {"decoder": [8]})
        assert counted.layers == (8 * (40 + 120 + 40 + 8 + 96 + 40 + 56 + 272),)
        assert counted.ends == 8 * (48 + 40 + 200 + 16)
        assert counted.loss_work == 8 * 50 * 8

    def test_llama_is_gated(self) -> None:
        """Norms keep 84 each, rows of its experts 4 (2 x 10 + 3 x 20) + 32 = 352; all else as GPT-2."""
        sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50}
        options = sizes | {"attention_dropout": 0.0}
        counted = tiny_pass("llama", "causal-language-model", options, {"decoder": [8]})
        assert counted.layers == (8 * (40 + 120 + 40 + 8 + 2 * 84 + 40 + 56 + 352),)
        assert counted.ends == 8 * (84 + 40 + 200 + 16)
        assert counted.layer_work == 8 * 4 * (3 * 20 + 3 * 10)
        dense = tiny_pass("llama", "causal-language-model", options, {"decoder": [8]}, converted=False)
        assert dense.layers == (8 * (40 + 120 + 40 + 8 + 2 * 84 + 4 * (10 + 4 * 20)),)

    def test_bart_attends_to_its_encoder(self) -> None:
        """Six positions of the decoder, eight of the encoder.

        The decoder's further: input, queries and output 120, sums 8, norm 48; keys and values of the
        encoder's 80, and once what it gives, 40.
        """
        sizes = {"d_model": 10, "vocab_size": 50, "dropout": 0.0}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        lengths = {"encoder": [8], "decoder": [6]}
        counted = tiny_pass("bart", "sequence-to-sequence", sizes | heads, lengths)
        assert counted.layers == (8 * 672, 6 * (672 + 176) + 8 * 80)
        assert counted.ends == (8 + 6) * 56 + 8 * 40 + 6 * (40 + 200 + 8)

    def test_fsmt_keeps_the_weights_of_attention(self) -> None:
        """4 bytes a pair and head, and no sums; no norm behind embeddings."""
        sizes = {"d_model": 10, "tgt_vocab_size": 50, "dropout": 0.0}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        lengths = {"encoder": [8], "decoder": [6]}
        counted = tiny_pass("fsmt", "sequence-to-sequence", sizes | heads, lengths)
        encoder = 8 * 664 + 64 * 8
        assert counted.layers == (encoder, 6 * (664 + 168) + 8 * 80 + (36 + 48) * 8)
        assert counted.ends == (8 + 6) * 8 + 8 * 40 + 6 * (40 + 200 + 8)


# --- what processes hold -----------------------------------------------------------------------------

PLAN = Blueprint(
    architecture=Architecture(
        backbone=backbones.load("bert"), config=transformers.BertConfig(), head="any", ffns=(), experts=16
    ),
    rest=1_000,
    experts=16_000,
    weights=(4_000, 64_000),
    trained=(3_200, 64_000),
    outside=400,
    largest=(300, 8_000),
)
NOTHING = Activations(layers=(0.0,), inputs=(0.0,), ends=7.0, loss_work=0.0, layer_work=0.0)


@pytest.mark.parametrize(
    ("way", "weights", "gradients", "optimizer"),
    [
        # 17,000 parameters, 16,800 of them trained.
        (Way(), 4 * 17_000, 4 * 16_800, 8 * 16_800),
        (Way(processes=8), 4 * 17_000, 8 * 16_800, 8 * 16_800),
        # 2,000 of the experts, without buckets; 1,000 others, 800 trained.
        (Way(processes=8, parallel=8), 4 * 3_000, 4 * 2_800 + 4 * 800, 8 * 2_800),
        # An eighth; 400 outside the layers and two layers of 8,300 whole; two whole gradients of a layer.
        (Way(processes=8, sharded=True), 4 * (2_125 + 17_000), 4 * (2_100 + 16_600), 8 * 2_100),
        # Experts are never whole: 400 and twice 300; what is outside has the larger gradient.
        (Way(processes=8, parallel=8, sharded=True), 4 * (2_125 + 1_000), 4 * (2_100 + 800), 8 * 2_100),
        # Two processes each hold the same quarter.
        (Way(processes=8, parallel=4), 4 * 5_000, 4 * 4_800 + 4 * 800, 8 * 4_800),
    ],
)
def test_weights_gradients_and_moments(way: Way, weights: int, gradients: int, optimizer: int) -> None:
    held = memory_of(PLAN, NOTHING, way)
    assert (held.weights, held.gradients, held.optimizer, held.activations) == (
        weights,
        gradients,
        optimizer,
        7,
    )
    assert held.total == weights + gradients + optimizer + 7
    assert held.trained == optimizer / 8


def test_the_reserve() -> None:
    """2 GB and a twentieth of what is held."""
    held = Memory(weights=10e9, gradients=10e9, optimizer=10e9, activations=6e9)
    assert held.reserve == pytest.approx(3.8e9)
    assert held.fits(39.81e9)
    assert not held.fits(39.79e9)


def changed(run: RunConfig, **sections: Mapping[str, Any]) -> RunConfig:
    """A run with other values of some sections."""
    return replace(run, **{name: replace(getattr(run, name), **values) for name, values in sections.items()})


def test_what_experts_are_spread_over() -> None:
    run = resolved_config("adaptive")
    assert run.experts.count == 16
    assert [spread_over(run, processes) for processes in (1, 2, 8, 3, 32)] == [1, 2, 8, 1, 1]
    eight = changed(run, experts={"parallel": 8})
    assert [spread_over(eight, processes) for processes in (1, 4, 8, 16)] == [1, 4, 8, 8]
    assert spread_over(resolved_config("dense"), 8) == 1


def test_ways_in_their_order() -> None:
    run = resolved_config("adaptive")
    assert [(way.name, way.checkpointing) for way in ways(run, 8)] == [
        (name, checkpointing)
        for checkpointing in (False, True)
        for name in ("copies", "spread", "sharded", "sharded, spread")
    ]
    assert [way.name for way in ways(run, 1)] == ["copies", "copies"]
    assert [way.name for way in ways(run, 3)] == ["copies", "sharded"] * 2


def test_low_rank_additions_are_not_sharded() -> None:
    run = changed(resolved_config("adaptive"), training={"lora_rank": 8})
    assert [way.name for way in ways(run, 8)] == ["copies", "spread"] * 2


class TestLargestParts:
    def test_samples(self) -> None:
        """25 samples on 8 processes are four for the first."""
        run = changed(resolved_config(), training={"batch_size": 25})
        assert largest_parts(run, {"encoder": 10}, 8) == [Volume.of({"encoder": [10] * 4})]
        assert largest_parts(run, {"encoder": 10}, 1) == [Volume.of({"encoder": [10] * 25})]
        assert largest_parts(run, {"encoder": 10}, 32) == [Volume.of({"encoder": [10]})]

    def test_positions(self) -> None:
        """100 positions hold three samples of 30 with targets of 20, or five of 20."""
        run = changed(resolved_config(), training={"batch_size": None, "batch_tokens": 100})
        lengths = {"encoder": 30, "decoder": 20}
        long = Volume.of({"encoder": [30] * 3, "decoder": [20] * 3})
        short = Volume.of({"encoder": [20] * 5, "decoder": [20] * 5})
        assert largest_parts(run, lengths, 1) == [long, short]
        assert largest_parts(run, lengths, 2) == [long, short]
        whole = changed(run, training={"batch_tokens_of": "batch"})
        assert [part.sequences for part in largest_parts(whole, lengths, 2)] == [2, 3]


# --- against training --------------------------------------------------------------------------------

SIZES: dict[str, dict[str, object]] = {
    "sst2": {
        "model.config.hidden_size": 64,
        "model.config.num_attention_heads": 4,
        "model.config.intermediate_size": 256,
    },
    "squad": {
        "model.config.hidden_size": 64,
        "model.config.num_attention_heads": 4,
        "model.config.intermediate_size": 256,
    },
    "wikitext": {"model.config.n_embd": 64, "model.config.n_head": 4, "model.config.n_inner": 256},
    "cnn_dailymail": {
        "model.config.d_model": 64,
        "model.config.encoder_ffn_dim": 256,
        "model.config.decoder_ffn_dim": 192,
    },
    "wmt19": {
        "model.config.d_model": 64,
        "model.config.encoder_ffn_dim": 256,
        "model.config.decoder_ffn_dim": 192,
    },
}
DROPOUT = {
    "sst2": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "squad": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "wikitext": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "cnn_dailymail": ("dropout", "attention_dropout"),
    "wmt19": ("dropout", "attention_dropout"),
}
FAMILIES: dict[str, dict[str, OptionValue]] = {
    family: {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        **own,
    }
    for family, own in {"llama": {}, "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2}}.items()
}
LENGTHS = {"encoder": 48, "decoder": 32}


def small(
    task: str,
    *,
    gate: str = "top-2",
    rate: float = 0.0,
    family: str | None = None,
    dtype: Literal["fp32", "bf16"] = "fp32",
    **settings: object,
) -> RunConfig:
    """A small run; its model is 64 wide, so that rows are much larger than indices."""
    overrides = SMALL_BY_TASK[task] | SIZES[task]
    overrides |= {f"model.config.{name}": rate for name in DROPOUT[task]}
    overrides |= {"training.precision": "fp32"} | settings
    if gate == "dense":
        overrides = {key: value for key, value in overrides.items() if not key.startswith("experts.")}
    run = resolved(gate, task=task, overrides=overrides)[0]
    # Weights of a checkpoint, which there is none of here.
    run = replace(run, model=replace(run.model, dtype=dtype))
    if family is None:
        return run
    model = replace(run.model, backbone=family, config=tuple(sorted(FAMILIES[family].items())))
    return replace(run, model=model)


def compared(run: RunConfig, measured: list[Measured], sequences: int, lengths: Mapping[str, int]) -> None:
    """Weights, gradients and moments are as planned; what is kept is within a tenth."""
    plan = blueprint(run, planned_options(run, None))
    stacks = {ffn.stack for ffn in plan.architecture.ffns}
    one = ForwardPass(
        architecture=plan.architecture,
        volume=Volume.of({stack: [lengths[stack]] * sequences for stack in stacks}),
        experts=0 if run.gate == "dense" else 2,
        numerics=Numerics(device="cpu", bf16=run.training.precision == "bf16"),
        parallel=spread_over(run, len(measured)),
        frozen=frozen_weights(run),
    ).activations()
    way = Way.of(run, len(measured))
    held = memory_of(plan, one, way)
    for process in measured:
        assert process.weights == held.weights
        assert process.gradients + process.buckets == held.gradients
        assert process.optimizer == held.optimizer
    # Processes get different numbers of rows.
    kept = sum(process.kept for process in measured) / len(measured)
    expected = one.kept(checkpointing=way.checkpointing)
    print(f"{run.task}: {len(measured)} processes, {held}; kept {expected:.4g} planned, {kept:.4g} measured")
    assert kept == pytest.approx(expected, rel=0.1)


def of_stacks(task: str) -> dict[str, int]:
    stacks = backbones.load(resolved_config(task=task).model.backbone).STACKS
    return {stack: LENGTHS[stack] for stack in stacks}


LOW_RANK: dict[str, Any] = {"family": "mixtral", "training.lora_rank": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("sst2", {}),
    "bert, two heads of a span": ("squad", {}),
    "bert, dense": ("sst2", {"gate": "dense"}),
    "bert, dropout": ("sst2", {"rate": 0.1}),
    "bert, bf16": ("squad", {"training.precision": "bf16", "rate": 0.1}),
    "gpt2": ("wikitext", {}),
    "gpt2, dropout": ("wikitext", {"rate": 0.1}),
    "gpt2, bf16": ("wikitext", {"training.precision": "bf16"}),
    "gpt2, checkpointing": ("wikitext", {"training.gradient_checkpointing": True}),
    "llama": ("wikitext", {"family": "llama"}),
    "llama, dense": ("wikitext", {"family": "llama", "gate": "dense"}),
    "llama, bf16": ("wikitext", {"family": "llama", "training.precision": "bf16"}),
    "mixtral": ("wikitext", {"family": "mixtral"}),
    "mixtral, checkpointing": ("wikitext", {"family": "mixtral", "training.gradient_checkpointing": True}),
    "mixtral, low-rank": ("wikitext", LOW_RANK),
    "mixtral, low-rank, checkpointing": (
        "wikitext",
        {**LOW_RANK, "training.gradient_checkpointing": True},
    ),
    "mixtral, low-rank, products in bf16": ("wikitext", {**LOW_RANK, "training.precision": "bf16"}),
    "mixtral, low-rank, weights in bf16": ("wikitext", {**LOW_RANK, "dtype": "bf16"}),
    "mixtral, low-rank, all in bf16": (
        "wikitext",
        {**LOW_RANK, "dtype": "bf16", "training.precision": "bf16"},
    ),
    "mixtral, low-rank, bf16, checkpointing": (
        "wikitext",
        {**LOW_RANK, "dtype": "bf16", "training.precision": "bf16", "training.gradient_checkpointing": True},
    ),
    "gpt2, low-rank": ("wikitext", {"training.lora_rank": 2}),
    "bert, low-rank": ("sst2", {"training.lora_rank": 2}),
    "bart": ("cnn_dailymail", {}),
    "bart, dropout": ("cnn_dailymail", {"rate": 0.1}),
    "bart, bf16": ("cnn_dailymail", {"training.precision": "bf16"}),
    "bart, checkpointing": ("cnn_dailymail", {"training.gradient_checkpointing": True}),
    "fsmt": ("wmt19", {}),
    "fsmt, dropout": ("wmt19", {"rate": 0.1}),
    "fsmt, bf16": ("wmt19", {"training.precision": "bf16"}),
}


@pytest.mark.parametrize("case", CASES)
def test_one_process_holds_what_was_planned(case: str) -> None:
    task, options = CASES[case]
    run = small(task, **options)
    lengths = of_stacks(task)
    compared(run, [measure(run, 3, lengths)], 3, lengths)


@pytest.mark.parametrize(
    ("processes", "settings"),
    [
        (4, {}),
        (2, {"experts.parallel": 1}),
        (4, {**LOW_RANK, "dtype": "bf16", "training.precision": "bf16"}),
        (2, {**LOW_RANK, "experts.parallel": 1}),
    ],
)
def test_processes_hold_what_was_planned(processes: int, settings: dict[str, Any]) -> None:
    run = small("wikitext", **settings)
    lengths = of_stacks("wikitext")
    compared(run, launch(measure, processes, run, 3, lengths), 3, lengths)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "settings", "sequences", "length"),
    [
        ("sst2", {"model.config.num_hidden_layers": 2}, 6, 128),
        ("wikitext", {"model.config.n_layer": 1}, 1, 512),
        ("wikitext", {"model.config.n_layer": 2, "training.gradient_checkpointing": True}, 2, 256),
    ],
)
def test_models_of_the_paper_with_fewer_layers(
    task: str, settings: dict[str, object], sequences: int, length: int
) -> None:
    """BERT-Base and GPT-2-medium with 16 experts, spread over four processes; minutes and 12 GB."""
    overrides = {"training.precision": "fp32", "experts.parallel": 4} | settings
    run, _ = resolved("top-2", task=task, scale="paper", overrides=overrides)
    (stack,) = backbones.load(run.model.backbone).STACKS
    measured = launch(measure, 4, run, sequences, {stack: length})
    compared(run, measured, sequences, {stack: length})
