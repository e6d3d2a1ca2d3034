"""Answers that need no model, by hand: what a baseline must beat before a task is in a verdict."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from repro.metrics.base import load as load_metric
from repro.tasks import arc, cnn_dailymail, soda, squad, sst2, wikitext, wmt19
from repro.tasks.base import Feature, Row, Task


def score(task: Task, metric: str, train: list[Feature], features: list[Feature], rows: list[Row]) -> object:
    predictions = task.trivial(train, features, rows)
    assert predictions is not None
    answers, references = task.answers(predictions, features, rows)
    return load_metric(metric).Metric().compute(predictions=answers, references=references)[metric]


def without_tokenizer(module: Any) -> Any:
    """A task as far as it needs no tokenizer."""
    return module.Task(module.Config(), SimpleNamespace(), 384)


@pytest.mark.parametrize(("labels", "accuracy"), [([1, 1, 0], 0.25), ([1, 0, 0], 0.75)])
def test_sentiment_is_that_of_the_majority(labels: list[int], accuracy: float) -> None:
    train = [{"label": label} for label in labels]
    rows = [{"label": label} for label in (0, 0, 1, 0)]
    assert score(without_tokenizer(sst2), "accuracy", train, [{}] * 4, rows) == accuracy


def test_an_answer_is_the_first_three_tokens() -> None:
    """Of two windows over one context the first counts; the gold answer is the first word of three."""
    context = "in May it rained again"
    spans = [[0, 2], [3, 6], [7, 9], [10, 16], [17, 22]]
    features = [{"row": 0, "spans": spans}, {"row": 0, "spans": spans[2:]}, {"row": 1, "spans": [[0, 2]]}]
    rows = [{"context": context, "answers": {"text": ["in"]}}, {"context": "no", "answers": {"text": ["no"]}}]
    # Precision 1/3 and recall 1 of the first: F1 50; the second is right.
    assert score(without_tokenizer(squad), "f1", [], features, rows) == pytest.approx(75)


def test_a_translation_is_the_source() -> None:
    rows = [{"translation": {"de": "Anna singt in Berlin .", "en": "Anna sings in Berlin ."}}]
    assert without_tokenizer(wmt19).trivial([], [{}], rows) == ["Anna singt in Berlin ."]


def test_a_summary_is_the_first_three_sentences() -> None:
    article = " It rained. Was it cold? Yes! Nobody came. \n"
    rows = [{"article": article, "highlights": "It rained."}, {"article": "no end", "highlights": "no end"}]
    assert without_tokenizer(cnn_dailymail).trivial([], [{}] * 2, rows) == [
        "It rained. Was it cold? Yes!",
        "no end",
    ]


def test_a_choice_stands_where_most_are_right() -> None:
    """Places 2, 0 and 1 are right three times, twice and once; a question of two choices has no place 2."""
    train = [{"right": place} for place in (2, 2, 2, 0, 0, 1)]
    features = [{"right": 2, "choices": [{}] * 4}, {"right": 1, "choices": [{}] * 2}]
    task = without_tokenizer(arc)
    assert task.trivial(train, features, []) == [(-1.0, -1.0, 0.0, -1.0), (0.0, -1.0)]
    rows = [{"choices": {"text": ["a"] * 4}}, {"choices": {"text": ["a long one", "b"]}}]
    assert score(task, "acc_norm", train, features, rows) == 0.5


@pytest.mark.parametrize("module", [wikitext, soda])
def test_a_text_is_as_likely_as_its_tokens_in_training(module: Any) -> None:
    """Of a vocabulary of four, 1 and 2 are scored three times and once: they have 4 and 2 of 8 parts."""
    task = module.Task(module.Config(), range(4), 8)
    train = [
        {"input_ids": [0, 1, 1], "scored": [0, 1, 1]},
        {"input_ids": [0, 0, 1, 2], "scored": [0, 0, 1, 1]},
    ]
    feature = {"input_ids": [2, 1, 3], "scored": [0, 1, 1], "words": 2}
    assert task.trivial(train, [feature], []) == [pytest.approx(math.log(8 / 4) + math.log(8 / 1))]
    assert score(task, "perplexity", train, [feature], []) == pytest.approx(4)
