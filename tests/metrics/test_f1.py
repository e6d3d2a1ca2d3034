"""F1 and exact match of answers: by hand, and against matching by removal from a list."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.metrics import f1


def compute(predictions: Any, references: Any) -> Any:
    return f1.Metric().compute(predictions=predictions, references=references)


# --- the definition, word by word ---------------------------------------------------------------

PUNCTUATION = [chr(code) for code in range(33, 127) if not chr(code).isalnum()]


def words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in PUNCTUATION)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def f1_of(prediction: str, gold: str) -> float:
    said, left, common = words(prediction), words(gold), 0
    if not said and not left:
        return 100.0
    wanted = len(left)
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if not common:
        return 0.0
    precision, recall = common / len(said), common / wanted
    return 100 * 2 * precision * recall / (precision + recall)


def by_definition(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    best = [
        max(f1_of(said, gold) for gold in golds) for said, golds in zip(predictions, references, strict=True)
    ]
    equal = [
        any(" ".join(words(said)) == " ".join(words(gold)) for gold in golds)
        for said, golds in zip(predictions, references, strict=True)
    ]
    return {"f1": sum(best) / len(best), "exact_match": 100 * sum(equal) / len(equal)}


# --- cases --------------------------------------------------------------------------------------

CASES: list[tuple[str, list[str], float, float]] = [
    # prediction, gold answers, F1 and exact match as fractions
    ("Paris", ["Paris"], 1, 1),
    ("The Paris!", ["paris"], 1, 1),
    ("in Paris", ["Paris"], 2 / 3, 0),  # precision 1/2, recall 1
    ("Paris", ["in the city of Paris"], 2 / 5, 0),  # precision 1, recall 1/4
    ("Paris", ["London"], 0, 0),
    ("", ["Paris"], 0, 0),
    ("Paris", [""], 0, 0),
    ("", [""], 1, 1),
    ("the", ["a"], 1, 1),  # nothing is left of either
    ("...", ["an the", "Paris"], 1, 1),
    ("", ["Paris", ""], 1, 1),
    ("New York City", ["York", "New York", "Boston"], 4 / 5, 0),  # best: precision 2/3, recall 1
    ("x y", ["x", "y"], 2 / 3, 0),  # a tie
    ("b b b c", ["b b d"], 4 / 7, 0),  # b twice: precision 2/4, recall 2/3
    ("b", ["b b b"], 2 / 4, 0),
    ("York New", ["New York"], 1, 0),  # the order matters to the exact match alone
    ("Café Zürich", ["CAFÉ ZÜRICH"], 1, 1),
    ("caf\u00e9", ["cafe\u0301"], 0, 0),  # composed and decomposed letters differ
    ("日本 語", ["日本"], 2 / 3, 0),
    ("U.S.", ["US", "United States"], 1, 1),
    ("twenty-one", ["twenty one"], 0, 0),  # "twentyone"
    ("1990\u20131995", ["1990-1995"], 0, 0),  # the en dash is no ASCII punctuation: it stays
    ("  New \t York\n", ["new york"], 1, 1),
    ("theatre another", ["atre other"], 0, 0),  # articles are whole words
    ("an apple a day", ["the apple day"], 1, 1),
    ("$5.00", ["500"], 1, 1),
]


@pytest.mark.parametrize(("prediction", "golds", "score", "exact"), CASES)
def test_f1_by_hand_and_by_definition(prediction: str, golds: list[str], score: float, exact: float) -> None:
    found = compute([prediction], [golds])
    assert found == pytest.approx({"f1": 100 * score, "exact_match": 100 * exact}, rel=1e-9)
    assert found == pytest.approx(by_definition([prediction], [golds]), rel=1e-9)


def test_the_mean_over_examples() -> None:
    found = compute([case[0] for case in CASES], [case[1] for case in CASES])
    assert found["f1"] == pytest.approx(100 * sum(case[2] for case in CASES) / len(CASES), rel=1e-9)
    assert found["exact_match"] == pytest.approx(100 * sum(case[3] for case in CASES) / len(CASES), rel=1e-9)


def test_an_article_may_end_at_any_sign_that_is_no_letter() -> None:
    # As in the official script: a curly quote stays, and ends the word before it.
    assert f1.answer_words("the’s cat") == ["’s", "cat"]
    assert f1.answer_words("the's cat") == ["thes", "cat"]


def test_the_example_of_the_docstring() -> None:
    # cat, sat against cat: precision 1/2, recall 1.
    assert compute(["The cat sat"], [["a cat", "dog"]]) == {"f1": pytest.approx(200 / 3), "exact_match": 0.0}


def test_results_are_plain_and_json_holds_them() -> None:
    found = compute(["a b", ""], [["a"], ["b"]])
    assert [type(value) for value in found.values()] == [float, float]
    assert list(found) == ["f1", "exact_match"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_can_be_used_twice() -> None:
    metric = f1.Metric()
    assert metric.compute(predictions=["x"], references=[["x"]])["f1"] == 100
    assert metric.compute(predictions=["x"], references=[["y"]])["f1"] == 0


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], [["a"]], "Mismatch in the number of predictions"),
        (["a"], [["a"], ["b"]], "Mismatch in the number of predictions"),
        ([], [], "at least one prediction"),
        (["a", "b"], [["a"], []], "at least one gold answer"),
        (["a"], ["abc"], "expected a list"),  # not three gold answers
    ],
)
def test_what_cannot_be_scored_is_refused(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute(predictions, references)


# --- properties ---------------------------------------------------------------------------------

ANSWERS = st.lists(
    st.sampled_from(["a", "An", "the", "x", "X!", "y", "z-", "é", "日本", "...", "\t"]), max_size=6
).map(" ".join)
GOLDS = st.lists(ANSWERS, min_size=1, max_size=3)
EXAMPLES = st.lists(st.tuples(ANSWERS, GOLDS), min_size=1, max_size=5)
SMALL = settings(max_examples=60, deadline=None)


@SMALL
@given(EXAMPLES)
def test_it_equals_the_definition(examples: list[tuple[str, list[str]]]) -> None:
    predictions, references = [each[0] for each in examples], [each[1] for each in examples]
    found = compute(predictions, references)
    assert found == pytest.approx(by_definition(predictions, references), rel=1e-9)
    assert 0 <= found["exact_match"] <= found["f1"] + 1e-9 <= 100 + 2e-9


@SMALL
@given(EXAMPLES, st.data())
def test_the_order_of_examples_and_of_gold_answers_does_not_matter(
    examples: Any, data: st.DataObject
) -> None:
    found = compute([each[0] for each in examples], [each[1] for each in examples])
    other = data.draw(st.permutations(examples))
    swapped = compute([each[0] for each in other], [each[1][::-1] for each in other])
    assert swapped == pytest.approx(found, rel=1e-9)


@SMALL
@given(ANSWERS, GOLDS, GOLDS)
def test_more_gold_answers_never_lower_a_score(prediction: str, golds: list[str], more: list[str]) -> None:
    few, many = compute([prediction], [golds]), compute([prediction], [golds + more])
    assert many["f1"] >= few["f1"]
    assert many["exact_match"] >= few["exact_match"]


@SMALL
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), GOLDS), min_size=1, max_size=3))
def test_equal_texts_give_100(examples: list[tuple[str, list[str]]]) -> None:
    found = compute([text for text, _ in examples], [[*golds, text] for text, golds in examples])
    assert found == {"f1": 100.0, "exact_match": 100.0}
