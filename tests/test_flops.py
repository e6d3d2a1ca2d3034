"""FLOPs of a BERT of two tiny layers against torch's own counter."""

from typing import Any

import pytest
import torch
import transformers
from tiny_models import BACKENDS, numbers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from volumes import encoded, mask_of

from repro import plugins
from repro.config import ExpertsConfig
from repro.moe.backbones import bert
from repro.moe.convert import convert
from repro.moe.flops import Architecture, Work
from repro.moe.gates import base as gates
from repro.moe.routing import RoutingTape, record_routing
from repro.moe.settings import MoESettings
from repro.moe.totals import RoutingTotals

CPU = torch.device("cpu")
HEADS = sorted(bert.HEADS)
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
    settings = MoESettings(
        backbone="bert",
        head=head,
        gate=file,
        gate_options=gates.load(file).Config(**fixed),
        experts=ExpertsConfig(count=5, backend=backend, every=every),
    )
    return model, convert(model, settings, CPU)


def counted(model: Any, lengths: list[int]) -> tuple[int, RoutingTape, Work]:
    """Run one padded batch: FLOPs by torch's counter, the routing, and our own accounts of the work."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (len(lengths), max(lengths)), generator=generator)
    masks = mask_of(*lengths)
    with FlopCounterMode(display=False) as counter, record_routing(model) as tape, torch.no_grad():
        model(ids, attention_mask=masks["encoder"])
    work = Work.of(tape, masks)
    return counter.get_total_flops(), tape, work


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gate", ["top-1", "top-2", "top-3", "adaptive"])
def test_analytic_routed_and_executed_flops_are_those_of_torch(gate: str, backend: str, head: str) -> None:
    model, architecture = converted(gate, head, backend)
    torch_flops, tape, work = counted(model, [9] * 6)
    mean = RoutingTotals.of(tape).summary().mean_experts
    assert isinstance(mean, float)
    if gate == "adaptive":
        assert 1 < mean < 2
    else:
        assert mean == EXPERTS[gate]
    flops = numbers(work.flops(architecture))
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
    flops = numbers(work.flops(architecture))
    assert flops["per_token"] * 54 == pytest.approx(torch_flops, rel=EXACT)
    assert flops["per_token_executed"] == flops["per_token"] == flops["dense_per_token"]


@pytest.mark.parametrize("head", HEADS)
def test_dense_part_of_a_converted_model_is_that_of_the_dense_one(head: str) -> None:
    torch_flops, _, _ = counted(converted("dense", head)[0], [9] * 6)
    model, architecture = converted("adaptive", head)
    _, _, work = counted(model, [9] * 6)
    assert numbers(work.flops(architecture))["dense_per_token"] * 54 == pytest.approx(torch_flops, rel=EXACT)


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
    flops = numbers(work.flops(architecture))
    assert flops["per_token_executed"] * sum(lengths) == pytest.approx(torch_flops, rel=EXACT)
    assert flops["per_token"] < flops["per_token_executed"]


@pytest.mark.parametrize("gate", [name for name in plugins.names("gates") if name != "dense"])
def test_executed_flops_of_every_gate_are_those_of_torch(gate: str) -> None:
    model, architecture = converted(gate, "sequence-classification")
    lengths = [9, 5, 3, 2]
    torch_flops, tape, work = counted(model, lengths)
    # The cosines of the experts of `top-any`, 5 * 5 * 16 in two layers, belong to its loss.
    # The weights that `attention-budget` reads are those of attention, computed once more beside the fused
    # kernel, which the counter does not know on the CPU: only one product of two is left.
    uncounted = {"top_any": 2 * 2 * 5 * 5 * 16, "attention_budget": -2 * 2 * 4 * 9 * 9 * 16}
    executed = numbers(work.flops(architecture))["per_token_executed"]
    assert executed * sum(lengths) + uncounted.get(gate, 0) == pytest.approx(torch_flops, rel=EXACT)
    assert sum(int(entry.routing.load_E.sum()) for entry in tape.entries) > 0


def test_costs_of_gates_by_hand() -> None:
    # D = 16, 5 experts: a linear router; 16 null experts more; none; a threshold more; four cheap
    # experts more, of which two have a mixture of 2 D and a vector of D.
    expected = {"top_k": 80, "adamoe": 336, "hash": 0, "learned_threshold": 96, "zero_compute": 240}
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
    mean = RoutingTotals.of(tape).summary().mean_experts or 0.0
    analytic = 2 * architecture.analytic_macs(encoded(9, 9, 9, 9, 9, 9), mean)
    assert analytic == pytest.approx(fused, rel=EXACT)
