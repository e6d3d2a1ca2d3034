"""Saving and loading a BERT of two tiny layers, converted or dense."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_bert import CPU, HEADS, converted, outputs_of, padding_mask, token_ids
from tiny_models import BACKENDS, moe_layers

from repro.errors import UserError
from repro.moe import pretrained
from repro.moe.experts import base as backends

# --- save and load ------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("gate", ["top-2", "adaptive", "dense"])
def test_a_loaded_model_gives_the_same_output_exactly(tmp_path: Path, gate: str, head: str) -> None:
    model = converted(gate, head)
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert len(moe_layers(loaded)) == len(moe_layers(model))
    expected = outputs_of(model, token_ids(), attention_mask=padding_mask())
    actual = outputs_of(loaded, token_ids(), attention_mask=padding_mask())
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_the_gate_stands_in_the_configuration(tmp_path: Path) -> None:
    model = converted("adaptive", threshold=0.25, normalisation="max", experts={"init": "upcycle"})
    pretrained.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["repro_moe"] == {
        "schema_version": 1,
        "backbone": "bert",
        "head": "sequence-classification",
        "gate": "adaptive",
        "gate_options": {
            "threshold": 0.25,
            "normalisation": "max",
            "combine": "raw",
            "logit_std": 1.0,
            "balance": 0.01,
        },
        "experts": {"count": 4, "activation": "model", "every": 1},
    }
    assert config["architectures"] == ["ReproBertForSequenceClassification"]
    assert "auto_map" not in config
    gate = moe_layers(pretrained.load(tmp_path, CPU))[0].gate
    assert (gate.config.threshold, gate.config.normalisation) == (0.25, "max")


def test_a_dense_model_is_saved_as_plain_hugging_face(tmp_path: Path) -> None:
    model = converted("dense")
    pretrained.save(model, tmp_path)
    assert "repro_moe" not in json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    plain = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(outputs_of(plain, token_ids())[0], outputs_of(model, token_ids())[0])


def test_layers_and_activation_survive_saving(tmp_path: Path) -> None:
    model = converted("top-2", experts={"every": 2, "activation": "relu"})
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU)
    assert len(moe_layers(loaded)) == 1
    assert torch.equal(outputs_of(loaded, token_ids())[0], outputs_of(model, token_ids())[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_loading_with_another_back_end(tmp_path: Path, backend: str) -> None:
    model = converted("adaptive")
    pretrained.save(model, tmp_path)
    loaded = pretrained.load(tmp_path, CPU, backend)
    assert {layer.experts.backend for layer in moe_layers(loaded)} == {backends.load(backend)}
    expected = outputs_of(model, token_ids())
    torch.testing.assert_close(outputs_of(loaded, token_ids()), expected, rtol=0, atol=1e-5)


def test_loading_with_an_unknown_back_end(tmp_path: Path) -> None:
    pretrained.save(converted("top-2"), tmp_path)
    with pytest.raises(UserError, match=r"^experts\.backend: unknown .*'padde'\. Did you mean 'padded'\?"):
        pretrained.load(tmp_path, CPU, "padde")


def test_weights_in_several_files(tmp_path: Path) -> None:
    model = converted("adaptive")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(
        outputs_of(pretrained.load(tmp_path, CPU), token_ids())[0], outputs_of(model, token_ids())[0]
    )


def test_code_beside_the_weights_is_never_run(tmp_path: Path) -> None:
    model = converted("top-2")
    pretrained.save(model, tmp_path)
    (tmp_path / "code.py").write_text("raise SystemExit('remote code was run')\n", encoding="utf-8")
    change_config(tmp_path, auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"})
    loaded = pretrained.load(tmp_path, CPU)
    assert torch.equal(outputs_of(loaded, token_ids())[0], outputs_of(model, token_ids())[0])


# --- folders that hold no model -----------------------------------------------------------------


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")


def change_settings(folder: Path, **changes: Any) -> None:
    plain = json.loads((folder / "config.json").read_text(encoding="utf-8"))["repro_moe"]
    change_config(folder, repro_moe=plain | changes)


def remove_everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty folder": remove_everything,
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "configuration is not JSON": lambda folder: (folder / "config.json").write_text("{"),
    "unknown gate": lambda folder: change_settings(folder, gate="nothing"),
    "unknown gate option": lambda folder: change_settings(folder, gate_options={"nothing": 1}),
    "settings without experts": lambda folder: change_settings(folder, experts=None),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights of fewer layers": lambda folder: change_config(folder, num_hidden_layers=3),
    "weights of more layers": lambda folder: change_config(folder, num_hidden_layers=1),
    "weights are rubbish": lambda folder: (folder / "model.safetensors").write_bytes(b"rubbish"),
    "weights are cut short": cut_short,
    "weights of another width": lambda folder: change_config(folder, hidden_size=32),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_folder_is_the_users_error(tmp_path: Path, case: str) -> None:
    pretrained.save(converted("top-2"), tmp_path)
    BROKEN[case](tmp_path)
    with pytest.raises(UserError) as caught:
        pretrained.load(tmp_path, CPU)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": "nothing"}, "unknown gate 'nothing'"),
        ({"gate_options": {"nothing": 1}}, "nothing: Unexpected keyword argument"),
        ({"gate_options": {"k": "two"}}, "k: Input should be a valid integer"),
        ({"gate_options": {"k": 0}}, "k: Input should be greater than or equal to 1"),
        ({"experts": None}, "experts: Input should be an object"),
        ({"experts": {"count": 4, "activation": "model"}}, "experts.every: Field required"),
        ({"experts": {"count": 4, "activation": "silu", "every": 1}}, "experts.activation: Input should be"),
        ({"head": 3}, "head: Input should be a valid string"),
        ({"future": 1}, "future: Extra inputs are not permitted"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    pretrained.save(converted("top-2"), tmp_path)
    change_settings(tmp_path, **changes)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        pretrained.load(tmp_path, CPU)
    assert "gate" in changes or str(caught.value).startswith(f"{tmp_path}: not a saved model (repro_moe ")


@pytest.mark.parametrize("where", ["absolute", "relative"])
def test_a_folder_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    # A relative path without a folder looks like a hub id; it must not be looked up there.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "nothing" if where == "absolute" else Path("nothing")
    with pytest.raises(UserError, match=r"nothing: not a saved model") as caught:
        pretrained.load(folder, CPU)
    assert "\n" not in str(caught.value)


def test_rubbish_weights_of_a_dense_model(tmp_path: Path) -> None:
    pretrained.save(converted("dense"), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        pretrained.load(tmp_path, CPU)


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    model = converted("top-2")
    pretrained.save(model, tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in it"):
        pretrained.load(tmp_path, CPU)
