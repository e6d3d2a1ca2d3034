"""Dialogues: two people take turns; answers follow from the narrative or from an earlier turn."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.data.corpora import dialogues
from repro.data.corpora.shared import words as _words

Row = dict[str, Any]
GENDER = dict.fromkeys(_words.MEN, "he") | dict.fromkeys(_words.WOMEN, "she")
DAY, PLACE = "|".join(_words.DAYS), "|".join(dialogues.PLACES)
THINGS = "|".join(things for _, things in dialogues.EVENTS)
FEELING = "|".join(dialogues.GLAD + dialogues.GLOOMY)
REMEDY = r"(?:move|wait|ask|stay|borrow|sing|call|try) [\w ]+?(?= if| \.| ,)"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return dialogues.generate(2000, 1)


def tagged_texts(row: Row) -> Iterator[list[tuple[str, str]]]:
    """Words with roles: of the narrative, then of each turn."""
    roles = row["categories"]
    yield list(zip(row["narrative"].split(), roles["narrative"], strict=True))
    for turn, found in zip(row["dialogue"], roles["dialogue"], strict=True):
        yield list(zip(turn.split(), found, strict=True))


@given(st.integers(0, 40), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_size_and_seed_fix_the_rows(size: int, seed: int) -> None:
    found = dialogues.generate(size, seed)
    assert len(found) == size
    assert found == dialogues.generate(size, seed)
    assert found == dialogues.generate(size + 3, seed)[:size]
    if size:
        assert found != dialogues.generate(size, seed + 1)


def test_rows_have_the_schema_and_the_lengths(rows: list[Row]) -> None:
    for row in rows:
        assert set(row) == {"narrative", "dialogue", "speakers", "categories"}
        assert set(row["categories"]) == {"narrative", "dialogue"}
        assert dialogues.TURNS[0] <= len(row["dialogue"]) <= dialogues.TURNS[1]
        assert 60 <= len(" ".join([row["narrative"], *row["dialogue"]]).split()) <= 150
        assert all(turn == turn.strip() and turn for turn in row["dialogue"])
    assert {len(row["dialogue"]) for row in rows} == {4, 5, 6, 7}


def test_every_word_has_a_known_role_and_every_role_occurs(rows: list[Row]) -> None:
    seen = {role for row in rows for text in tagged_texts(row) for _, role in text}
    assert seen == set(dialogues.CATEGORIES)


def test_no_slot_or_mark_is_left(rows: list[Row]) -> None:
    for row in rows:
        text = " ".join([row["narrative"], *row["dialogue"]])
        assert not re.search(r"[{}*/]|  |\.\.|\w[,.?!]", text), text


def test_two_speakers_alternate(rows: list[Row]) -> None:
    for row in rows:
        speakers = row["speakers"]
        assert len(speakers) == len(row["dialogue"])
        assert len(set(speakers)) == 2
        assert all(one != other for one, other in itertools.pairwise(speakers))
        greeted = [
            re.match(r"(?:hi|hello|hey|good morning|good evening) (\w+) ,", turn)
            for turn in row["dialogue"][:2]
        ]
        assert [match and match[1] for match in greeted] == [speakers[1], speakers[0]]
        assert row["dialogue"][-1].endswith("bye .")


def test_pronouns_of_the_narrative_mean_its_only_person_of_that_gender(rows: list[Row]) -> None:
    for row in rows:
        words = row["narrative"].split()
        pronouns = {word for word in words if word in ("he", "she")}
        assert len(pronouns) == 1
        meant = {word for word in words if GENDER.get(word) in pronouns}
        assert len(meant) == 1
        assert meant <= set(row["speakers"])


def test_answers_were_said_before(rows: list[Row]) -> None:
    answers = 0
    for row in rows:
        known: set[str] = set()
        for text in tagged_texts(row):
            for word, role in text:
                if role == "answer" and word not in ("yes", "no"):
                    answers += 1
                    assert word in known, (word, row)
            known.update(word for word, _ in text)
    assert answers > 4 * len(rows)


def exchanges(row: Row) -> Iterator[tuple[str, str]]:
    """Each turn with the next."""
    yield from itertools.pairwise(row["dialogue"])


def fact(row: Row, pattern: str) -> str:
    found = re.search(pattern, row["narrative"])
    assert found, row["narrative"]
    return str(found[1])


@pytest.mark.parametrize(
    ("question", "given_by", "answer"),
    [
        # Conditions and remedies also name days and places, but only after the plan.
        ("which day|when is it", rf"[Oo]n ({DAY})", rf"on ({DAY})"),
        ("where", rf"at the ({PLACE})", rf"at the ({PLACE})"),
        ("how many", rf"(\w+) ({THINGS})\b", rf"(\w+) ({THINGS})\b"),
        ("who takes care|who helps", r"(\w+) (will help with|takes care)", r"(?:that is|on) (\w+)"),
        ("how do you feel|what is your feeling", rf"(?:is|feels) ({FEELING})", rf"I (?:am|feel) ({FEELING})"),
        ("what if|what will you do", rf"(?:will|decided to) ({REMEDY})", rf"I will ({REMEDY})"),
    ],
)
def test_answers_fit_the_narrative(rows: list[Row], question: str, given_by: str, answer: str) -> None:
    asked = 0
    for row in rows:
        for turn, following in exchanges(row):
            if re.search(question, turn):
                asked += 1
                found = re.search(answer, following)
                assert found, (turn, following)
                assert found[1] == fact(row, given_by), row
    assert asked > 100


@pytest.mark.parametrize(
    ("guessed", "given_by"), [(DAY, rf"[Oo]n ({DAY})\b"), (PLACE, rf"at the ({PLACE})\b")]
)
def test_guesses_are_confirmed_or_set_right(rows: list[Row], guessed: str, given_by: str) -> None:
    verdicts = []
    for row in rows:
        for turn, following in exchanges(row):
            guess = re.search(rf"(?:it|so the \w+) is (?:on|at the) ({guessed}) (?:, right )?\?", turn)
            if guess:
                right = guess[1] == fact(row, given_by)
                assert re.search(r"\b(yes|no) ,", following)
                assert ("yes ," in following) == right, row
                assert fact(row, given_by) in following
                verdicts.append(right)
    assert 0.3 < sum(verdicts) / len(verdicts) < 0.7


def test_promises_are_echoed(rows: list[Row]) -> None:
    promised = 0
    for row in rows:
        for number, turn in enumerate(row["dialogue"]):
            promise = re.search(r"I can bring (\w+ \w+) \.", turn)
            if promise:
                promised += 1
                assert "could you please bring something ?" in row["dialogue"][number - 1]
                assert f"{promise[1]} , thank you so much ." in row["dialogue"][number + 1]
    assert promised > 0.2 * len(rows)


def test_sympathy_fits_the_feeling(rows: list[Row]) -> None:
    seen = 0
    for row in rows:
        glad = any(f" {feeling} " in row["narrative"] for feeling in dialogues.GLAD)
        text = " ".join(row["dialogue"])
        for words, mood in (("wow , that is great", True), ("so sorry", False), ("poor you", False)):
            if words in text:
                seen += 1
                assert glad is mood
    assert seen > 200


def test_reasons_are_asked_for_only_when_the_feeling_is_known(rows: list[Row]) -> None:
    for row in rows:
        earlier = row["narrative"] if " told " in row["narrative"] else ""
        for turn in row["dialogue"]:
            why = re.search(r"(?:why are you|you are|you seem) (\w+) (?:\?|, why)", turn)
            if why:
                assert f" {why[1]} " in earlier
            earlier += f" {turn}"


def test_most_dialogues_have_conditions_and_all_have_markers(rows: list[Row]) -> None:
    for row in rows:
        narrative, *turns = tagged_texts(row)
        assert ("if", "condition") in narrative
        assert sum(role == "marker" for turn in turns for _, role in turn) >= 3
        assert all(role not in ("marker", "question", "answer") for _, role in narrative)


def test_splits_share_almost_nothing(rows: list[Row]) -> None:
    known = {row["narrative"] for row in rows}
    assert len(known) == len(rows)
    assert len({" ".join(row["dialogue"]) for row in rows}) == len(rows)
    for seed in (2, 3):
        assert not known & {row["narrative"] for row in dialogues.generate(500, seed)}
