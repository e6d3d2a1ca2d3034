"""Converted models of every backbone under `transformers`: loaded, generated with, copied, pickled."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import CPU, Tiny, moe_layers, router_weight

import repro
import repro.hf
from repro import plugins
from repro.errors import UserError
from repro.moe import models, pretrained
from repro.moe.backbones import base as backbones
from repro.moe.routing import record_routing

ALL = [Tiny(name, head) for name in plugins.names("backbones") for head in backbones.load(name).HEADS]
SCRIPT = """
import sys, warnings
from pathlib import Path
import torch, transformers

kinds = [line.split() for line in Path(sys.argv[1], "kinds").read_text().splitlines()]
for folder, auto_class, plain_class in kinds:
    for name in (auto_class, plain_class):
        try:
            getattr(transformers, name).from_pretrained(folder)
        except Exception as error:
            print("refused", name, "repro" in str(error))

import repro.hf
for folder, auto_class, _ in kinds:
    stored = torch.load(Path(folder, "expected.pt"))
    model = getattr(transformers, auto_class).from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**stored["batch"], output_router_logits=True)
    same = all(torch.equal(outputs[name], value) for name, value in stored["logits"].items())
    print("loaded", auto_class, same, model.training, len(outputs.router_logits), model.config.model_type)
"""


def logits_of(model: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        outputs = model(**batch)
    return {
        name: value for name, value in outputs.items() if name in ("logits", "start_logits", "end_logits")
    }


def adopted(tiny: Tiny, gate: str = "adaptive", **options: Any) -> Any:
    return models.adopt(tiny.converted(gate, **options))


def test_a_process_with_repro_loads_every_kind_and_one_without_none(tmp_path: Path) -> None:
    """With and without are one process, before and after the import."""
    kinds = []
    for number, tiny in enumerate(ALL):
        folder = tmp_path / str(number)
        # The buffer of this gate is a state that is saved.
        pretrained.save(tiny.converted("adaptive-budget" if number % 2 else "adaptive"), folder)
        loaded, batch = pretrained.load(folder, CPU), tiny.batch()
        torch.save({"batch": batch, "logits": logits_of(loaded, batch)}, folder / "expected.pt")
        plain_class = backbones.load(tiny.backbone).HEADS[tiny.head].__name__
        kinds.append(f"{folder} {models.AUTO_CLASSES[tiny.head]} {plain_class}")
    (tmp_path / "kinds").write_text("\n".join(kinds), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("refused", "loaded"))]
    names = [kind.split()[1:] for kind in kinds]
    assert lines[: 2 * len(kinds)] == [f"refused {name} True" for pair in names for name in pair]
    assert lines[2 * len(kinds) :] == [
        f"loaded {auto_class} True False {len(tiny.stacks)} repro-{backbones.load(tiny.backbone).MODEL_TYPE}"
        for tiny, (auto_class, _) in zip(ALL, names, strict=True)
    ]


def test_what_stands_in_the_configuration(tiny: Tiny, tmp_path: Path) -> None:
    pretrained.save(tiny.converted("adaptive"), tmp_path / "saved")
    adopted(tiny).save_pretrained(tmp_path / "own")
    saved, own = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("saved", "own"))
    assert saved == own
    assert saved["model_type"] == f"repro-{tiny.backbone}"
    assert saved["repro_moe"]["schema_version"] == 1
    (name,) = saved["architectures"]
    assert name == f"Repro{backbones.load(tiny.backbone).HEADS[tiny.head].__name__}"
    assert getattr(repro.hf, name) is models.model_class(tiny.backbone, tiny.head)
    assert "auto_map" not in saved


def test_a_model_keeps_its_class_through_saving_and_loading(tiny: Tiny, tmp_path: Path) -> None:
    model = adopted(tiny)
    dense = backbones.load(tiny.backbone).HEADS[tiny.head]
    assert isinstance(model, dense)
    assert isinstance(model.config, backbones.load(tiny.backbone).CONFIG)
    configs = [getattr(module, "config", None) for module in model.modules()]
    assert all(one is model.config for one in configs if isinstance(one, transformers.PreTrainedConfig))
    model.config.output_router_logits = True
    model.save_pretrained(tmp_path)
    auto_class = getattr(transformers, models.AUTO_CLASSES[tiny.head])
    loaded, info = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(loaded) is type(model)
    assert loaded.config.output_router_logits is True
    again = repro.load(tmp_path)
    assert type(again) is type(model)
    for name, value in logits_of(model, tiny.batch()).items():
        assert torch.equal(logits_of(loaded, tiny.batch())[name], value)
        assert torch.equal(logits_of(again, tiny.batch())[name], value)


def test_outputs_carry_the_routing_if_asked(tiny: Tiny) -> None:
    model, batch = adopted(tiny, balance=0.5), tiny.batch()
    without = model(**batch)
    assert "router_logits" not in without
    with record_routing(model) as tape:
        outputs = model(**batch, output_router_logits=True)
    # The block around the call has all of it, too.
    assert len(tape.entries) == len(tiny.stacks)
    assert outputs.aux_loss.item() == pytest.approx(torch.as_tensor(tape.loss()).item())
    assert outputs.aux_loss.item() > 0
    assert isinstance(outputs.router_logits, tuple)
    masks = tiny.masks(batch)
    for logits, entry, stack in zip(outputs.router_logits, tape.entries, tiny.stacks, strict=True):
        batch_size, positions = masks[stack].shape
        assert logits.shape == (batch_size * positions, 4)
        # Sequence by sequence, whatever the order inside the model.
        real = masks[stack].flatten().bool()
        probs_TE = entry.routing.probs_TE
        if entry.time_major:
            probs_TE = probs_TE.view(positions, batch_size, 4).transpose(0, 1).reshape(-1, 4)
        torch.testing.assert_close(logits.softmax(1)[real], probs_TE[real])
    model.config.output_router_logits = True
    again = model(**batch)
    assert torch.equal(again.aux_loss, outputs.aux_loss)
    as_tuple = model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == len(again)
    assert pickle.loads(pickle.dumps(type(again))) is type(again)


def test_the_loss_has_the_auxiliary_loss_in_it(tiny: Tiny) -> None:
    model, batch = adopted(tiny, balance=0.5), dict(tiny.batch())
    if tiny.head == "sequence-classification":
        batch["labels"] = torch.tensor([0, 1, 1])
    elif tiny.head == "question-answering":
        batch |= {"start_positions": torch.tensor([0, 1, 1]), "end_positions": torch.tensor([2, 3, 1])}
    else:
        ids = batch.get("decoder_input_ids", batch["input_ids"])
        batch["labels"] = ids.clone()
    plain = model(**batch).loss
    outputs = model(**batch, output_router_logits=True)
    assert outputs.loss.item() == pytest.approx(plain.item() + outputs.aux_loss.item(), rel=1e-6)
    model.config.router_aux_loss_coef = 0.25
    fourth = model(**batch, output_router_logits=True).loss
    assert fourth.item() == pytest.approx(plain.item() + 0.25 * outputs.aux_loss.item(), rel=1e-6)
    outputs.loss.backward()
    assert all(router_weight(layer).grad is not None for layer in moe_layers(model))


def copies(model: Any, folder: Path) -> list[Any]:
    """The model copied, pickled and saved whole."""
    torch.save(model, folder / "model.pt")
    return [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(folder / "model.pt", weights_only=False),
    ]


def test_copies_are_models_of_their_own(tiny: Tiny, tmp_path: Path) -> None:
    model, batch = adopted(tiny), tiny.batch()
    expected = logits_of(model, batch)  # masks of a call are there
    for made in copies(model, tmp_path):
        assert type(made) is type(model)
        assert [layer.experts.backend for layer in moe_layers(made)] == [
            layer.experts.backend for layer in moe_layers(model)
        ]
        for name, value in logits_of(made, batch).items():
            assert torch.equal(value, expected[name])
        # Its layers look at its own masks, and its weights are its own.
        with record_routing(made) as tape:
            logits_of(made, tiny.batch(masked=False))
        assert all((entry.count_BS() > 0).all() for entry in tape.entries)
        with torch.no_grad():
            moe_layers(made)[0].experts.w1.zero_()
    for name, value in logits_of(model, batch).items():
        assert torch.equal(value, expected[name])


def test_a_model_without_a_class_of_its_own_can_be_copied(tiny: Tiny, tmp_path: Path) -> None:
    """As runs train it."""
    model, batch = tiny.converted("top-2"), tiny.batch()
    expected = logits_of(model, batch)
    for made in copies(model, tmp_path):
        for name, value in logits_of(made, batch).items():
            assert torch.equal(value, expected[name])


def test_generated_text_is_the_same(tmp_path: Path) -> None:
    tiny = Tiny("gpt2", "causal-language-model")
    model = adopted(tiny)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded.config.output_router_logits = True  # changes no text
    ids = tiny.batch(masked=False)["input_ids"]
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(loaded.generate(ids, **options), model.generate(ids, **options))


# --- folders that are not as they should be -------------------------------------------------------


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    plain = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in plain.items() if value is not None or key not in changes}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_folders_of_older_runs_load(tiny: Tiny, tmp_path: Path) -> None:
    """They have the dense `model_type`, no version, and their own class in no library."""
    model = tiny.converted("adaptive")
    model.save_pretrained(tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text())
    assert plain["model_type"] == backbones.load(tiny.backbone).MODEL_TYPE
    settings = {key: value for key, value in plain["repro_moe"].items() if key != "schema_version"}
    change(tmp_path, repro_moe=settings)
    auto_class = getattr(transformers, models.AUTO_CLASSES[tiny.head])
    with pytest.raises(UserError, match=r": a model of an older version of repro; repro\.load loads it$"):
        auto_class.from_pretrained(tmp_path)
    loaded = repro.load(tmp_path)
    for name, value in logits_of(model, tiny.batch()).items():
        assert torch.equal(logits_of(loaded, tiny.batch())[name], value)
    loaded.save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["model_type"] != plain["model_type"]


def test_a_dense_model_stays_plain(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny.converted("dense")
    pretrained.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == tiny.backbone
    assert type(repro.load(tmp_path)) is type(model)
    loaded = getattr(transformers, models.AUTO_CLASSES[tiny.head]).from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert type(loaded.config) is backbones.load(tiny.backbone).CONFIG
    assert type(transformers.AutoConfig.for_model(tiny.backbone)) is type(loaded.config)


def test_another_version_is_refused(tmp_path: Path) -> None:
    tiny = ALL[0]
    pretrained.save(tiny.converted("top-2"), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())["repro_moe"]
    change(tmp_path, repro_moe=settings | {"schema_version": 2})
    message = r"schema version 2, expected 1; written by another version of repro$"
    with pytest.raises(UserError, match=message):
        pretrained.load(tmp_path, CPU)
    with pytest.raises(UserError, match=message):
        getattr(transformers, models.AUTO_CLASSES[tiny.head]).from_pretrained(tmp_path)


def test_a_folder_without_its_settings_is_refused(tmp_path: Path) -> None:
    tiny = ALL[0]
    pretrained.save(tiny.converted("top-2"), tmp_path)
    change(tmp_path, repro_moe=None)
    with pytest.raises(UserError, match=r"not a saved model \(no repro_moe in config\.json\)$"):
        pretrained.load(tmp_path, CPU)
    with pytest.raises(UserError, match=r"no repro_moe in it; repro\.convert converts a dense model$"):
        getattr(transformers, models.AUTO_CLASSES[tiny.head]).from_pretrained(tmp_path)


def test_there_is_no_class_of_another_name() -> None:
    for module, name in ((repro.hf, "ReproNothing"), (repro, "nothing")):
        with pytest.raises(AttributeError, match=name):
            getattr(module, name)
