"""Metrics: computed by hand, without network, in the form that the evaluator expects."""

from pathlib import Path
from typing import Any

import datasets
import evaluate
import pytest

from repro import plugins


def metric(name: str) -> Any:
    return plugins.load("metrics", name).Metric(keep_in_memory=True)


def example(feature: Any) -> Any:
    """Some value of a feature type: 1, a few words, or lists and mappings of them."""
    if isinstance(feature, dict):
        return {name: example(inner) for name, inner in feature.items()}
    if isinstance(feature, datasets.List | datasets.Sequence):
        return [example(feature.feature)]
    if isinstance(feature, list):
        return [example(feature[0])]
    return "a few words here" if feature.dtype in ("string", "large_string") else 1


# --- accuracy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "references", "accuracy"),
    [
        ([1, 0], [1, 1], 1 / 2),
        ([0, 1, 1, 0], [0, 1, 1, 0], 1.0),
        ([0, 0, 0], [1, 1, 1], 0.0),
        ([1, 1, 0, 0, 1], [1, 0, 0, 1, 1], 3 / 5),
        ([2, 1, 0, 2], [2, 2, 0, 1], 2 / 4),  # more than two labels
        ([1], [1], 1.0),
    ],
)
def test_accuracy_by_hand(predictions: list[int], references: list[int], accuracy: float) -> None:
    found = metric("accuracy").compute(predictions=predictions, references=references)
    assert found == {"accuracy": accuracy}
    assert type(found["accuracy"]) is float


def test_accuracy_of_many(tmp_path: Path) -> None:
    # 10,000 labels 0 1 0 1 ..., every fourth predicted wrongly: 0.75.
    references = [index % 2 for index in range(10_000)]
    predictions = [1 - label if index % 4 == 0 else label for index, label in enumerate(references)]
    assert metric("accuracy").compute(predictions=predictions, references=references) == {"accuracy": 0.75}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # kept in memory


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        metric("accuracy").compute(predictions=[1, 0], references=[1])


def test_a_metric_can_be_used_twice() -> None:
    found = metric("accuracy")
    assert found.compute(predictions=[1, 1], references=[1, 1]) == {"accuracy": 1.0}
    assert found.compute(predictions=[1, 1], references=[0, 1]) == {"accuracy": 0.5}


# --- every metric -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", plugins.names("metrics"))
def test_a_metric_says_which_way_is_better(name: str) -> None:
    module = plugins.load("metrics", name)
    assert isinstance(module.HIGHER_IS_BETTER, bool)
    assert plugins.constants("metrics", name)["HIGHER_IS_BETTER"] == module.HIGHER_IS_BETTER
    assert issubclass(module.Metric, evaluate.Metric)


@pytest.mark.parametrize("name", plugins.names("metrics"))
def test_the_result_has_an_entry_named_after_the_file(name: str) -> None:
    found = metric(name)
    features = found.features[0] if isinstance(found.features, list) else found.features
    predictions, references = example(features["predictions"]), example(features["references"])
    result = found.compute(predictions=[predictions] * 3, references=[references] * 3)
    assert name in result
    assert all(isinstance(value, float | int | str | None) for value in result.values())


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_every_task_names_a_metric(name: str) -> None:
    assert plugins.constants("tasks", name)["METRIC"] in plugins.names("metrics")
