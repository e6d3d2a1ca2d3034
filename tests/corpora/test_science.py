"""Science questions: one right choice each, by what the world is like; no place or word gives it away."""

import collections
import re
from typing import Any

import pytest

from repro.data.corpora import science
from repro.data.corpora.science import generate
from repro.data.corpora.shared.words import COUNTS

Row = dict[str, Any]
Rows = list[Row]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return generate(4000, 1)


def texts(row: Row) -> tuple[str, list[str]]:
    """The right choice, and the others."""
    choices = row["choices"]
    right = choices["text"][choices["label"].index(row["answerKey"])]
    return right, [text for text in choices["text"] if text != right]


def compares(row: Row) -> bool:
    return "number" in row["categories"]["question"]


def test_the_schema(rows: Rows) -> None:
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "question", "choices", "answerKey", "categories"}
        assert row["choices"]["label"] == ["A", "B", "C", "D"]
        assert len(set(row["choices"]["text"])) == 4
        assert row["question"] == " ".join(row["question"].split())
        assert row["question"][0].isupper() and row["question"].endswith(" ?")
        assert len(row["question"].split()) == len(row["categories"]["question"])
        for text, roles in zip(row["choices"]["text"], row["categories"]["choices"], strict=True):
            assert set(roles) == {"answer" if text == texts(row)[0] else "distractor"}
            assert len(text.split()) == len(roles)


def test_the_right_choice_stands_anywhere(rows: Rows) -> None:
    places = collections.Counter(row["answerKey"] for row in rows)
    assert set(places) == {"A", "B", "C", "D"}
    assert all(0.22 < count / len(rows) < 0.28 for count in places.values())


def test_neither_the_longest_nor_the_shortest_is_right_more_often(rows: Rows) -> None:
    """Of four choices a guess is right in a quarter."""
    for choose in (max, min):
        hits = [choose(row["choices"]["text"], key=len) == texts(row)[0] for row in rows]
        assert sum(hits) / len(hits) < 0.4


def things(kinds: list[Any]) -> set[str]:
    return {thing for one in kinds for thing in one.having | one.lacking}


def asked(question: str, kinds: list[Any]) -> list[tuple[Any, bool]]:
    """The properties that a question names, and whether the thing is to have them."""
    lowered = f" {question.lower()} "
    found = []
    for one in kinds:
        for side, ways in ((True, one.true), (False, one.false)):
            if any(f" {way.lower()} " in lowered for way in ways):
                found.append((one, side))
    return found


@pytest.mark.parametrize("kinds", [science.MATERIALS, science.ANIMALS], ids=["materials", "animals"])
def test_exactly_one_choice_fits_all_that_is_asked(rows: Rows, kinds: list[Any]) -> None:
    seen = 0
    for row in rows:
        properties = asked(row["question"], kinds)
        words = [set(text.split()) & things(kinds) for text in row["choices"]["text"]]
        if not properties or not all(words):
            continue
        seen += 1
        fitting = [
            text
            for text, (thing,) in zip(row["choices"]["text"], words, strict=True)
            if all(thing in (one.having if side else one.lacking) for one, side in properties)
        ]
        assert fitting == [texts(row)[0]], row
        # What is said of the others is false, not unknown.
        for (thing,) in words:
            assert all(thing in one.having | one.lacking for one, _ in properties), row
    assert seen > 1000


def test_of_two_properties_the_wrong_choices_have_one_each(rows: Rows) -> None:
    pairs = 0
    for row in rows:
        properties = asked(row["question"], science.ANIMALS)
        if len(properties) != 2:
            continue
        pairs += 1
        fits = sorted(
            tuple(
                any(word in (one.having if side else one.lacking) for word in text.split())
                for one, side in properties
            )
            for text in row["choices"]["text"]
        )
        assert fits == [(False, False), (False, True), (True, False), (True, True)], row
    assert pairs > 300


def test_comparisons_are_right(rows: Rows) -> None:
    most = ("heaviest", "longest", "dearest", "oldest")
    compared = [row for row in rows if compares(row)]
    assert 0.25 < len(compared) / len(rows) < 0.35
    for row in compared:
        told = re.findall(r"(the \w+ \w+) (?:weighs|is|costs) (\w+)", row["question"].lower().split(" . ")[0])
        numbers = {thing: COUNTS.index(number) for thing, number in told}
        assert set(numbers) == set(row["choices"]["text"])
        assert len(set(numbers.values())) == 4
        choose = max if any(word in row["question"] for word in most) else min
        assert texts(row)[0] == choose(numbers, key=numbers.__getitem__)


def test_splits_share_no_question(rows: Rows) -> None:
    known = {row["question"] for row in rows}
    for seed in (2, 3, 4):
        assert not known & {row["question"] for row in generate(500, seed)}
