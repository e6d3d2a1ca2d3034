"""FLOPs against torch's own counter and against examples worked on paper; time and memory."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from repro import moe, plugins
from repro._checkpoints import TrainingState
from repro._result import _stolen_share
from repro.backbones import bert
from repro.config import ExpertsConfig
from repro.cost import Architecture, FFNSize, Stopwatch, Work, peak_memory_bytes, stolen_seconds
from repro.experts import grouped, loop, padded
from repro.routing import LayerRouting, Routing, RoutingTape, RoutingTotals, record_routing
from repro.volume import Volume

CPU = torch.device("cpu")
HEADS = sorted(bert.HEADS)
BACKENDS = [name for name in plugins.names("experts") if plugins.load("experts", name).available(CPU) is None]
EXACT = 1e-9
"""The design asks for 0.1 %; the counts are whole numbers, so only the rounding of means is left."""
EXPERTS = {"top-1": 1.0, "top-2": 2.0, "top-3": 3.0}


def converted(gate: str, head: str, backend: str = "auto", every: int = 1) -> tuple[Any, Architecture]:
    """A BERT of two tiny layers with random weights, and its sizes; attention in plain products."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=32,
        initializer_range=0.2,
        num_labels=2 if head == "question-answering" else 3,
        attn_implementation="eager",
    )
    model = bert.HEADS[head](config).eval()
    file, fixed = plugins.resolve("gates", gate)
    settings = moe.MoESettings(
        backbone="bert",
        head=head,
        gate=file,
        gate_options=plugins.load("gates", file).Config(**fixed),
        experts=ExpertsConfig(count=5, backend=backend, every=every),
    )
    return model, moe.convert(model, settings, CPU)


def encoded(*lengths: int) -> Volume:
    """The volume of sequences of an encoder."""
    return Volume.of({"encoder": lengths})


def mask_of(*lengths: int) -> dict[str, torch.Tensor]:
    """Masks of a padded batch of an encoder."""
    return {"encoder": (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()}


def counted(model: Any, lengths: list[int]) -> tuple[int, RoutingTape, Work]:
    """Run one padded batch: FLOPs by torch's counter, the routing, and our own accounts of the work."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (len(lengths), max(lengths)), generator=generator)
    masks = mask_of(*lengths)
    with FlopCounterMode(display=False) as counter, record_routing(model) as tape, torch.no_grad():
        model(ids, attention_mask=masks["encoder"])
    work = Work.of(tape, masks)
    return counter.get_total_flops(), tape, work


# --- against torch.utils.flop_counter -----------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gate", ["top-1", "top-2", "top-3", "adaptive"])
def test_analytic_routed_and_executed_flops_are_those_of_torch(gate: str, backend: str, head: str) -> None:
    model, architecture = converted(gate, head, backend)
    torch_flops, tape, work = counted(model, [9] * 6)
    mean = RoutingTotals.of(tape).summary()["mean_experts"]
    assert isinstance(mean, float)
    if gate == "adaptive":
        assert 1 < mean < 2
    else:
        assert mean == EXPERTS[gate]
    flops = work.flops(architecture)
    assert flops["per_token_executed"] * 54 == pytest.approx(torch_flops, rel=EXACT)
    analytic = 2 * architecture.analytic_macs(encoded(9, 9, 9, 9, 9, 9), mean)
    assert flops["per_token"] * 54 == pytest.approx(analytic, rel=EXACT)
    assert flops["macs_per_token"] * 2 == pytest.approx(flops["per_token"], rel=EXACT)
    if backend == "padded":
        assert flops["per_token"] < flops["per_token_executed"]
    else:  # computes the assignments alone, and nothing here is padded
        assert analytic == pytest.approx(torch_flops, rel=EXACT)


@pytest.mark.parametrize("head", HEADS)
def test_dense_flops_are_those_of_torch(head: str) -> None:
    model, architecture = converted("dense", head)
    torch_flops, _, work = counted(model, [9] * 6)
    volume = encoded(9, 9, 9, 9, 9, 9)
    assert 2 * architecture.dense_macs(volume) == pytest.approx(torch_flops, rel=EXACT)
    assert architecture.analytic_macs(volume, 2.0) == architecture.dense_macs(volume)
    flops = work.flops(architecture)
    assert flops["per_token"] * 54 == pytest.approx(torch_flops, rel=EXACT)
    assert flops["per_token_executed"] == flops["per_token"] == flops["dense_per_token"]


@pytest.mark.parametrize("head", HEADS)
def test_dense_part_of_a_converted_model_is_that_of_the_dense_one(head: str) -> None:
    torch_flops, _, _ = counted(converted("dense", head)[0], [9] * 6)
    model, architecture = converted("adaptive", head)
    _, _, work = counted(model, [9] * 6)
    assert work.flops(architecture)["dense_per_token"] * 54 == pytest.approx(torch_flops, rel=EXACT)


@pytest.mark.parametrize("head", HEADS)
def test_a_model_converted_in_part(head: str) -> None:
    model, architecture = converted("top-2", head, every=2)
    torch_flops, _, _ = counted(model, [9] * 6)
    assert len(architecture.moe) == 1
    assert 2 * architecture.analytic_macs(encoded(9, 9, 9, 9, 9, 9), 2.0) == pytest.approx(
        torch_flops, rel=EXACT
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gate", ["dense", "top-2", "adaptive"])
def test_executed_flops_count_the_padding_that_torch_computes(gate: str, backend: str, head: str) -> None:
    model, architecture = converted(gate, head, backend)
    lengths = [9, 5, 3, 2]
    torch_flops, _, work = counted(model, lengths)
    flops = work.flops(architecture)
    assert flops["per_token_executed"] * sum(lengths) == pytest.approx(torch_flops, rel=EXACT)
    assert flops["per_token"] < flops["per_token_executed"]


@pytest.mark.parametrize("gate", [name for name in plugins.names("gates") if name != "dense"])
def test_executed_flops_of_every_gate_are_those_of_torch(gate: str) -> None:
    model, architecture = converted(gate, "sequence-classification")
    lengths = [9, 5, 3, 2]
    torch_flops, tape, work = counted(model, lengths)
    # The cosines of the experts of `top-any`, 5 * 5 * 16 in two layers, belong to its loss.
    of_losses = 2 * 2 * 5 * 5 * 16 if gate == "top_any" else 0
    executed = work.flops(architecture)["per_token_executed"]
    assert executed * sum(lengths) + of_losses == pytest.approx(torch_flops, rel=EXACT)
    assert sum(int(entry.routing.load_E.sum()) for entry in tape.entries) > 0


def test_costs_of_gates_by_hand() -> None:
    # D = 16, 5 experts: a linear router; 16 null experts more; none; a threshold more; four cheap
    # experts more, of which two have a mixture of 2 D and a vector of D.
    expected = {"top_k": None, "adamoe": 336, "hash": 0, "learned_threshold": 96, "zero_compute": 240}
    for gate, macs in expected.items():
        _, architecture = converted(gate, "sequence-classification")
        assert [ffn.gate_macs for ffn in architecture.ffns] == [macs] * 2
    _, architecture = converted("hash", "sequence-classification")
    routed = architecture.moe_macs(encoded(9), [9.0, 9.0], [9, 9])
    assert routed == architecture.dense_macs(encoded(9))


@pytest.mark.parametrize("gate", ["dense", "adaptive"])
def test_the_attention_implementation_does_not_matter(gate: str) -> None:
    model, architecture = converted(gate, "sequence-classification")
    eager, tape, _ = counted(model, [9] * 6)
    model.set_attn_implementation("sdpa")
    # torch's counter knows fused attention on GPUs only; its MATH form is made of countable products.
    with sdpa_kernel(SDPBackend.MATH):
        fused, _, _ = counted(model, [9] * 6)
    assert fused == eager
    mean = RoutingTotals.of(tape).summary()["mean_experts"] or 0.0
    analytic = 2 * architecture.analytic_macs(encoded(9, 9, 9, 9, 9, 9), mean)
    assert analytic == pytest.approx(fused, rel=EXACT)


# --- worked on paper ----------------------------------------------------------------------------


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
                converted=layer < moe_layers,
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
    found = bert.rest_macs(round_bert(num_labels=4), "sequence-classification", encoded(1, 2, 3))
    assert found == 5_780


def fp32_rows(backend: Any) -> Any:
    return partial(backend.rows_computed, device=torch.device("cpu"), dtype=torch.float32)


def hand_made_tape(rows_computed: Any) -> RoutingTape:
    """Two sequences of 3 and 1 tokens, padded to 3: experts 0, 0, 1 and 2 of four."""
    selected_TE = torch.zeros(6, 4, dtype=torch.bool)
    for token, expert in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 3)]:  # tokens 4 and 5 are padding
        selected_TE[token, expert] = True
    mask_T = torch.tensor([True, True, True, True, False, False])
    probs_TE = torch.full((6, 4), 0.25)
    routing = Routing.from_selection(selected_TE, probs_TE, probs_TE, mask_T, torch.tensor(0.0))
    return RoutingTape([LayerRouting(0, routing, (2, 3), False, rows_computed)])


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
    work = Work.of(hand_made_tape(fp32_rows(padded)), mask_of(3, 1))
    assert work == Work(
        real=Volume(sequences=2, encoder=4, encoder_pairs=10),
        padded=Volume(sequences=2, encoder=6, encoder_pairs=18),
        rows_routed_L=[4],
        rows_computed_L=[8],
        routed_tokens_L=[4],
        router_rows_L=[6],
    )
    assert work.flops(architecture) == {
        "per_token": 2 * 624,
        "per_token_executed": 2 * 1056,
        "macs_per_token": 624,
        "dense_per_token": 2 * 592,
    }
    # `grouped` computes the 4 assignments only: 4,224 - 4 * 256 = 3,200, per token 800.
    work = Work.of(hand_made_tape(fp32_rows(grouped)), mask_of(3, 1))
    assert work.flops(architecture)["per_token_executed"] == 2 * 800
    # Two passes have twice the work and the same FLOPs per token.
    twice = work + work
    assert (twice.real.tokens, twice.rows_routed_L, twice.router_rows_L) == (8, [8], [12])
    assert twice.flops(architecture) == work.flops(architecture)


def test_rows_that_back_ends_compute() -> None:
    for load, real, slots in [([2, 1, 1, 0], 4, 8), ([3, 3], 6, 6), ([0, 0, 0], 0, 0), ([5], 5, 5)]:
        assert fp32_rows(grouped)(load) == fp32_rows(loop)(load) == real
        assert fp32_rows(padded)(load) == slots


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
    assert work.flops(architecture) == {
        "per_token": 2 * 592,
        "per_token_executed": 2 * 880,
        "macs_per_token": 592,
        "dense_per_token": 2 * 592,
    }


def test_nothing_processed_has_no_flops_per_token() -> None:
    architecture = architecture_of("question-answering", moe_layers=2, experts=16)
    assert Work().flops(architecture) == {
        "per_token": None,
        "per_token_executed": None,
        "macs_per_token": None,
        "dense_per_token": None,
    }


def test_any_backbone_can_be_counted() -> None:
    @dataclass(frozen=True)
    class Round:
        def rest_macs(self, config: Any, head: str, volume: Volume) -> int:
            return 100 * volume.tokens + volume.encoder_pairs + volume.cross_pairs

    def ffn(stack: str, hidden: int, converted: bool) -> FFNSize:
        return FFNSize(stack=stack, d_model=5, d_hidden=hidden, converted=converted)

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


# --- time and memory ----------------------------------------------------------------------------


def test_stopwatch_measures_the_last_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("repro.cost.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = Stopwatch(CPU)
    assert watch.seconds == 0.0
    with watch:
        pass
    assert watch.seconds == 2.5
    with watch:
        pass
    assert watch.seconds == 1.0  # the trainer adds the stretches up


def test_stopwatch_measures_seconds() -> None:
    watch = Stopwatch(CPU)
    with watch:
        time.sleep(0.02)
    assert 0.02 <= watch.seconds < 2


def test_stopwatch_tells_what_was_stolen(monkeypatch: pytest.MonkeyPatch) -> None:
    stolen = iter([5.0, 5.25, 7.0, None, None, 8.0])
    monkeypatch.setattr("repro.cost.stolen_seconds", lambda: next(stolen))
    watch = Stopwatch(CPU)
    found = []
    for _ in range(3):
        with watch:
            pass
        found.append(watch.stolen_seconds)
    assert found == [0.25, None, None]


def test_stolen_time_is_read_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "cpu  5625918 229125 227545 1642602 7116 0 4221 381743 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"
    monkeypatch.setattr("repro.cost.os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    monkeypatch.setattr("repro.cost.Path", lambda path: {"/proc/stat": File(line)}[path])
    assert stolen_seconds() == 3817.43
    monkeypatch.setattr("repro.cost.Path", lambda path: File("cpu  1 2 3"))
    assert stolen_seconds() is None
    monkeypatch.setattr("repro.cost.Path", lambda path: File(None))
    assert stolen_seconds() is None


@dataclass
class File:
    """A file with this content; None if it cannot be read."""

    content: str | None

    def read_text(self, encoding: str) -> str:
        if self.content is None:
            raise FileNotFoundError
        return self.content


def test_the_stolen_share_of_a_run() -> None:
    state, watch = TrainingState(), Stopwatch(CPU)
    for watch.seconds, watch.stolen_seconds in ((1.0, 0.5), (3.0, 0.0)):
        state.add_time(watch)
    assert (state.train_seconds, state.step_seconds, state.stolen_seconds) == (4.0, [1.0, 3.0], 0.5)
    assert _stolen_share(state) == 0.5 / (4.0 * os.cpu_count())
    watch.stolen_seconds = None
    state.add_time(watch)
    assert _stolen_share(state) is None


def test_stopwatch_stops_when_the_stretch_fails() -> None:
    watch = Stopwatch(CPU)
    with pytest.raises(RuntimeError, match="stop"), watch:
        raise RuntimeError("stop")
    assert watch.seconds > 0


def test_peak_memory_is_in_bytes_and_never_falls_by_itself() -> None:
    before = peak_memory_bytes(CPU)
    # A process with torch in it needs tens of megabytes, and less than a terabyte.
    assert 20e6 < before < 1e12
    touched = torch.ones(4_000_000)
    assert peak_memory_bytes(CPU) >= max(before, touched.nbytes)


def test_freed_memory_that_was_kept_can_be_given_back() -> None:
    # In a process of its own: how memory is kept is a setting of the whole process.
    program = """
import psutil, torch
from repro.cost import give_back_freed_memory, reuse_freed_memory
reuse_freed_memory()
process = psutil.Process()
before = process.memory_info().rss
blocks = [torch.ones(5_000_000) for _ in range(20)]
last = torch.ones(1000)
del blocks
give_back_freed_memory()
print(process.memory_info().rss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6  # of 400 MB
