"""Every corpus: fixed by its seed, tagged, in its task's schema, its splits apart; sentiment: learnable."""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import plugins
from repro.data.corpora import dialogues, news, reading, science, sentiment, stories, translation
from repro.data.corpora.base import Corpus, load
from repro.data.corpora.shared.splits import SPLITS, is_own
from repro.tasks.base import Row, TaskModule
from repro.tasks.base import load as load_task

MODULES: list[Corpus] = [dialogues, news, reading, science, sentiment, stories, translation]
"""All corpora, so that mypy holds each against the contract."""
CORPORA = plugins.names("corpora")
Rows = list[Row]


def tasks_of(name: str) -> list[TaskModule]:
    tasks = [load_task(task) for task in plugins.names("tasks")]
    return [task for task in tasks if name == task.CORPUS]


# --- every corpus -------------------------------------------------------------------------------


def test_the_list_of_corpora_is_complete() -> None:
    assert [load(name) for name in CORPORA] == MODULES


@pytest.mark.parametrize("name", CORPORA)
def test_the_seed_fixes_the_rows(name: str) -> None:
    rows = load(name).generate(50, 1)
    random.seed(0)  # the state of the global generator must not matter
    assert load(name).generate(50, 1) == rows
    assert load(name).generate(50, 2) != rows


@pytest.mark.parametrize("name", CORPORA)
def test_another_process_generates_the_same_rows(name: str) -> None:
    # Sets of strings are ordered differently in every process; nothing may depend on that.
    program = (
        "import json, sys; from repro.data.corpora.base import load;"
        f"json.dump(load({name!r}).generate(20, 1), sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(load(name).generate(20, 1)))


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("size", [0, 1, 2, 7, 100])
def test_the_size_is_respected(name: str, size: int) -> None:
    assert len(load(name).generate(size, 1)) == size


@pytest.mark.parametrize("name", CORPORA)
def test_every_row_fits_the_task_that_names_the_corpus(name: str) -> None:
    tasks = tasks_of(name)
    assert tasks
    for task in tasks:
        for row in load(name).generate(200, 1):
            assert set(task.COLUMNS) < set(row)
            assert "categories" in row
            assert task.problem(row) is None


def flat(categories: Any) -> list[str]:
    """The roles of a row in one list: one text's, several texts', or those of the turns of a dialogue."""
    if isinstance(categories, str):
        return [categories]
    parts = categories.values() if isinstance(categories, dict) else categories
    return [role for part in parts for role in flat(part)]


@pytest.mark.parametrize("name", CORPORA)
def test_every_word_has_one_of_the_categories(name: str) -> None:
    categories = load(name).CATEGORIES
    assert len(set(categories)) == len(categories)
    seen: set[str] = set()
    for task in tasks_of(name):
        for row in load(name).generate(500, 1):
            roles = flat(row["categories"])
            # Texts may leave out what the tokenizer need not see, such as empty lines; a prompt has two words
            # more, "Question:" and "Answer:".
            words = len(" ".join(task.texts(row)).split()) - (2 if name == "science" else 0)
            assert words == len(roles)
            seen.update(roles)
    assert seen == set(categories)  # and no category is empty


def seconds(name: str, size: int) -> float:
    """Processor time of this process alone, however busy the machine is."""
    start = time.process_time()
    load(name).generate(size, 1)
    return time.process_time() - start


@pytest.mark.parametrize("name", CORPORA)
def test_time_is_in_proportion_to_rows(name: str) -> None:
    """With its square, ten times the rows would take a hundred times as long; a busy core doubles it."""
    many = seconds(name, 4_000)
    assert many < 40 * max(seconds(name, 400), seconds(name, 400))
    assert many < 6  # seconds, also on a slow machine


# --- splits -------------------------------------------------------------------------------------


def scored(name: str, row: Row) -> list[str]:
    """The texts that the loss or the metric of a row is over; where they answer a text, with it."""
    if name == "dialogues":
        turns: list[str] = row["dialogue"][1:]  # the first is only read
        return turns
    if name == "stories":
        return [row["text"]] if row["text"] else []
    if name == "translation":
        return [row["translation"]["en"], row["translation"]["de"]]
    if name == "reading":
        return [f"{row['context']} {row['question']}"]
    if name == "science":
        return [row["question"]]
    return [row["highlights" if name == "news" else "sentence"]]


@pytest.fixture(scope="module")
def splits() -> dict[str, dict[str, Rows]]:
    """Corpus -> split -> rows."""
    return {
        name: {
            split: load(name).generate(1600 if split == "train" else 200, seed)
            for split, seed in SPLITS.items()
        }
        for name in CORPORA
    }


def shares(train: list[str], others: list[list[str]]) -> list[float]:
    """The share of the texts of each split that stand in train, word for word."""
    known = set(train)
    return [sum(text in known for text in texts) / len(texts) for texts in others]


@pytest.mark.parametrize("name", CORPORA)
def test_nothing_that_is_scored_stands_in_train(splits: dict[str, dict[str, Rows]], name: str) -> None:
    texts = {
        split: [text for row in rows for text in scored(name, row)] for split, rows in splits[name].items()
    }
    assert all(len(found) > 100 for found in texts.values())
    train = texts.pop("train")
    assert shares(train, list(texts.values())) == [0, 0, 0]
    # Nor do two of the others share a text, so that what is chosen on one says nothing of another.
    for one, other in itertools.combinations(texts.values(), 2):
        assert not set(one) & set(other)


@pytest.mark.parametrize(
    ("name", "part", "most"),
    [
        # Answers are spans: a name, a place, a year. Which of a passage's is right is not in the question.
        ("reading", lambda row: row["answers"]["text"][:1], 0.95),
        ("reading", lambda row: [row["question"]], 0.05),
        # A line is one fact in a few words; the article says which.
        ("news", lambda row: row["highlights"].split("\n"), 0.45),
    ],
)
def test_short_parts_may_stand_in_train(
    splits: dict[str, dict[str, Rows]], name: str, part: Callable[[Row], list[str]], most: float
) -> None:
    texts = {split: [text for row in rows for text in part(row)] for split, rows in splits[name].items()}
    train = texts.pop("train")
    assert max(shares(train, list(texts.values()))) < most


@given(st.text())
def test_a_text_belongs_to_one_split(text: str) -> None:
    assert [is_own(text, seed) for seed in SPLITS.values()].count(True) == 1
    assert is_own(text, 1) == is_own(text, 5)


def test_two_fifths_of_the_texts_belong_to_train() -> None:
    texts = [f"text {number}" for number in range(5000)]
    found = {split: sum(is_own(text, seed) for text in texts) / 5000 for split, seed in SPLITS.items()}
    expected = {"train": 0.4, "validation": 0.2, "test": 0.2, "dev": 0.2}
    assert found == {split: pytest.approx(share, abs=0.03) for split, share in expected.items()}


# --- sentiment ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def train() -> Rows:
    return sentiment.generate(4000, 1)


@pytest.fixture(scope="module")
def validation() -> Rows:
    return sentiment.generate(1000, 2)


@pytest.mark.parametrize(("size", "positive"), [(1, 0), (2, 1), (7, 3), (100, 50), (4000, 2000)])
def test_half_of_the_reviews_are_positive(size: int, positive: int) -> None:
    rows = sentiment.generate(size, 1)
    assert {row["label"] for row in rows} <= {0, 1}
    assert sum(row["label"] for row in rows) == positive


def test_labels_are_in_no_order(train: Rows) -> None:
    # Were labels alternating or sorted, neighbours would agree never or nearly always; random: half.
    agree = np.mean([a["label"] == b["label"] for a, b in itertools.pairwise(train)])
    assert 0.45 < agree < 0.55


def test_words_have_the_category_of_their_meaning(train: Rows) -> None:
    expected = {
        "good": "positive",
        "gripping": "positive",
        "bad": "negative",
        "tedious": "negative",
        "average": "neutral",
        "truly": "degree",
        "slightly": "degree",
        "not": "negation",
        "never": "negation",
        "but": "contrast",
        "although": "contrast",
        ".": "function",
        "film": "content",
    }
    found: dict[str, set[str]] = {word: set() for word in expected}
    for row in train:
        for word, category in zip(row["sentence"].split(), row["categories"], strict=True):
            if word in found:
                found[word].add(category)
    for word, category in expected.items():
        assert found[word] == {category}, word


def test_plain_reviews_have_the_label_of_their_opinion(train: Rows) -> None:
    # With opinion words of one polarity, and neither negation nor contrast, there is no way out.
    plain = {"positive": 1, "negative": 0}
    for polarity, label in plain.items():
        other = "negative" if polarity == "positive" else "positive"
        rows = [
            row
            for row in train
            if polarity in row["categories"] and not {other, "negation", "contrast"} & set(row["categories"])
        ]
        assert len(rows) > 200
        assert all(row["label"] == label for row in rows)


def test_a_negated_opinion_is_turned(train: Rows) -> None:
    # One opinion word and one "not", "never" or "hardly" before it: the label is the opposite.
    turned = 0
    for row in train:
        categories, words = row["categories"], row["sentence"].split()
        polar = [category for category in categories if category in ("positive", "negative")]
        negations = [word for word, category in zip(words, categories, strict=True) if category == "negation"]
        if len(polar) == 1 and len(negations) == 1 and negations[0] in ("not", "never", "hardly"):
            if words.index(negations[0]) > categories.index(polar[0]) or "neutral" in categories:
                continue  # it may negate a neutral word of the other clause
            turned += 1
            assert row["label"] == (0 if polar[0] == "positive" else 1), row["sentence"]
    assert turned > 20


def test_bags_of_words_are_neither_useless_nor_enough(train: Rows, validation: Rows) -> None:
    # Ridge regression on word counts sees neither negation nor contrast: above chance, below ceiling.
    index = {word: i for i, word in enumerate({word: 0 for row in train for word in row["sentence"].split()})}

    def counts(rows: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
        matrix = np.zeros((len(rows), len(index) + 1))
        matrix[:, -1] = 1  # the constant
        for i, row in enumerate(rows):
            for word in row["sentence"].split():
                if word in index:
                    matrix[i, index[word]] += 1
        return matrix

    x, y = counts(train), np.array([2 * row["label"] - 1 for row in train])
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    labels = np.array([row["label"] for row in validation])
    accuracy = np.mean((counts(validation) @ weights > 0) == (labels == 1))
    assert 0.6 < accuracy < 0.9


def test_few_sentences_come_twice(train: Rows) -> None:
    assert len({row["sentence"] for row in train}) > 0.98 * len(train)


def test_rows_are_numbered_by_their_making(train: Rows) -> None:
    assert sorted(row["idx"] for row in train) == list(range(4000))
