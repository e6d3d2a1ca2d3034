"""Mistral and dense Qwen: what differs from Llama is their attention; upcycling, counts, saving."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Tiny, moe_layers, numbers
from torch.utils.flop_counter import FlopCounterMode

from repro.moe import pretrained
from repro.moe.backbones import llama
from repro.moe.flops import Work
from repro.moe.routing import record_routing

CPU = torch.device("cpu")
WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 3},
    "qwen2": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
}
"""Attention with a window, in the second layer at least: masks of real tokens are the same."""


def test_one_upcycled_expert_is_the_original_model(relative: Tiny) -> None:
    batch = relative.batch()
    for sizes in ({}, WINDOWS[relative.backbone]):
        (expected,) = relative.outputs(relative.build(**sizes), batch)
        model = relative.converted("top-1", sizes=sizes, experts={"count": 1, "init": "upcycle"})
        assert len(moe_layers(model)) == 2
        assert expected.std() > 0.1
        torch.testing.assert_close(relative.outputs(model, batch), [expected], rtol=0, atol=2e-6)


@pytest.mark.parametrize("gate", ["adaptive", "dense"])
def test_executed_flops_are_those_of_torch(relative: Tiny, gate: str) -> None:
    model = relative.build(attn_implementation="eager", **WINDOWS[relative.backbone])
    architecture = relative.convert(model, gate)
    batch = relative.batch()
    with FlopCounterMode(display=False) as counter, record_routing(model) as tape, torch.no_grad():
        model(**batch)
    work = Work.of(tape, relative.masks(batch))
    executed = numbers(work.flops(architecture))["per_token_executed"] * work.real.tokens
    assert executed == pytest.approx(counter.get_total_flops(), rel=1e-9)


@pytest.mark.parametrize("gate", ["adaptive", "dense"])
def test_a_loaded_model_gives_the_same_output_exactly(tmp_path: Path, relative: Tiny, gate: str) -> None:
    model, batch = relative.converted(gate, sizes=WINDOWS[relative.backbone]), relative.batch()
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU)
    assert torch.equal(relative.outputs(loaded, batch)[0], relative.outputs(model, batch)[0])


def test_networks_with_biases() -> None:
    """Llama may have them: those of gate and up are joined as their weights are."""
    tiny = Tiny("llama", "causal-language-model")
    sizes = {"mlp_bias": True}
    model, batch = tiny.build(**sizes), tiny.batch()
    site = next(iter(llama.ffn_sites(model)))
    assert [tuple(part.shape) for part in site.ffn.tensors] == [(48, 16), (48,), (16, 24), (16,)]
    expected = tiny.outputs(model, batch)
    converted = tiny.converted("top-1", sizes=sizes, experts={"count": 1, "init": "upcycle"})
    torch.testing.assert_close(tiny.outputs(converted, batch), expected, rtol=0, atol=2e-6)
