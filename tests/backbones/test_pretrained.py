"""Saving and loading models of every backbone and head."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Tiny, moe_layers

from repro.moe import pretrained
from repro.moe.backbones import base as backbones

CPU = torch.device("cpu")


def assert_loads_as(tiny: Tiny, model: Any, folder: Path) -> Any:
    pretrained.save(model, folder)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    loaded = pretrained.load(folder, CPU)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert len(moe_layers(loaded)) == len(moe_layers(model))
    for masked in (False, True):
        batch = tiny.batch(masked=masked)
        pairs = zip(tiny.outputs(loaded, batch), tiny.outputs(model, batch), strict=True)
        assert all(torch.equal(after, before) for after, before in pairs)
    return loaded


@pytest.mark.parametrize("gate", ["top-2", "adaptive", "dense"])
def test_a_loaded_model_gives_the_same_output_exactly(tmp_path: Path, tiny: Tiny, gate: str) -> None:
    assert_loads_as(tiny, tiny.converted(gate), tmp_path)


def test_layers_and_activation_survive_saving(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.converted("top-2", experts={"every": 2, "activation": "relu"})
    assert len(moe_layers(model)) == len(tiny.stacks) // 2
    assert_loads_as(tiny, model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["repro_moe"]["experts"] == {"count": 4, "activation": "relu", "every": 2}
    assert (config["repro_moe"]["backbone"], config["repro_moe"]["head"]) == (tiny.backbone, tiny.head)


def test_weights_in_several_files(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.converted("adaptive")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    actual = tiny.outputs(pretrained.load(tmp_path, CPU), tiny.batch())
    expected = tiny.outputs(model, tiny.batch())
    assert all(torch.equal(after, before) for after, before in zip(actual, expected, strict=True))


def test_settings_of_generation_survive_saving(tmp_path: Path, seq2seq: Tiny) -> None:
    model = seq2seq.converted("adaptive")
    model.generation_config.no_repeat_ngram_size = 3
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU)
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()


def test_settings_of_generation_of_a_dense_model_survive_saving(tmp_path: Path, seq2seq: Tiny) -> None:
    model = seq2seq.converted("dense")
    model.generation_config.no_repeat_ngram_size = 3
    pretrained.save(model, tmp_path)
    assert pretrained.load(tmp_path, CPU).generation_config.no_repeat_ngram_size == 3


def test_sinusoidal_positions_are_never_trained() -> None:
    # transformers 5 registers them as trainable weights.
    model = Tiny("fsmt", "sequence-to-sequence").converted("top-2")
    fixed = {id(parameter) for parameter in backbones.load("fsmt").fixed_parameters(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in fixed}
    assert names == {f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")}


TIED = {
    "gpt2": [("lm_head.weight", "transformer.wte.weight")],
    "bart": [
        ("lm_head.weight", "model.shared.weight"),
        ("model.encoder.embed_tokens.weight", "model.shared.weight"),
        ("model.decoder.embed_tokens.weight", "model.shared.weight"),
    ],
    "fsmt": [
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
        ("model.decoder.output_projection.weight", "model.decoder.embed_tokens.weight"),
    ],
}


@pytest.mark.parametrize("gate", ["adaptive", "dense"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", sorted(TIED))
def test_tied_weights_stay_tied(tmp_path: Path, name: str, tied: bool, gate: str) -> None:
    tiny = Tiny(name, next(iter(backbones.load(name).HEADS)))
    sizes: dict[str, Any] = {"tie_word_embeddings": tied}
    if name == "fsmt" and tied:
        sizes["tgt_vocab_size"] = 50
    model = tiny.converted(gate, sizes=sizes)
    loaded = assert_loads_as(tiny, model, tmp_path)
    for one, other in TIED[name]:
        for each in (model, loaded):
            assert (each.get_parameter(one) is each.get_parameter(other)) is tied, (one, other)
    # A step on a tied weight moves both of its uses.
    names = {key for key, _ in loaded.named_parameters()}
    assert names == {key for key, _ in model.named_parameters()}
