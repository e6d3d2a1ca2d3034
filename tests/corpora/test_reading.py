"""Passages and questions: one right answer each, where it is said to be, and nowhere in particular."""

import collections
import itertools
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.data.corpora import reading
from repro.data.corpora.reading import generate

Row = dict[str, Any]
Rows = list[Row]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return generate(4000, 1)


# --- schema -------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(0, 20))
def test_seed_and_size_fix_well_formed_rows(seed: int, size: int) -> None:
    made = generate(size, seed)
    random.seed(0)  # the state of the global generator must not matter
    assert generate(size, seed) == made
    assert len(made) == len({row["id"] for row in made}) == size
    for row in made:
        assert set(row) == {"id", "title", "context", "question", "answers", "categories"}
        assert len(row["answers"]["text"]) == len(row["answers"]["answer_start"]) in (1, 2)
        for text, start in zip(*row["answers"].values(), strict=True):
            assert row["context"][start : start + len(text)] == text
            assert 1 <= len(text.split()) <= 4
            # Whole words, without punctuation.
            assert f" {text} " in f" {row['context']} " and re.fullmatch(r"[\w ]+", text)
        for field in ("context", "question"):
            assert row[field] == " ".join(row[field].split())
            assert len(row[field].split()) == len(row["categories"][field])
            assert set(row["categories"][field]) <= set(reading.CATEGORIES)


def test_all_categories_occur_where_they_belong(rows: Rows) -> None:
    seen = {
        field: {role for row in rows for role in row["categories"][field]}
        for field in ("context", "question")
    }
    assert seen["question"] == {"question", "constraint", "verb", "function"}
    assert seen["context"] == set(reading.CATEGORIES) - {"question", "constraint"}


def test_passages_are_short_and_their_vocabulary_small(rows: Rows) -> None:
    for row in rows:
        assert 40 <= len(row["context"].split()) <= 110
        assert 4 <= row["context"].count(" .") <= 8
    vocabulary = {word for row in rows for field in ("context", "question") for word in row[field].split()}
    assert 200 < len(vocabulary) < 400


def test_splits_share_no_passage(rows: Rows) -> None:
    known = {row["context"] for row in rows}
    assert len(known) == len(rows)
    for seed in (2, 3):
        assert not known & {row["context"] for row in generate(1000, seed)}


# --- categories ---------------------------------------------------------------------------------


def test_answer_words_are_those_of_the_answers(rows: Rows) -> None:
    for row in rows:
        inside = set()
        for text, start in zip(*row["answers"].values(), strict=True):
            first = len(row["context"][:start].split())
            inside |= set(range(first, first + len(text.split())))
        marked = {at for at, role in enumerate(row["categories"]["context"]) if role == "answer"}
        assert marked == inside


def test_distractors_are_of_the_type_of_the_answer(rows: Rows) -> None:
    without = 0
    for row in rows:
        words = row["context"].split()
        distractors = [
            word
            for word, role in zip(words, row["categories"]["context"], strict=True)
            if role == "distractor"
        ]
        without += not distractors
        answer = row["answers"]["text"][0]
        if answer.isdigit():
            assert all(word.isdigit() and (len(word) == 4) == (len(answer) == 4) for word in distractors)
        else:
            assert all(word.isalpha() for word in distractors)
            assert answer not in distractors
    assert without == 0


@pytest.mark.parametrize(
    ("word", "field", "role"),
    [
        ("She", "context", "pronoun"),
        ("it", "context", "pronoun"),
        ("founded", "context", "verb"),
        ("debate", "context", "content"),
        ("was", "context", "function"),
        (".", "context", "function"),
        ("Who", "question", "question"),
        ("How", "question", "question"),
        ("many", "question", "question"),
        ("town", "question", "question"),
        ("did", "question", "function"),
        ("1914", "question", "constraint"),
        ("Velmora", "question", "constraint"),
    ],
)
def test_words_have_the_category_of_their_meaning(rows: Rows, word: str, field: str, role: str) -> None:
    found = {
        category
        for row in rows
        for at, category in zip(row[field].split(), row["categories"][field], strict=True)
        if at == word
    }
    assert found == {role}


# --- one right answer ---------------------------------------------------------------------------


def test_the_constraints_single_out_one_fact() -> None:
    generator = random.Random(5)
    needed = both = 0
    for _ in range(1000):
        plan = reading.plan_passage(generator)
        facts = [fact for unit in plan.units for fact in unit]
        assert [fact for fact in facts if reading.matches(fact, plan)] == [plan.target]
        assert plan.asked not in plan.constraints
        ambiguous = 0  # without one of the constraints there would be another answer
        for role in plan.constraints:
            # Each constraint alone also holds of another fact.
            shared = sum(getattr(fact, role) == getattr(plan.target, role) for fact in facts)
            assert shared > 1 or plan.asked == "amount"
            others = plan._replace(constraints=tuple(other for other in plan.constraints if other != role))
            answers = {getattr(fact, plan.asked) for fact in facts if reading.matches(fact, others)}
            ambiguous += len(answers) > 1
        needed += ambiguous >= 1
        both += ambiguous >= 2
    assert 0.4 < needed / 1000 < 0.9
    assert 0.1 < both / 1000 < 0.5


PEOPLE = {f"{first} {last}" for first in reading._WOMEN + reading._MEN for last in reading._SURNAMES}
NOUNS = {noun for nouns in reading._GROUPS.values() for noun in nouns}
MEANING = {
    form: name for name, (verbs, _) in reading._RELATIONS.items() for verb in verbs for form in verb.split()
}


def parsed(sentence: str) -> dict[str, str]:
    """What a sentence or question says, read from its words alone."""
    words = sentence.split()
    lower = [word.lower() for word in words]
    said: dict[str, str] = {}
    for at, word in enumerate(words):
        if word in reading._PLACES:
            said["place"] = word
        elif word in reading._YEARS:
            said["year"] = word
        elif word.isdigit():
            said["amount"] = word
        elif f"{word} {' '.join(words[at + 1 : at + 2])}" in PEOPLE:
            said["person"] = f"{word} {words[at + 1]}"
        elif lower[at] in NOUNS:
            adjective = words[at - 1] if words[at - 1] in reading._ADJECTIVES else ""
            said["object"] = f"{adjective} {word}".strip()
        elif word in MEANING:
            said["relation"] = MEANING[word]
    return said


def asked(question: str) -> str:
    starts = {
        "Who": "person",
        "By whom": "person",
        "Which person": "person",
        "When": "year",
        "In which year": "year",
        "Where": "place",
        "In which town": "place",
        "What": "object",
        "How many": "amount",
    }
    return next(role for start, role in starts.items() if question.startswith(start + " "))


def test_a_reader_without_pronouns_finds_the_one_answer(rows: Rows) -> None:
    """An independent parser; passages with pronouns need to know what they stand for."""
    read = 0
    for row in rows:
        if "pronoun" in row["categories"]["context"]:
            continue
        read += 1
        constraints, role = parsed(row["question"]), asked(row["question"])
        assert len(constraints) >= 3 and role not in constraints
        facts = [parsed(sentence) for sentence in row["context"].split(" .")]
        found = [fact for fact in facts if all(fact.get(key) == value for key, value in constraints.items())]
        assert len(found) == 1, row
        answer = found[0][role]
        assert row["answers"]["text"][0] in (answer, f"the {answer}", f"The {answer}")
    assert read > 1000


def test_some_answers_are_behind_a_pronoun(rows: Rows) -> None:
    # The answer's own sentence then does not say all that the question says.
    behind = 0
    for row in rows:
        start = row["answers"]["answer_start"][0]
        number = row["context"][:start].count(" . ")
        sentence = parsed(row["context"].split(" . ")[number])
        behind += any(sentence.get(key) != value for key, value in parsed(row["question"]).items())
    assert 0.02 < behind / len(rows) < 0.3


def test_pronouns_follow_a_sentence_about_the_same_person(rows: Rows) -> None:
    seen = 0
    for row in rows:
        sentences = row["context"].split(" . ")
        for before, sentence in itertools.pairwise(sentences):
            words = [word.lower() for word in sentence.split()]
            for pronouns, names in ((("she", "her"), reading._WOMEN), (("he", "him"), reading._MEN)):
                if set(pronouns) & set(words):
                    seen += 1
                    assert parsed(before)["person"].split()[0] in names
            if "it" in words:
                assert "amount" not in parsed(before) and "object" in parsed(before)
    assert seen > 500


# --- neither one type of question, nor one place, nor one answer -----------------------------------


def test_a_fifth_of_the_rows_have_two_answers(rows: Rows) -> None:
    two = [row["answers"]["text"] for row in rows if len(row["answers"]["text"]) == 2]
    assert 0.15 < len(two) / len(rows) < 0.25
    for full, other in two:
        assert set(full.split()) != set(other.split())
        assert full.endswith(f" {other}") or other.startswith(f"{full} ")


def test_all_types_of_questions_are_asked(rows: Rows) -> None:
    counts = collections.Counter(asked(row["question"]) for row in rows)
    assert set(counts) == {"person", "year", "place", "object", "amount"}
    assert min(counts.values()) > 0.1 * len(rows)
    assert max(counts.values()) < 0.35 * len(rows)


def test_all_relations_and_voices_occur(rows: Rows) -> None:
    assert {parsed(row["question"])["relation"] for row in rows} == set(reading._RELATIONS)
    passive = sum(" by " in row["context"] for row in rows)
    assert 0.5 < passive / len(rows) < 0.99


def f1(guess: list[str], answer: list[str]) -> float:
    common = len(set(guess) & set(answer))
    return 2 * common / (len(guess) + len(answer))


def test_no_constant_position_wins(rows: Rows) -> None:
    passages = [row["context"].split() for row in rows[:500]]
    answers = [[text.split() for text in row["answers"]["text"]] for row in rows[:500]]
    for length in (1, 2):
        for first in range(80):
            guesses = [words[first : first + length] for words in passages]
            scores = [max(f1(a, b) for b in bs) for a, bs in zip(guesses, answers, strict=True)]
            assert sum(scores) / len(scores) < 0.2


def test_answers_are_all_over_the_passage(rows: Rows) -> None:
    places = [row["answers"]["answer_start"][0] / len(row["context"]) for row in rows]
    shares = collections.Counter(min(int(4 * place), 3) for place in places)
    assert all(0.1 < shares[quarter] / len(rows) < 0.45 for quarter in range(4))


def test_no_constant_answer_wins(rows: Rows) -> None:
    answers = collections.Counter(text for row in rows for text in row["answers"]["text"])
    assert answers.most_common(1)[0][1] < 0.03 * len(rows)
