"""Low-rank additions: what is trained, how they start and end; weights in bf16; whole runs."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import write_relative
from command_line import Answer, CommandLine, only_run, read_object, without_model
from refusals import refused
from resolved import resolved
from safetensors.torch import load_file
from tiny_models import Tiny, moe_layers, router_weight

from repro.errors import UserError
from repro.moe.folder import read_weights
from repro.moe.lora import add_low_rank, merge_low_rank
from repro.moe.routing import record_routing
from repro.run.launch import launched

MIXTRAL = Tiny("mixtral", "causal-language-model")
GPT2 = Tiny("gpt2", "causal-language-model")
BERT = Tiny("bert", "sequence-classification")
LLAMA = Tiny("llama", "causal-language-model")


def low_rank(tiny: Tiny, gate: str = "adaptive", **options: Any) -> Any:
    model = tiny.converted(gate, **options)
    add_low_rank(model, 2, 4.0)
    return model


def change_additions(model: Any) -> None:
    """Give the additions, which start as 0, values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("tiny", [MIXTRAL, GPT2, BERT, LLAMA], ids=lambda tiny: tiny.backbone)
def test_additions_start_as_nothing_and_end_in_the_weights(tiny: Tiny) -> None:
    plain, model, batch = tiny.converted("top-2"), low_rank(tiny, "top-2"), tiny.batch()
    names = {name for name, _ in plain.named_parameters()}
    for after, before in zip(tiny.outputs(model, batch), tiny.outputs(plain, batch), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    change_additions(model)
    changed = tiny.outputs(model, batch)
    assert all(
        (one - two).abs().max() > 1e-3 for one, two in zip(changed, tiny.outputs(plain, batch), strict=True)
    )
    merge_low_rank(model)
    assert {name for name, _ in model.named_parameters()} == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    for after, before in zip(tiny.outputs(model, batch), changed, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def trained(model: Any, tiny: Tiny) -> set[str]:
    """Names of the parameters that get a gradient other than 0."""
    change_additions(model)
    batch = tiny.batch()
    with record_routing(model) as tape:
        outputs = model.train()(**batch)
    (outputs.logits.square().mean() + tape.loss()).backward()
    return {
        name for name, one in model.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0
    }


def test_every_expert_has_additions_of_its_own() -> None:
    """Rank 2 on both matrices of 4 experts: 2 (16 + 48) and 2 (24 + 16) numbers each."""
    model = low_rank(MIXTRAL)
    sizes = {
        name: one.numel() for name, one in model.named_parameters() if "0.mlp" in name and "lora" in name
    }
    assert sum(sizes.values()) == 4 * (2 * (16 + 48) + 2 * (24 + 16))


def test_gates_are_trained_whole() -> None:
    names = trained(low_rank(MIXTRAL, combine="renormalised"), MIXTRAL)
    assert {"model.layers.0.mlp.gate.router.weight", "model.layers.1.mlp.gate.router.weight"} <= names
    assert all("lora_" in name or ".gate." in name for name in names)
    assert any("experts" in name for name in names)
    assert any("q_proj" in name for name in names)


def test_thresholds_are_trained_whole() -> None:
    names = trained(low_rank(MIXTRAL, "learned-threshold"), MIXTRAL)
    own = {name.rpartition(".gate.")[2] for name in names if ".gate." in name}
    gate = moe_layers(MIXTRAL.converted("learned-threshold"))[0].gate
    assert own == {name for name, _ in gate.named_parameters()}


def test_a_fresh_head_is_trained_whole() -> None:
    names = trained(low_rank(BERT), BERT)
    assert {"classifier.weight", "classifier.bias"} <= names
    assert "bert.pooler.dense.base_layer.weight" not in names


def test_weights_in_bf16_have_additions_and_routers_in_fp32() -> None:
    model = MIXTRAL.build().bfloat16()
    MIXTRAL.convert(model, "top-2", combine="renormalised")
    expected = MIXTRAL.outputs(MIXTRAL.converted("top-2", combine="renormalised"), MIXTRAL.batch())
    add_low_rank(model, 2, 4.0)
    types = {name: one.dtype for name, one in model.named_parameters()}
    assert {dtype for name, dtype in types.items() if "lora_" in name or ".gate." in name} == {torch.float32}
    assert types["model.layers.0.mlp.experts.base_layer.base_layer.w1"] == torch.bfloat16
    for after, before in zip(MIXTRAL.outputs(model, MIXTRAL.batch()), expected, strict=True):
        assert (after.float() - before).abs().mean() < 0.05 * before.abs().mean()
    assert router_weight(moe_layers(model)[0]).requires_grad


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mixtral of 4 experts, 2 a token."""
    folder = tmp_path_factory.mktemp("pretrained") / "tiny-mixtral"
    return write_relative(folder, "mixtral", num_local_experts=4, num_experts_per_tok=2)


def train(cli: CommandLine, out: Path, model: Path, settings: Mapping[str, object]) -> Answer:
    own = {**without_model("arc"), "model.backbone": "mixtral", "experts.count": None}
    return cli.train("adamoe", out, "--model", model, task="arc", settings={**own, **settings})


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_run_saves_a_model_as_any_other(
    cli: CommandLine, mixtral: Path, tmp_path: Path, dtype: str
) -> None:
    settings = {
        "training.lora_rank": 2,
        "gate.nulls": 4,
        "training.learning_rate": 0.05,
        "model.dtype": dtype,
    }
    answer = train(cli, tmp_path, mixtral, settings)
    assert answer.status == 0, answer.err
    folder = only_run(tmp_path)
    before = read_weights(mixtral)
    after = load_file(folder / "model" / "model.safetensors")
    assert not [name for name in after if "lora" in name or "base_layer" in name]
    query, words = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"
    assert not torch.equal(before[query].to(after[query].dtype), after[query])
    assert torch.equal(before[words].to(after[words].dtype), after[words])
    assert after["model.layers.0.mlp.gate.router.weight"].shape == (8, 16)
    result = read_object(folder / "result.json")
    assert result["parameters"]["total"] == sum(one.numel() for one in after.values())
    evaluated = cli("eval", folder, "--json").json()
    if dtype == "fp32":
        assert evaluated["metrics"] == result["metrics"]
        assert evaluated["eval_loss"] == result["eval_loss"]
    assert evaluated["eval_loss"] == pytest.approx(result["eval_loss"], rel=0.02)


def test_it_goes_on_from_a_checkpoint(cli: CommandLine, mixtral: Path, tmp_path: Path) -> None:
    """The trunk of a finished run: its weights still have the additions beside them."""
    settings = {"training.lora_rank": 2, "gate.nulls": 4}
    assert train(cli, tmp_path, mixtral, settings).status == 0
    own = {**without_model("arc"), "model.backbone": "mixtral", "experts.count": None}
    arguments = cli.train_arguments(
        "adamoe",
        tmp_path,
        "--model",
        mixtral,
        "--until-loss",
        "0.1",
        task="arc",
        settings={**own, **settings},
    )
    answer = cli(*arguments)
    assert answer.status == 0, answer.err
    assert "not reached in 8 steps" in answer.out


# --- refusals -------------------------------------------------------------------------------------


def test_what_has_no_effect_or_loses_updates(cli: CommandLine, mixtral: Path, tmp_path: Path) -> None:
    answer = cli.train("top-2", tmp_path, settings={"training.lora_alpha": 4.0, "model.dtype": "bf16"})
    refused(
        answer,
        r"training\.lora_alpha: has no effect without training\.lora_rank$",
        r"model\.dtype: has no effect without a checkpoint",
    )
    answer = train(cli, tmp_path, mixtral, {"model.dtype": "bf16", "gate.nulls": 4})
    refused(answer, r"model\.dtype: weights in bf16 lose small updates; set training\.lora_rank, too$")


def test_sharded_weights_have_no_additions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes; before anything is loaded."""
    monkeypatch.setattr("repro.run.launch.make_accelerator", lambda *rest: SimpleNamespace(num_processes=2))
    run, paths = resolved(overrides={"training.lora_rank": 2, "training.shard": "fsdp"})
    problem = r"^training\.lora_rank: sharded weights have no additions; set training\.shard=none$"
    with pytest.raises(UserError, match=problem), launched(run, paths):
        raise AssertionError("something was loaded")


def test_without_peft(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    answer = cli.train("top-2", tmp_path, settings={"training.lora_rank": 4})
    refused(answer, r"^repro: --set training\.lora_rank: peft is not installed; pip install 'repro\[lora\]'$")
