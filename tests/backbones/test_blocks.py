"""Models with MoE blocks: gates in front of their own experts; identity, counts, saving, refusals."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import BACKENDS, Tiny, gradient, moe_layers, numbers, router_weight
from torch.utils.flop_counter import FlopCounterMode

from repro.config import ExpertsConfig
from repro.errors import UserError
from repro.moe import pretrained
from repro.moe.backbones import base as backbones
from repro.moe.backbones import mixtral
from repro.moe.convert import convert, convert_measured
from repro.moe.flops import Architecture, Work
from repro.moe.folder import read_weights
from repro.moe.gates import top_k
from repro.moe.routing import record_routing
from repro.moe.settings import MoESettings
from repro.moe.volume import Volume
from repro.run.contradictions import Override
from repro.run.resolve import resolve

CPU, META = torch.device("cpu"), torch.device("meta")
EAGER = {"experts_implementation": "eager"}
EXPERTS = {"mixtral": (4, 2), "olmoe": (4, 3), "qwen3_moe": (4, 3)}
"""Family -> experts, and those of a token."""


def own_gate(tiny: Tiny) -> dict[str, Any]:
    """Options with which the gate `top-k` routes as the model does."""
    backbone = backbones.load(tiny.backbone)
    router = backbone.own_router(tiny.build().config)
    assert router is not None
    assert (router.experts, router.k) == EXPERTS[tiny.backbone]
    return {"k": router.k, "combine": router.combine}


def pair(tiny: Tiny, backend: str = "loop", implementation: str = "eager") -> tuple[Any, Any]:
    """A model, and the same one converted to its own top-k."""
    model = tiny.build(experts_implementation=implementation)
    converted = tiny.build()
    tiny.convert(converted, "top-k", experts={"backend": backend}, **own_gate(tiny))
    assert len(moe_layers(converted)) == 2
    return model, converted


def left_padded(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The same sequences with their padding before them."""
    moved = dict(batch)
    for name in ("input_ids", "attention_mask"):
        rows = zip(batch[name], batch["attention_mask"].sum(1).tolist(), strict=True)
        moved[name] = torch.stack([row.roll(len(row) - length) for row, length in rows])
    mask = moved["attention_mask"]
    return moved | {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def problems_of(action: Callable[[], object]) -> list[str]:
    """The lines of the user's error that an action ends in."""
    with pytest.raises(UserError) as caught:
        action()
    return list(caught.value.problems)


# --- identity -----------------------------------------------------------------------------------


def test_the_own_gate_is_what_the_configuration_says() -> None:
    options = {name: own_gate(Tiny(name, "causal-language-model")) for name in EXPERTS}
    assert options == {
        "mixtral": {"k": 2, "combine": "renormalised"},  # always
        "olmoe": {"k": 3, "combine": "raw"},
        "qwen3_moe": {"k": 3, "combine": "renormalised"},
    }
    olmoe = backbones.load("olmoe")
    own = olmoe.own_router(olmoe.CONFIG(norm_topk_prob=True))
    assert own is not None
    assert own.combine == "renormalised"


def test_the_own_top_k_gives_the_logits_of_the_model_exactly(blocks: Tiny) -> None:
    model, converted = pair(blocks)
    batch = blocks.batch(masked=False)
    (expected,), (actual,) = blocks.outputs(model, batch), blocks.outputs(converted, batch)
    assert expected.std() > 0.1
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_logits(blocks: Tiny, side: str) -> None:
    # The model computes padding, too: its products have other shapes, which may round otherwise.
    model, converted = pair(blocks)
    batch = blocks.batch() if side == "right" else left_padded(blocks.batch())
    with record_routing(converted) as tape:
        (expected,), (actual,) = blocks.outputs(model, batch), blocks.outputs(converted, batch)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)
    for entry in tape.entries:
        assert torch.equal(entry.count_BS(), batch["attention_mask"] * EXPERTS[blocks.backbone][1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
def test_every_back_end_is_close_to_every_implementation(
    blocks: Tiny, backend: str, implementation: str
) -> None:
    model, converted = pair(blocks, backend, implementation)
    batch = blocks.batch()
    expected, actual = blocks.outputs(model, batch), blocks.outputs(converted, batch)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_model(blocks: Tiny, backend: str) -> None:
    model, converted = pair(blocks, backend)
    batch = blocks.batch()
    for one in (model, converted):
        logits = one(**batch).logits[batch["attention_mask"].bool()]
        logits.square().mean().backward()
    names = {".mlp.gate.router.weight": ".mlp.gate.weight"}
    names |= {".mlp.experts.w1": ".mlp.experts.gate_up_proj", ".mlp.experts.w2": ".mlp.experts.down_proj"}
    compared = 0
    for name, parameter in converted.named_parameters():
        own = name
        for ours, theirs in names.items():
            compared += name.endswith(ours)
            own = own.replace(ours, theirs)
        expected = gradient(model.get_parameter(own))
        assert expected.abs().max() > 0, own
        torch.testing.assert_close(gradient(parameter), expected, rtol=1e-4, atol=1e-6, msg=own)
    assert compared == 3 * 2


def test_generating_with_the_cache_gives_the_text_of_the_model(blocks: Tiny) -> None:
    model, converted = pair(blocks)
    batch = left_padded(blocks.batch())
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    settings = transformers.GenerationConfig(
        max_new_tokens=4,
        do_sample=False,
        suppress_tokens=[0, 1],
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        return_dict_in_generate=True,
        output_logits=True,
    )
    expected = model.generate(**prompt, generation_config=settings)
    with record_routing(converted) as tape:
        actual = converted.generate(**prompt, generation_config=settings)
    assert torch.equal(actual.sequences, expected.sequences)
    for ours, theirs in zip(actual.logits, expected.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    # With the cache a step routes its new tokens alone.
    assert [entry.routing.mask_T.numel() for entry in tape.entries] == [18, 18] + [3, 3] * 3


def test_null_experts_with_copied_rows_start_as_the_model_itself() -> None:
    # Every probability is halved, and ties go to the lowest index: with k = 3 the two best true experts and a
    # null expert are chosen, and the weights of the true ones sum to 1 again.
    tiny = Tiny("mixtral", "causal-language-model")
    model, converted = tiny.build(**EAGER), tiny.build()
    tiny.convert(converted, "adamoe", nulls=4, k=3)
    for layer in moe_layers(converted):
        rows = router_weight(layer)
        assert torch.equal(rows[4:], rows[:4])
    batch = tiny.batch()
    torch.testing.assert_close(tiny.outputs(converted, batch), tiny.outputs(model, batch), rtol=0, atol=1e-5)


# --- what is taken over -------------------------------------------------------------------------


def test_experts_are_taken_as_they_are(blocks: Tiny) -> None:
    model = blocks.build()
    own = [layer.mlp for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    total = sum(parameter.numel() for parameter in model.parameters())
    blocks.convert(model, "adaptive")
    for layer, block in zip(moe_layers(model), own, strict=True):
        assert layer.experts.w1.data_ptr() == block.experts.gate_up_proj.data_ptr()
        assert layer.experts.w2.data_ptr() == block.experts.down_proj.data_ptr()
        assert layer.experts.b1 is layer.experts.b2 is None
        assert torch.equal(router_weight(layer), block.gate.weight)
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_dense_networks_between_blocks_stay() -> None:
    tiny = Tiny("qwen3_moe", "causal-language-model")
    model = tiny.build()
    dense = model.model.layers[1].mlp
    architecture = tiny.convert(model, "adaptive")
    assert model.model.layers[1].mlp is dense
    widths = [(ffn.d_hidden, ffn.converted, ffn.own is not None) for ffn in architecture.ffns]
    assert widths == [(20, True, True), (24, False, False), (20, True, True)]
    # `decoder_sparse_step` 2: of three layers the second alone is a block.
    model = tiny.build(mlp_only_layers=[], decoder_sparse_step=2)
    architecture = tiny.convert(model, "adaptive")
    assert [ffn.converted for ffn in architecture.ffns] == [False, True, False]


def test_a_model_that_balances_by_itself_no_longer_does() -> None:
    # Its own loss is computed from its routers, which are gone.
    tiny = Tiny("mixtral", "causal-language-model")
    model = tiny.build(output_router_logits=True)
    assert model(**tiny.batch(), labels=tiny.batch()["input_ids"]).aux_loss is not None
    tiny.convert(model, "top-2")
    assert model(**tiny.batch(), labels=tiny.batch()["input_ids"]).aux_loss is None


def test_layers_of_pretrained_experts_have_no_scale_to_measure(blocks: Tiny) -> None:
    assert convert_measured(blocks.build(), blocks.settings("adaptive"), CPU)[1] is None


def test_every_gate_stands_before_pretrained_experts(blocks: Tiny) -> None:
    for gate in ("hash", "relu", "top-any", "learned-threshold", "zero-compute", "top-p"):
        model, batch = blocks.converted(gate), blocks.batch()
        with record_routing(model) as tape:
            logits = model(**batch).logits
        (logits.square().mean() + tape.loss()).backward()
        assert all(gradient(layer.experts.w1).isfinite().all() for layer in moe_layers(model)), gate


# --- counts -------------------------------------------------------------------------------------


def counted(tiny: Tiny, gate: str, **options: Any) -> tuple[int, dict[str, float], int, Architecture]:
    """FLOPs of a padded batch by torch's counter; ours a token; its tokens; the architecture."""
    model = tiny.build(attn_implementation="eager", **EAGER)
    architecture = tiny.convert(model, gate, **options)
    batch = tiny.batch({"decoder": [2, 6, 4, 4]})
    with FlopCounterMode(display=False) as counter, record_routing(model) as tape, torch.no_grad():
        model(**batch)
    work = Work.of(tape, tiny.masks(batch))
    return counter.get_total_flops(), numbers(work.flops(architecture)), work.real.tokens, architecture


@pytest.mark.parametrize("gate", ["top-2", "adaptive", "dense"])
def test_executed_flops_are_those_of_torch(blocks: Tiny, gate: str) -> None:
    torch_flops, flops, tokens, _ = counted(blocks, gate)
    assert flops["per_token_executed"] * tokens == pytest.approx(torch_flops, rel=1e-9)
    assert flops["per_token"] < flops["per_token_executed"]


def test_the_model_itself_costs_what_its_own_top_k_does(blocks: Tiny) -> None:
    flops = counted(blocks, "top-k", **own_gate(blocks))[1]
    assert flops["per_token"] == pytest.approx(flops["dense_per_token"], rel=1e-12)


def test_every_second_block() -> None:
    tiny = Tiny("mixtral", "causal-language-model")
    torch_flops, flops, tokens, architecture = counted(tiny, "top-1", experts={"every": 2})
    assert [ffn.converted for ffn in architecture.ffns] == [False, True]
    assert flops["per_token_executed"] * tokens == pytest.approx(torch_flops, rel=1e-9)
    # 2 of 4 experts stay idle in the block that stayed: 2 * 3 * 16 * 24.
    assert architecture.idle_parameters == 2_304


def test_mixtral_8x7b_has_its_published_size() -> None:
    with META:
        model = mixtral.HEADS["causal-language-model"](mixtral.CONFIG())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == 46_702_792_704
    settings = MoESettings(
        backbone="mixtral",
        head="causal-language-model",
        gate="top_k",
        gate_options=top_k.Config(k=2, combine="renormalised"),
        experts=ExpertsConfig(count=8),
    )
    architecture = convert(model, settings, META)
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    # Six experts of each of 32 layers are idle: 12.9e9 are active.
    idle = sum(6 * ffn.parameters for ffn in architecture.ffns)
    assert total - idle == 12_879_925_248
    # Per token twice the active weights but for embeddings and norms, of 4096 each, and attention's pairs.
    volume = Volume.of({"decoder": [1]})
    weights = total - idle - 32_000 * 4_096 - 65 * 4_096
    assert architecture.analytic_macs(volume, 2.0) == weights + 32 * 2 * 4_096


# --- saving and loading -------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["top-2", "adaptive", "adamoe", "dense"])
def test_a_loaded_model_gives_the_same_output_exactly(tmp_path: Path, blocks: Tiny, gate: str) -> None:
    model, batch = blocks.converted(gate), blocks.batch()
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU)
    assert len(moe_layers(loaded)) == len(moe_layers(model))
    for actual, expected in zip(blocks.outputs(loaded, batch), blocks.outputs(model, batch), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("layout", ["of the hub", "stacked"])
def test_a_folder_of_the_library_is_read_in_both_layouts(tmp_path: Path, blocks: Tiny, layout: str) -> None:
    model = blocks.build(**EAGER)
    model.save_pretrained(tmp_path, save_original_format=layout == "of the hub")
    keys = set(read_weights(tmp_path))
    assert any(".experts.0." in key for key in keys) is (layout == "of the hub")
    assert any(key.endswith(".experts.gate_up_proj") for key in keys) is (layout == "stacked")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    backbone = backbones.load(blocks.backbone)
    loaded = pretrained.load_checkpoint(
        tmp_path, backbone, backbone.HEADS[blocks.head], {}, "--model "
    ).eval()
    convert(loaded, blocks.settings("top-k", experts={"backend": "loop"}, **own_gate(blocks)), CPU)
    batch = blocks.batch(masked=False)
    for actual, expected in zip(blocks.outputs(loaded, batch), blocks.outputs(model, batch), strict=True):
        assert torch.equal(actual, expected)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_gate_on_a_saved_model_keeps_the_experts_and_the_router(tmp_path: Path) -> None:
    tiny = Tiny("mixtral", "causal-language-model")
    model = tiny.converted("top-2", combine="renormalised")
    pretrained.save(model, tmp_path)
    loaded, _ = pretrained.load_with_gate(tmp_path, tiny.settings("adamoe", nulls=4, k=3), CPU)
    batch = tiny.batch()
    torch.testing.assert_close(
        tiny.outputs(loaded.eval(), batch), tiny.outputs(model, batch), rtol=0, atol=1e-5
    )


def test_older_configurations_keep_their_positions(tmp_path: Path) -> None:
    # Before transformers 5 `rope_theta` stood by itself; the class no longer names it.
    tiny = Tiny("qwen3_moe", "causal-language-model")
    model = tiny.build(rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    pretrained.save(model, tmp_path)
    path = tmp_path / "config.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    del plain["rope_parameters"]
    path.write_text(json.dumps(plain | {"rope_theta": 100.0, "rope_scaling": None}), encoding="utf-8")
    loaded, batch = pretrained.load(tmp_path, CPU), tiny.batch()
    assert loaded.config.head_dim == 8
    assert torch.equal(tiny.outputs(loaded, batch)[0], tiny.outputs(model, batch)[0])


def test_a_run_takes_over_the_experts_of_the_model(tmp_path: Path) -> None:
    tiny = Tiny("mixtral", "causal-language-model")
    pretrained.save(tiny.build(), tmp_path)

    def experts_and_weights(**overrides: object) -> tuple[int, str]:
        config, _ = resolve(
            task="wikitext",
            scale="mini",
            gate="adaptive",
            seed=0,
            data=None,
            model=str(tmp_path),
            overrides={
                key.replace("__", "."): Override(value, "--set")
                for key, value in {"model__backbone": "mixtral", **overrides}.items()
            },
            results=tmp_path,
        )
        assert (config.experts.init, config.experts.scale) == ("random", "none")
        return config.experts.count, config.gate_options.combine

    assert experts_and_weights() == (4, "renormalised")
    assert experts_and_weights(gate__combine="raw") == (4, "raw")
    assert experts_and_weights(experts__count=8) == (8, "renormalised")  # refused by `convert`


# --- refusals -----------------------------------------------------------------------------------


def test_a_gate_for_another_number_of_experts(blocks: Tiny) -> None:
    message = "experts.count: 8 are not the 4 experts of the model's MoE blocks; set experts.count=4"
    assert problems_of(lambda: blocks.converted("adaptive", experts={"count": 8})) == [message]


def test_settings_of_fresh_experts_have_no_effect_on_pretrained_ones(blocks: Tiny) -> None:
    experts = {"init": "upcycle", "scale": "fitted"}
    assert problems_of(lambda: blocks.converted("adaptive", experts=experts)) == [
        "experts.init: 'upcycle' has no effect: the model's MoE blocks bring their experts",
        "experts.scale: 'fitted' has no effect: the model's MoE blocks bring their experts",
    ]


def test_noise_before_the_router() -> None:
    with pytest.raises(UserError, match=r"^model\.config\.router_jitter_noise: must be 0 for a model"):
        Tiny("mixtral", "causal-language-model").converted("top-2", sizes={"router_jitter_noise": 0.1})


def test_a_family_that_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_moe"}', encoding="utf-8")
    way = "A new family is one file in repro/moe/backbones/, after the contract in its base.py."
    (problem,) = problems_of(lambda: pretrained.load(tmp_path, CPU))
    assert problem.startswith(f"{tmp_path}: unknown model_type 'qwen2_moe'. Did you mean 'qwen3_moe'?")
    assert problem.endswith(f" {way}")
