"""Configurations: decoding, checking, run ids, and the way from a scale file and options to a run."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repro import experiments, plugins
from repro.config import ALTERNATIVES, RunConfig, from_dict
from repro.errors import UserError
from repro.experiments import Override, Places, read_scale, resolve

TASKS = plugins.names("tasks")


def resolved(gate: str = "adaptive", **given: Any) -> tuple[RunConfig, Places]:
    """`resolve` with the defaults of the command line; `overrides` maps keys to values."""
    overrides = {key: Override(value, "option") for key, value in given.pop("overrides", {}).items()}
    arguments = {"task": "sst2", "scale": "mini", "seed": 0, "data": None, "model": None}
    return resolve(gate=gate, overrides=overrides, results=Path("results"), **arguments | given)


def config(gate: str = "adaptive", **given: Any) -> RunConfig:
    return resolved(gate, **given)[0]


def plain() -> dict[str, Any]:
    return config().to_dict()


def problems(call: Any, *arguments: Any, **named: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    return list(caught.value.problems)


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def with_leaf(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with one dotted key replaced."""
    first, _, rest = key.partition(".")
    return values | {first: with_leaf(values[first], rest, value) if rest else value}


# Another valid value for every setting that a number or a flip cannot give.
OTHER = {
    "model.config.activation_function": "relu",
    "scale": "small",
    "task_options.direction": "en-de",
    "gate_options.normalisation": "raw",
    "gate_options.combine": "renormalised",
    "model.backbone": "other",
    "model.checkpoint": "somewhere/bert",
    "data.source": "hub",
    "experts.init": "upcycle",
    "experts.activation": "relu",
    "experts.backend": "loop",
    "training.steps": 7,
    "training.epochs": 1.25,
    "training.batch_size": 77,
    "training.batch_tokens": 777,
    "training.precision": "fp32",
    "training.curriculum": "length",
}


class TestRunId:
    def test_format(self) -> None:
        assert re.fullmatch(r"sst2-adaptive-s0-[0-9a-f]{8}", config().run_id)
        assert re.fullmatch(r"sst2-top-2-s3-[0-9a-f]{8}", config("top-2", seed=3).run_id)

    def test_is_a_function_of_the_content_alone(self) -> None:
        shuffled = {key: plain()[key] for key in reversed(plain())}
        shuffled["model"]["config"] = dict(reversed(shuffled["model"]["config"].items()))
        assert from_dict(shuffled).run_id == config().run_id
        assert from_dict(shuffled) == config()
        assert hash(from_dict(shuffled)) == hash(config())

    def test_does_not_depend_on_the_results_folder(self) -> None:
        there = resolve(
            task="sst2",
            scale="mini",
            gate="adaptive",
            seed=0,
            data=None,
            model=None,
            overrides={},
            results=Path("elsewhere"),
        )
        assert there[0].run_id == config().run_id
        assert there[1].results == Path("elsewhere")

    @pytest.mark.parametrize("task", TASKS)
    def test_changes_with_every_setting(self, task: str) -> None:
        base = config(task=task).to_dict()
        ids = {config(task=task).run_id}
        keys = [key for key, _ in leaves(base) if key not in ("gate", "task")]
        assert len(keys) > 30
        for key, value in leaves(base):
            if key in ("gate", "task"):
                continue
            if key in OTHER:
                other = OTHER[key]
            elif isinstance(value, int):
                other = value + 1
            else:
                assert isinstance(value, float), f"give {key} another value in OTHER"
                other = value / 2 or 0.25
            changed = with_leaf(base, key, other)
            for pair in ALTERNATIVES:
                if key in (f"training.{name}" for name in pair):
                    (rest,) = (name for name in pair if key != f"training.{name}")
                    changed = with_leaf(changed, f"training.{rest}", None)
            ids.add(from_dict(changed).run_id)
        assert len(ids) == 1 + len(keys)

    def test_changes_with_the_task(self) -> None:
        """The same settings for two tasks that have no options."""
        assert (
            from_dict(plain() | {"task": "soda"}).run_id != from_dict(plain() | {"task": "wikitext"}).run_id
        )

    def test_a_whole_number_is_the_same_as_its_float(self) -> None:
        one, other = ({"training.epochs": epochs} for epochs in (2, 2.0))
        assert config(overrides=one).run_id == config(overrides=other).run_id

    def test_a_default_written_out_changes_nothing(self) -> None:
        written = {"gate.threshold": 0.1, "experts.count": 16, "training.curriculum": "cosine"}
        assert config(overrides=written).run_id == config().run_id


class TestDecoding:
    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "top-3", "top-k", "adaptive"])
    def test_round_trip_through_json(self, gate: str) -> None:
        for task in TASKS:
            made = config(gate, task=task, overrides={"model.config.hidden_act": "relu"})
            again = from_dict(json.loads(json.dumps(made.to_dict())))
            assert again == made
            assert again.run_id == made.run_id
            assert again.to_dict() == made.to_dict()

    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            config().seed = 1  # type: ignore[misc]

    def test_lists_all_problems_together(self) -> None:
        values = plain()
        values["gate_options"] |= {"threshold": 1.5, "treshold": 0.1}
        values["training"] |= {"batch_size": "big", "learning_rate": -1}
        values["data"] |= {"max_length": 2}
        del values["model"]["backbone"]
        found = problems(from_dict, values)
        keys = ("threshold:", "treshold:", "batch_size:", "learning_rate:", "max_length:", "backbone:")
        assert len(found) == len(keys)
        for key in keys:
            assert sum(key.removeprefix("t") in line and key in line for line in found) >= 1, key

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("training.batch_size", 1.5, "training.batch_size: expected a whole number or none, got 1.5"),
            ("training.batch_size", True, "training.batch_size: expected a whole number or none, got True"),
            ("training.accumulation", 1.5, "training.accumulation: expected a whole number, got 1.5"),
            ("training.accumulation", True, "training.accumulation: expected a whole number, got True"),
            ("training.accumulation", None, "training.accumulation: expected a whole number, got None"),
            ("training.learning_rate", "fast", "training.learning_rate: expected a number, got 'fast'"),
            ("training.learning_rate", True, "training.learning_rate: expected a number, got True"),
            ("data.train_samples", "3", "data.train_samples: expected a whole number or none, got '3'"),
            ("model.backbone", 3, "model.backbone: expected text, got 3"),
            ("experts.init", "copy", "experts.init: expected one of random, upcycle, got 'copy'"),
            ("experts.init", [], "experts.init: expected one of random, upcycle, got []"),
            ("gate_options.threshold", "0.1", "gate.threshold: expected a number, got '0.1'"),
        ],
    )
    def test_wrong_type(self, key: str, value: Any, message: str) -> None:
        assert problems(from_dict, with_leaf(plain(), key, value)) == [message]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("gate_options.threshold", -0.01, "gate.threshold: must be between 0 and 1, got -0.01"),
            ("gate_options.threshold", 1.01, "gate.threshold: must be between 0 and 1, got 1.01"),
            ("gate_options.threshold", float("nan"), "gate.threshold: must be between 0 and 1, got nan"),
            ("training.warmup", 2, "training.warmup: must be between 0 and 1, got 2"),
            ("training.batch_size", 0, "training.batch_size: must be at least 1, got 0"),
            ("training.learning_rate", 0, "training.learning_rate: must be greater than 0, got 0"),
            ("experts.count", -4, "experts.count: must be at least 1, got -4"),
            ("data.train_samples", 0, "data.train_samples: must be at least 1, got 0"),
        ],
    )
    def test_out_of_range(self, key: str, value: Any, message: str) -> None:
        assert problems(from_dict, with_leaf(plain(), key, value)) == [message]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("gate_options.threshold", 0),
            ("gate_options.threshold", 1),
            ("training.warmup", 0),
            ("training.warmup", 1.0),
            ("training.batch_size", 1),
            ("data.max_length", 4),
            ("model.vocab_size", 32),
        ],
    )
    def test_limits_are_inclusive(self, key: str, value: Any) -> None:
        assert dict(leaves(from_dict(with_leaf(plain(), key, value)).to_dict()))[key] == value

    @pytest.mark.parametrize(
        ("key", "near"), [("batchsize", "batch_size"), ("learning-rate", "learning_rate"), ("step", "steps")]
    )
    def test_unknown_key_offers_the_nearest(self, key: str, near: str) -> None:
        values = plain()
        values["training"][key] = 1
        (line,) = problems(from_dict, values)
        assert line.startswith(f"training.{key}: unknown key {key!r}. Did you mean {near!r}? Known: steps, ")

    def test_says_where_a_value_came_from(self) -> None:
        values = with_leaf(with_leaf(plain(), "training.accumulation", 0), "experts.count", 0)
        found = problems(from_dict, values, lambda key: {"experts.count": "--set x: "}.get(key, "file: "))
        assert sorted(found) == [
            "--set x: experts.count: must be at least 1, got 0",
            "file: training.accumulation: must be at least 1, got 0",
        ]

    @pytest.mark.parametrize("value", ["none", None])
    @pytest.mark.parametrize(
        "key", ["training.clip_norm", "data.train_samples", "data.validation_samples", "model.vocab_size"]
    )
    def test_none_for_optional_values(self, key: str, value: Any) -> None:
        assert dict(leaves(from_dict(with_leaf(plain(), key, value)).to_dict()))[key] is None

    def test_none_is_no_value_for_the_others(self) -> None:
        found = problems(from_dict, with_leaf(plain(), "experts.count", "none"))
        assert found == ["experts.count: expected a whole number, got 'none'"]


class TestGateNames:
    @pytest.mark.parametrize(
        ("spelled", "name", "k"),
        [
            ("top-1", "top-1", 1),
            ("top-2", "top-2", 2),
            ("top_2", "top-2", 2),
            ("top-3", "top-3", 3),
            ("top-k", "top-2", 2),
            ("top_k", "top-2", 2),
        ],
    )
    def test_top_k(self, spelled: str, name: str, k: int) -> None:
        made = config(spelled)
        assert (made.gate, made.gate_options.k) == (name, k)
        assert made.run_id == config(name).run_id

    def test_k_of_top_k_is_an_option(self) -> None:
        made = config("top-k", overrides={"gate.k": 4})
        assert (made.gate, made.gate_options.k) == ("top-4", 4)
        assert made.run_id == config("top-4").run_id

    def test_a_number_in_the_name_fixes_k(self) -> None:
        (line,) = problems(config, "top-2", overrides={"gate.k": 3})
        assert line == "option: the name 'top-2' fixes k = 2; use --gate top-k"

    def test_dense_and_adaptive(self) -> None:
        assert dataclasses.asdict(config("dense").gate_options) == {}
        assert dataclasses.asdict(config("adaptive").gate_options) == {
            "threshold": 0.1,
            "normalisation": "pair",
            "combine": "raw",
            "logit_std": 1.0,
            "balance": 0.01,
        }

    def test_unknown(self) -> None:
        (line,) = problems(config, "adptive")
        assert line.startswith("--gate: unknown gate 'adptive'. Did you mean 'adaptive'?")


class TestTaskOptions:
    def test_of_every_task(self) -> None:
        """Those of the scale, with the task's own defaults for the others."""
        found = {task: dataclasses.asdict(config(task=task).task_options) for task in TASKS}
        assert found["sst2"] == found["wikitext"] == found["soda"] == {}
        assert set(found["squad"]) == {"stride", "max_question_length", "max_answer_length"}
        decoding = {"max_target_length", "beams", "length_penalty"}
        assert set(found["wmt19"]) == {"direction", *decoding}
        assert set(found["cnn_dailymail"]) == {"min_target_length", "no_repeat_ngram", *decoding}
        written = read_scale("mini")
        for task in TASKS:
            assert written[task].get("task", {}).items() <= found[task].items()
        assert found["squad"]["max_answer_length"] == 30

    def test_are_part_of_the_run(self) -> None:
        made = config(task="wmt19", overrides={"task.direction": "en-de", "task.beams": 1})
        assert (made.task_options.direction, made.task_options.beams) == ("en-de", 1)
        assert made.to_dict()["task_options"]["beams"] == 1
        assert made.run_id != config(task="wmt19").run_id

    def test_unknown(self) -> None:
        (line,) = problems(config, task="wmt19", overrides={"task.beam": 1})
        assert line == (
            "option: the task 'wmt19' has no option 'beam';"
            " it has: direction, max_target_length, beams, length_penalty."
        )

    def test_of_another_task(self) -> None:
        (line,) = problems(config, overrides={"task.beams": 1})
        assert line == (
            "option: the task 'sst2' has no option 'beams'; it has: none."
            " Tasks with 'beams': cnn_dailymail, wmt19."
        )

    @pytest.mark.parametrize(
        ("task", "key", "value", "message"),
        [
            ("wmt19", "beams", 0, "must be at least 1, got 0"),
            ("wmt19", "beams", 1.5, "expected a whole number, got 1.5"),
            ("wmt19", "direction", "fr-en", "expected one of de-en, en-de, got 'fr-en'"),
            ("wmt19", "max_target_length", 3, "must be at least 4, got 3"),
            ("wmt19", "length_penalty", "none", "expected a number, got 'none'"),
            ("cnn_dailymail", "no_repeat_ngram", -1, "must be at least 0, got -1"),
            ("squad", "stride", -1, "must be at least 0, got -1"),
            ("squad", "max_answer_length", 0, "must be at least 1, got 0"),
        ],
    )
    def test_wrong_value(self, task: str, key: str, value: object, message: str) -> None:
        found = problems(config, task=task, overrides={f"task.{key}": value})
        assert found == [f"option: task.{key}: {message}"]


class TestResolve:
    def test_mini_is_what_its_file_says(self) -> None:
        made = config()
        assert made.model.vocab_size == 1000
        assert dict(made.model.config)["hidden_size"] == 128
        assert (made.training.epochs, made.training.steps) == (2, None)
        assert (made.data.source, made.data.train_samples) == ("synthetic", 8000)
        assert made.experts.count == 16

    @pytest.mark.parametrize("scale", experiments.scale_names())
    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
    def test_every_scale_resolves(self, scale: str, gate: str) -> None:
        for task in [name for name in TASKS if name in read_scale(scale)]:
            made = config(gate, task=task, scale=scale)
            assert (made.task, made.scale, made.gate) == (task, scale, gate)

    def test_mini_has_all_tasks(self) -> None:
        """With the model of each that the task is made for."""
        for task in TASKS:
            assert config(task=task).model.backbone == plugins.constants("tasks", task)["BACKBONE"]

    @pytest.mark.parametrize(
        ("gate", "order"),
        [("adaptive", "cosine"), ("top-1", "random"), ("top-2", "random"), ("dense", "random")],
    )
    def test_default_curriculum(self, gate: str, order: str) -> None:
        assert config(gate).training.curriculum == order

    @pytest.mark.parametrize("gate", ["adaptive", "top-2", "dense"])
    @pytest.mark.parametrize("order", ["random", "length"])
    def test_curriculum_for_any_gate(self, gate: str, order: str) -> None:
        assert config(gate, overrides={"training.curriculum": order}).training.curriculum == order

    @pytest.mark.parametrize("order", ["cosine", "count"])
    def test_curriculum_of_adaptive_gates_only(self, order: str) -> None:
        (line,) = problems(config, "top-2", overrides={"training.curriculum": order})
        assert line.startswith(f"option: {order!r} orders samples by their share of two-expert tokens")

    def test_steps_replace_epochs(self) -> None:
        made = config(overrides={"training.steps": 5})
        assert (made.training.steps, made.training.epochs) == (5, None)

    def test_steps_and_epochs_exclude_each_other(self) -> None:
        found = problems(config, overrides={"training.steps": 5, "training.epochs": 1})
        assert found == ["training.steps, training.epochs: give exactly one of them"]

    @pytest.mark.parametrize("key", ["training.steps", "training.epochs"])
    def test_neither_steps_nor_epochs(self, key: str) -> None:
        found = problems(config, overrides={key: "none"})
        assert found == ["training.steps, training.epochs: give exactly one of them"]

    @pytest.mark.parametrize(
        ("task", "key"), [("sst2", "batch_tokens"), ("wmt19", "batch_size"), ("soda", "batch_tokens")]
    )
    def test_one_batch_size_replaces_the_other(self, task: str, key: str) -> None:
        before, made = config(task=task), config(task=task, overrides={f"training.{key}": 123})
        (other,) = {"batch_size", "batch_tokens"} - {key}
        assert getattr(before.training, key) is None
        assert getattr(before.training, other) is not None
        assert (getattr(made.training, key), getattr(made.training, other)) == (123, None)

    def test_batch_sizes_exclude_each_other(self) -> None:
        found = problems(config, overrides={"training.batch_size": 5, "training.batch_tokens": 100})
        assert found == ["training.batch_size, training.batch_tokens: give exactly one of them"]

    @pytest.mark.parametrize("task", ["sst2", "wmt19"])
    @pytest.mark.parametrize("key", ["training.batch_size", "training.batch_tokens"])
    def test_neither_batch_size(self, task: str, key: str) -> None:
        found = problems(config, task=task, overrides={key: "none"})
        assert found == ["training.batch_size, training.batch_tokens: give exactly one of them"]

    def test_both_pairs_at_once(self) -> None:
        wrong = {"training.batch_size": "none", "training.steps": "none"}
        assert len(problems(config, overrides=wrong)) == 2

    def test_a_model_option_is_added_to_those_of_the_scale(self) -> None:
        options = dict(config(overrides={"model.config.hidden_act": "relu"}).model.config)
        assert options["hidden_act"] == "relu"
        assert options["hidden_size"] == 128

    def test_dense_has_no_experts(self) -> None:
        (line,) = problems(config, "dense", overrides={"experts.count": 8})
        assert line == "option: experts.count has no effect: the gate 'dense' has no experts"

    def test_problems_of_all_kinds_together(self) -> None:
        wrong = {
            "training.batch_size": 0,
            "training.stepz": 3,
            "gate.k": 2,
            "experts.backend": "groupd",
            "training.steps": 1,
            "training.epochs": 1,
        }
        found = problems(config, overrides=wrong)
        assert len(found) == 5
        for part in ("batch_size: must be", "'training.stepz'", "no option 'k'", "'grouped'", "exactly one"):
            assert any(part in line for line in found), part


class TestScaleFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        shutil.copytree(experiments.scales_folder(), tmp_path / "experiments")
        monkeypatch.setattr(experiments, "scales_folder", lambda: tmp_path / "experiments")
        return tmp_path / "experiments"

    def append(self, folder: Path, text: str) -> None:
        path = folder / "mini.toml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    def test_a_file_is_a_scale(self, folder: Path) -> None:
        (folder / "mini.toml").rename(folder / "tiny.toml")
        assert config(scale="tiny").scale == "tiny"
        (line,) = problems(config, scale="mini")
        assert line.startswith("--scale: unknown scale 'mini'. Did you mean 'tiny'?")

    def test_options_of_a_task(self, folder: Path) -> None:
        path = folder / "mini.toml"
        path.write_text(path.read_text(encoding="utf-8").replace("beams = 4", "beams = 0"), encoding="utf-8")
        assert problems(config, task="wmt19") == [
            "experiments/mini.toml: wmt19.task.beams: must be at least 1, got 0"
        ]
        self.append(folder, "\n[sst2.task]\nbeams = 2\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: sst2.task.beams: unknown key 'beams'")

    def test_both_batch_sizes(self, folder: Path) -> None:
        path = folder / "mini.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace("[sst2.training]\n", "[sst2.training]\nbatch_tokens = 9\n"), encoding="utf-8"
        )
        (line,) = problems(config)
        assert "training.batch_size, training.batch_tokens: give exactly one of them" in line
        # What the user gives decides.
        assert config(overrides={"training.batch_size": 4}).training.batch_tokens is None

    def test_unknown_section(self, folder: Path) -> None:
        self.append(folder, "\n[sst2.trainng]\nsteps = 3\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: sst2")
        assert "unknown section 'trainng'. Did you mean 'training'?" in line

    def test_unknown_key(self, folder: Path) -> None:
        self.append(folder, "\n[sst2.experts]\ncont = 3\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: sst2.experts.cont: unknown key 'cont'")
        assert "Did you mean 'count'?" in line

    def test_wrong_value(self, folder: Path) -> None:
        self.append(folder, '\n[sst2.experts]\ncount = "many"\n')
        found = problems(config)
        assert found == ["experiments/mini.toml: sst2.experts.count: expected a whole number, got 'many'"]

    def test_not_toml(self, folder: Path) -> None:
        self.append(folder, "\n[sst2.experts\n")
        (line,) = problems(config)
        assert line.startswith("experiments/mini.toml: ")
        assert "line" in line

    def test_no_section_for_the_task(self, folder: Path) -> None:
        (folder / "mini.toml").write_text("[base.experts]\ncount = 16\n", encoding="utf-8")
        assert problems(config) == ["experiments/mini.toml: no section for task 'sst2'"]

    def test_neither_checkpoint_nor_vocabulary(self, folder: Path) -> None:
        path = folder / "mini.toml"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^vocab_size = .*\n", "", text), encoding="utf-8")
        assert problems(config) == ["experiments/mini.toml: model: give a checkpoint or a vocab_size"]


class TestInputs:
    def test_data_keep_their_name_when_they_move(self, data_folder: Path) -> None:
        made, places = resolved(data=str(data_folder))
        assert re.fullmatch(r"folder:[0-9a-f]{16}", made.data.source)
        assert places.data == data_folder
        moved = data_folder.rename(data_folder.with_name("moved"))
        again, places = resolved(data=str(moved))
        assert again.run_id == made.run_id
        assert places.data == moved
        assert str(moved) not in json.dumps(again.to_dict())

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_other_data_is_another_run(self, data_folder: Path, split: str) -> None:
        before = config(data=str(data_folder)).run_id
        path = data_folder / "sst2" / f"{split}.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace("warm", "cold"), encoding="utf-8")
        assert config(data=str(data_folder)).run_id != before

    def test_the_test_split_is_no_part_of_a_run(self, data_folder: Path) -> None:
        before = config(data=str(data_folder)).run_id
        (data_folder / "sst2" / "test.jsonl").unlink()
        assert config(data=str(data_folder)).run_id == before

    def test_a_model_keeps_its_name_when_it_moves(self, bert_folder: Path, tmp_path: Path) -> None:
        made, places = resolved(model=str(bert_folder))
        assert made.model.checkpoint is not None
        assert re.fullmatch(r"dir:tiny-bert:[0-9a-f]{16}", made.model.checkpoint)
        assert (made.model.vocab_size, made.model.config) == (None, ())
        assert places.model == bert_folder
        moved = tmp_path / "moved" / "tiny-bert"
        shutil.copytree(bert_folder, moved)
        assert config(model=str(moved)).run_id == made.run_id

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_another_model_is_another_run(self, bert_folder: Path, tmp_path: Path, name: str) -> None:
        other = tmp_path / "tiny-bert"
        shutil.copytree(bert_folder, other)
        (other / name).write_text((other / name).read_text(encoding="utf-8") + " ", encoding="utf-8")
        assert config(model=str(other)).run_id != config(model=str(bert_folder)).run_id

    def test_a_hub_id_is_kept(self) -> None:
        made, places = resolved(model="google-bert/bert-base-uncased")
        assert made.model.checkpoint == "google-bert/bert-base-uncased"
        assert places.model is None

    def test_a_vocabulary_has_no_effect_with_a_checkpoint(self, bert_folder: Path) -> None:
        (line,) = problems(config, model=str(bert_folder), overrides={"model.vocab_size": 300})
        assert "has no effect with a checkpoint" in line
