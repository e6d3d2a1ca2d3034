"""Configurations as values: decoding, checking, run ids."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Json
from resolved import config, problems, resolved

from repro import plugins
from repro.config import ALTERNATIVES, from_dict
from repro.moe.backbones.base import load as load_backbone
from repro.tasks.base import load as load_task

TASKS = plugins.names("tasks")


def plain() -> Json:
    return config().to_dict()


def leaves(values: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def with_leaf(values: Json, key: str, value: object) -> Json:
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
    "experts.scale": "fitted",
    "training.schedule": "linear",
    "experts.activation": "relu",
    "experts.backend": "loop",
    "training.steps": 7,
    "training.epochs": 1.25,
    "training.batch_size": 77,
    "training.batch_tokens": 777,
    "training.precision": "fp32",
    "training.curriculum": "length",
    "training.batch_tokens_of": "batch",
    "training.balance_over": "process",
    "training.lora_rank": 4,
    "training.lora_alpha": 3.0,
    "model.dtype": "bf16",
}
WHERE_ALONE = {
    "experts.parallel": 2,
    "training.shard": "fsdp",
    "training.gradient_checkpointing": True,
    "training.exchange_times": True,
}
"""What changes where a run is computed, and none of its numbers."""


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
        there = resolved(results=Path("elsewhere"))
        assert there[0].run_id == config().run_id
        assert there[1].results == Path("elsewhere")

    @pytest.mark.parametrize("task", TASKS)
    def test_changes_with_every_setting(self, task: str) -> None:
        base = config(task=task).to_dict()
        ids = {config(task=task).run_id}
        keys = [key for key, _ in leaves(base) if key not in ("gate", "task", *WHERE_ALONE)]
        assert len(keys) > 30
        for key, value in leaves(base):
            if key not in keys:
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

    @pytest.mark.parametrize(("key", "value"), WHERE_ALONE.items())
    def test_does_not_change_with_where_it_is_computed(self, key: str, value: object) -> None:
        assert from_dict(with_leaf(plain(), key, value)).run_id == config().run_id

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
            std = load_backbone(load_task(task).BACKBONE).INIT_STD
            made = config(gate, task=task, overrides={f"model.config.{std}": 0.5})
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
        lines = problems(from_dict, values)
        keys = ("threshold:", "treshold:", "batch_size:", "learning_rate:", "max_length:", "backbone:")
        assert len(lines) == len(keys)
        for key in keys:
            assert sum(key.removeprefix("t") in line and key in line for line in lines) >= 1, key

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
    def test_wrong_type(self, key: str, value: object, message: str) -> None:
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
            ("experts.count", -4, "experts.count: must be between 1 and 4096, got -4"),
            ("data.train_samples", 0, "data.train_samples: must be at least 1, got 0"),
        ],
    )
    def test_out_of_range(self, key: str, value: object, message: str) -> None:
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
    def test_limits_are_inclusive(self, key: str, value: object) -> None:
        assert dict(leaves(from_dict(with_leaf(plain(), key, value)).to_dict()))[key] == value

    @pytest.mark.parametrize(
        ("key", "near"), [("batchsize", "batch_size"), ("learning-rate", "learning_rate"), ("step", "steps")]
    )
    def test_unknown_key_offers_the_nearest(self, key: str, near: str) -> None:
        values = plain()
        values["training"][key] = 1
        (line,) = problems(from_dict, values)
        assert line == f"training.{key}: unknown key {key!r}. Did you mean {near!r}?"

    def test_says_where_a_value_came_from(self) -> None:
        values = with_leaf(with_leaf(plain(), "training.accumulation", 0), "experts.count", 0)
        lines = problems(from_dict, values, lambda key: {"experts.count": "--set x: "}.get(key, "file: "))
        assert sorted(lines) == [
            "--set x: experts.count: must be between 1 and 4096, got 0",
            "file: training.accumulation: must be at least 1, got 0",
        ]

    @pytest.mark.parametrize("value", ["none", None])
    @pytest.mark.parametrize(
        "key", ["training.clip_norm", "data.train_samples", "data.validation_samples", "model.vocab_size"]
    )
    def test_none_for_optional_values(self, key: str, value: object) -> None:
        assert dict(leaves(from_dict(with_leaf(plain(), key, value)).to_dict()))[key] is None

    def test_none_is_no_value_for_the_others(self) -> None:
        lines = problems(from_dict, with_leaf(plain(), "experts.count", "none"))
        assert lines == ["experts.count: expected a whole number, got 'none'"]
