"""The way from a scale file and the options of a command to a run."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from resolved import config, problems, resolved

from repro import plugins
from repro.config import ORDERS_BY_RATIOS
from repro.run.scales import read_scale, scale_names
from repro.tasks.base import load as load_task

TASKS = plugins.names("tasks")


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
        assert dataclasses.asdict(config("dense").gate_options) == {"ffn_scale": 1.0}
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
        options = {task: dataclasses.asdict(config(task=task).task_options) for task in TASKS}
        assert options["sst2"] == options["wikitext"] == options["soda"] == {}
        assert set(options["squad"]) == {"stride", "max_question_length", "max_answer_length"}
        decoding = {"max_target_length", "beams", "length_penalty"}
        assert set(options["wmt19"]) == {"direction", *decoding}
        assert set(options["cnn_dailymail"]) == {"min_target_length", "no_repeat_ngram", *decoding}
        written = read_scale("mini")
        for task in TASKS:
            assert written[task].get("task", {}).items() <= options[task].items()
        assert options["squad"]["max_answer_length"] == 30

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
        lines = problems(config, task=task, overrides={f"task.{key}": value})
        assert lines == [f"option: task.{key}: {message}"]


class TestResolve:
    def test_mini_is_what_its_file_says(self) -> None:
        made = config()
        assert made.model.vocab_size == 1000
        assert dict(made.model.config)["hidden_size"] == 128
        assert (made.training.epochs, made.training.steps) == (2, None)
        assert (made.data.source, made.data.train_samples) == ("synthetic", 4000)
        assert made.experts.count == 16

    @pytest.mark.parametrize("scale", scale_names())
    @pytest.mark.parametrize("gate", ["dense", "top-1", "top-2", "adaptive"])
    def test_every_scale_resolves(self, scale: str, gate: str) -> None:
        for task in [name for name in TASKS if name in read_scale(scale)]:
            made = config(gate, task=task, scale=scale)
            assert (made.task, made.scale, made.gate) == (task, scale, gate)

    def test_mini_has_all_tasks(self) -> None:
        """With the model of each that the task is made for."""
        for task in TASKS:
            assert config(task=task).model.backbone == load_task(task).BACKBONE

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

    @pytest.mark.parametrize(
        ("key", "value", "order", "told"),
        [
            ("training.epochs", 1, "random", "would act from the second epoch on"),
            ("training.epochs", 0.5, "random", "would act from the second epoch on"),
            ("training.epochs", 1.25, "cosine", None),
            ("training.steps", 5, "random", "with training.steps .* must be asked for"),
        ],
    )
    def test_default_curriculum_that_would_never_act(
        self, caplog: pytest.LogCaptureFixture, key: str, value: float, order: str, told: str | None
    ) -> None:
        """An order by ratios, that is; one notice says so, and the configuration is that of random order."""
        made = config(overrides={key: value})
        assert made.training.curriculum == order
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == (told is not None)
        assert all(re.search(f"adaptive: data in random order, as .*{told}", line) for line in lines)
        asked = config(overrides={key: value, "training.curriculum": "random"})
        assert (asked.run_id == made.run_id) is (order == "random")
        assert config("top-2", overrides={key: value}).training.curriculum == "random"
        assert len(caplog.records) == len(lines)

    @pytest.mark.parametrize("order", ORDERS_BY_RATIOS)
    def test_curriculum_that_was_asked_for_and_never_acts(self, order: str) -> None:
        (line,) = problems(config, overrides={"training.epochs": 1, "training.curriculum": order})
        assert line == (
            f"option: {order!r} acts from the second epoch on, and training.epochs is 1;"
            " give more than 1, or --curriculum random"
        )
        for key, value in (("training.epochs", 1.25), ("training.steps", 5)):
            made = config(overrides={key: value, "training.curriculum": order})
            assert made.training.curriculum == order

    @pytest.mark.parametrize("order", ORDERS_BY_RATIOS)
    def test_curriculum_of_adaptive_gates_only(self, order: str) -> None:
        (line,) = problems(config, "top-2", overrides={"training.curriculum": order})
        assert line.startswith(f"option: {order!r} orders samples by their share of two-expert tokens")

    def test_steps_replace_epochs(self) -> None:
        made = config(overrides={"training.steps": 5})
        assert (made.training.steps, made.training.epochs) == (5, None)

    def test_steps_and_epochs_exclude_each_other(self) -> None:
        lines = problems(config, overrides={"training.steps": 5, "training.epochs": 1})
        assert lines == ["training.steps, training.epochs: give exactly one of them"]

    @pytest.mark.parametrize("key", ["training.steps", "training.epochs"])
    def test_neither_steps_nor_epochs(self, key: str) -> None:
        lines = problems(config, overrides={key: "none"})
        assert lines == ["training.steps, training.epochs: give exactly one of them"]

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
        lines = problems(config, overrides={"training.batch_size": 5, "training.batch_tokens": 100})
        assert lines == ["training.batch_size, training.batch_tokens: give exactly one of them"]

    @pytest.mark.parametrize("task", ["sst2", "wmt19"])
    @pytest.mark.parametrize("key", ["training.batch_size", "training.batch_tokens"])
    def test_neither_batch_size(self, task: str, key: str) -> None:
        lines = problems(config, task=task, overrides={key: "none"})
        assert lines == ["training.batch_size, training.batch_tokens: give exactly one of them"]

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
        lines = problems(config, overrides=wrong)
        assert len(lines) == 5
        for part in ("batch_size: must be", "'training.stepz'", "no option 'k'", "'grouped'", "exactly one"):
            assert any(part in line for line in lines), part


class TestInputs:
    def test_data_keep_their_name_when_they_move(self, data_folder: Path) -> None:
        made, paths = resolved(data=str(data_folder))
        assert re.fullmatch(r"folder:[0-9a-f]{16}", made.data.source)
        assert paths.data == data_folder
        moved = data_folder.rename(data_folder.with_name("moved"))
        again, paths = resolved(data=str(moved))
        assert again.run_id == made.run_id
        assert paths.data == moved
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
        made, paths = resolved(model=str(bert_folder))
        assert made.model.checkpoint is not None
        assert re.fullmatch(r"dir:tiny-bert:[0-9a-f]{16}", made.model.checkpoint)
        assert (made.model.vocab_size, made.model.config) == (None, ())
        assert paths.model == bert_folder
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
        made, paths = resolved(model="google-bert/bert-base-uncased")
        assert made.model.checkpoint == "google-bert/bert-base-uncased"
        assert paths.model is None

    def test_a_vocabulary_has_no_effect_with_a_checkpoint(self, bert_folder: Path) -> None:
        (line,) = problems(config, model=str(bert_folder), overrides={"model.vocab_size": 300})
        assert "has no effect with a checkpoint" in line
