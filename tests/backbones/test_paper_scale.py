"""The models of the paper at full size: counted on the meta device, trained for one step if asked to.

`pytest -m slow tests/backbones/test_paper_scale.py` needs about 8 GB of memory.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import gradient, moe_layers, router_weight
from torch import nn

from repro import plugins
from repro.config import ExpertsConfig
from repro.machine import peak_memory_bytes
from repro.moe.backbones import base as backbones
from repro.moe.convert import convert
from repro.moe.flops import Architecture
from repro.moe.gates import base as gates
from repro.moe.routing import record_routing
from repro.moe.settings import MoESettings
from repro.moe.volume import Volume

META = torch.device("meta")
SEQ2SEQ: dict[str, Any] = {
    "d_model": 1024,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "max_position_embeddings": 1024,
}
PAPER: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": (
        "sequence-classification",
        {
            "vocab_size": 30_522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "max_position_embeddings": 512,
            "num_labels": 2,
        },
    ),
    "gpt2": (
        "causal-language-model",
        {"vocab_size": 50_257, "n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024},
    ),
    "bart": (
        "sequence-to-sequence",
        {
            "vocab_size": 50_265,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
            **SEQ2SEQ,
        },
    ),
    "fsmt": (
        "sequence-to-sequence",
        {
            "src_vocab_size": 42_024,
            "tgt_vocab_size": 42_024,
            "langs": ["de", "en"],
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_ffn_dim": 8192,
            "decoder_ffn_dim": 4096,
            **SEQ2SEQ,
        },
    ),
}
FFNS = {
    "bert": [3072] * 12,
    "gpt2": [4096] * 24,
    "bart": [4096] * 24,
    "fsmt": [8192] * 6 + [4096] * 6,
}
"""Hidden widths (Table 2 of the paper and its checkpoints)."""
LENGTHS = {
    "bert": {"encoder": [128]},
    "gpt2": {"decoder": [1024]},
    "bart": {"encoder": [1024], "decoder": [128]},
    "fsmt": {"encoder": [40], "decoder": [40]},
}


def model_and_settings(name: str, gate: str, **experts: Any) -> tuple[Any, MoESettings]:
    head, sizes = PAPER[name]
    backbone = backbones.load(name)
    file, fixed = plugins.resolve("gates", gate)
    settings = MoESettings(
        backbone=name,
        head=head,
        gate=file,
        gate_options=gates.load(file).Config(**fixed),
        experts=ExpertsConfig(**{"count": 16} | experts),
    )
    return backbone.HEADS[head](backbone.CONFIG(**sizes)), settings


def on_meta(name: str, gate: str, **experts: Any) -> tuple[Any, Architecture]:
    with META:
        model, settings = model_and_settings(name, gate, **experts)
        return model, convert(model, settings, META)


def count(model: nn.Module) -> int:
    """Parameters; a tied one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


# --- parameters ---------------------------------------------------------------------------------


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def attention(width: int) -> int:
    """Four projections and the norm behind (or before) them."""
    return 4 * linear(width, width) + 2 * width


def ffn(width: int, hidden: int) -> int:
    return linear(width, hidden) + linear(hidden, width)


def bert_rest() -> int:
    # Words, 512 positions, 2 segments, norm; layers; pooler and classifier.
    embeddings = (30_522 + 512 + 2) * 768 + 2 * 768
    layers = 12 * (attention(768) + 2 * 768)
    return embeddings + layers + linear(768, 768) + linear(768, 2)


def gpt2_rest() -> int:
    # The head is the word table.
    return (50_257 + 1024) * 1024 + 24 * (attention(1024) + 2 * 1024) + 2 * 1024


def bart_rest() -> int:
    # One word table for everything; 1024 + 2 learned positions and a norm in each stack.
    embeddings = 50_265 * 1024 + 2 * ((1024 + 2) * 1024 + 2 * 1024)
    return embeddings + 12 * (attention(1024) + 2 * 1024) + 12 * (2 * attention(1024) + 2 * 1024)


def fsmt_rest() -> int:
    # Words of the source, words of the target, the output matrix; sinusoidal positions, which
    # transformers keeps as a table of 1024 + padding index + 1 rows in each stack.
    embeddings = 3 * 42_024 * 1024 + 2 * (1024 + 1 + 1) * 1024
    return embeddings + 6 * (attention(1024) + 2 * 1024) + 6 * (2 * attention(1024) + 2 * 1024)


REST: dict[str, Callable[[], int]] = {
    "bert": bert_rest,
    "gpt2": gpt2_rest,
    "bart": bart_rest,
    "fsmt": fsmt_rest,
}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_parameters_at_paper_scale(name: str) -> None:
    width = 768 if name == "bert" else 1024
    dense, _ = on_meta(name, "dense")
    assert count(dense) == REST[name]() + sum(ffn(width, hidden) for hidden in FFNS[name])
    # 16 experts and a 16 x D router without bias in each layer; the same for every gate.
    expected = REST[name]() + sum(16 * ffn(width, hidden) + 16 * width for hidden in FFNS[name])
    for gate in ("top-2", "adaptive"):
        model, architecture = on_meta(name, gate)
        assert count(model) == expected
        assert all(parameter.device == META for parameter in model.parameters())
        assert [one.d_hidden for one in architecture.moe] == FFNS[name]
    for gate in ("dense", "top-2"):
        one_moved, _ = on_meta(name, gate, every=len(FFNS[name]))
        extra = 15 * ffn(width, FFNS[name][-1]) + 16 * width
        assert count(one_moved) == count(dense) + (gate != "dense") * extra


# --- FLOPs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PAPER))
def test_flops_at_paper_scale(name: str) -> None:
    volume = Volume.of(LENGTHS[name])
    _, architecture = on_meta(name, "adaptive")
    dense = 2 * architecture.dense_macs(volume) / volume.tokens
    one, adaptive, two = (
        2 * architecture.analytic_macs(volume, experts) / volume.tokens for experts in (1.0, 1.1, 2.0)
    )
    assert 0 < dense < one < adaptive < two
    # Everything but the experts is the same, so the middle lies a tenth of the way.
    assert adaptive - one == pytest.approx(0.1 * (two - one), rel=1e-6)
    # One expert is a dense FFN and a router of D x 16: 8 MACs in a thousand where F = 2 D at most.
    router = (one - dense) / (two - one)
    assert router == pytest.approx(16 / (2 * sum(FFNS[name]) / len(FFNS[name])), rel=0.5)
    # Forward FLOPs per token are at least two per weight of the layers that the token passes by.
    width = 768 if name == "bert" else 1024
    weights = sum(2 * width * hidden for hidden in FFNS[name]) / len(architecture.ffns)
    assert two - one >= 2 * weights


def test_upcycling_on_the_meta_device() -> None:
    # The scale of the copies is measured with random numbers, which this device has none of.
    with META:
        model, settings = model_and_settings("bert", "top-2", init="upcycle")
    convert(model, settings, META)
    assert all(parameter.device == META for parameter in model.parameters())


# --- one step -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PAPER))
def test_one_training_step_at_paper_scale(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    torch.manual_seed(0)
    model, settings = model_and_settings(name, "top-2", every=len(FFNS[name]), count=2)
    convert(model, settings, torch.device("cpu"))
    built = time.perf_counter()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(5, 1000, (2, 8))
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    batch = {"input_ids": ids, "attention_mask": mask}
    if name == "bert":
        batch["labels"] = torch.tensor([0, 1])
    elif name == "gpt2":
        batch["labels"] = ids.masked_fill(mask == 0, -100)
    else:
        batch |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        batch["labels"] = ids.masked_fill(mask == 0, -100)
    with record_routing(model) as tape:
        outputs = model(**batch)
    loss = outputs.loss + tape.loss()
    loss.backward()
    (layer,) = moe_layers(model)
    router, before = router_weight(layer), router_weight(layer).detach().clone()
    assert gradient(router).abs().max() > 0
    assert gradient(layer.experts.w2).abs().max() > 0
    optimizer.step()
    assert bool(loss.isfinite())
    assert not torch.equal(router, before)
    assert bool(router.isfinite().all())
    (entry,) = tape.entries
    assert entry.count_BS().sum(1).tolist() == [16, 10]
    done = time.perf_counter()
    parameters = count(model)
    with capsys.disabled():
        print(
            f"\n{name}: {parameters / 1e6:.0f}M parameters, built in {built - started:.1f} s,"
            f" step {done - built:.1f} s, process peak {peak_memory_bytes(torch.device('cpu')) / 1e9:.1f} GB"
        )
    del model, optimizer, outputs, loss, layer, tape, entry, router
    gc.collect()
