"""Accuracy: computed by hand."""

import pytest

from repro.metrics.accuracy import Metric


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
    result = Metric().compute(predictions=predictions, references=references)
    assert result == {"accuracy": accuracy}
    assert type(result["accuracy"]) is float


def test_accuracy_of_many() -> None:
    # 10,000 labels 0 1 0 1 ..., every fourth predicted wrongly: 0.75.
    references = [index % 2 for index in range(10_000)]
    predictions = [1 - label if index % 4 == 0 else label for index, label in enumerate(references)]
    assert Metric().compute(predictions=predictions, references=references) == {"accuracy": 0.75}


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        Metric().compute(predictions=[1, 0], references=[1])


def test_a_metric_can_be_used_twice() -> None:
    metric = Metric()
    assert metric.compute(predictions=[1, 1], references=[1, 1]) == {"accuracy": 1.0}
    assert metric.compute(predictions=[1, 1], references=[0, 1]) == {"accuracy": 0.5}
