"""ROUGE: against the formulas on words that have no shorter stem, and by hand."""

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.metrics import rouge1


def compute(predictions: Any, references: Any) -> Any:
    return rouge1.Metric().compute(predictions=predictions, references=references)


# --- the formulas, for lower-case words of at most three letters --------------------------------


def share(common: int, said: int, wanted: int) -> float:
    """F-measure in percent: 2 P R / (P + R) with P = common / said and R = common / wanted."""
    if not common:
        return 0.0
    precision, recall = common / said, common / wanted
    return 100 * 2 * precision * recall / (precision + recall)


def rouge_n(prediction: str, reference: str, size: int) -> float:
    """Overlap of two lists of n-grams: each match is taken out of the reference's list."""
    said, wanted = (
        [words[start : start + size] for start in range(len(words) - size + 1)]
        for words in (prediction.split(), reference.split())
    )
    left, common = list(wanted), 0
    for gram in said:
        if gram in left:
            left.remove(gram)
            common += 1
    return share(common, len(said), len(wanted))


def rouge_l(prediction: str, reference: str) -> float:
    """Longest common subsequence, by recursion."""

    @cache
    def longest(one: tuple[str, ...], other: tuple[str, ...]) -> int:
        if not one or not other:
            return 0
        if one[0] == other[0]:
            return 1 + longest(one[1:], other[1:])
        return max(longest(one[1:], other), longest(one, other[1:]))

    said, wanted = tuple(prediction.split()), tuple(reference.split())
    return share(longest(said, wanted), len(said), len(wanted))


# --- cases --------------------------------------------------------------------------------------

CASES: dict[str, tuple[str, str, float, float, float]] = {
    # prediction, reference, ROUGE-1, -2, -L as fractions
    "equal": ("the cat sat", "the cat sat", 1, 1, 1),
    "shorter": ("the cat sat", "the cat sat mat", 6 / 7, 4 / 5, 6 / 7),
    "longer": ("the cat sat mat", "the cat sat", 6 / 7, 4 / 5, 6 / 7),
    "empty prediction": ("", "the cat", 0, 0, 0),
    "empty reference": ("the cat", "", 0, 0, 0),
    "both empty": ("", "", 0, 0, 0),
    "nothing in common": ("the cat", "a dog", 0, 0, 0),
    "one word has no pairs": ("cat", "cat", 1, 0, 1),
    "a repeated word counts once": ("cat cat cat", "cat", 2 / 4, 0, 2 / 4),
    "the other way round": ("b a", "a b", 1, 0, 2 / 4),
    "words between": ("a x b y c", "a b c", 6 / 8, 0, 6 / 8),
    "ties of subsequences": ("a b c d", "c d a b", 1, 4 / 6, 4 / 8),  # "a b" or "c d"
    "repeated pairs": ("a b a b", "a b", 4 / 6, 2 / 4, 4 / 6),  # ab ba ab against ab
    "crossing": ("a b c", "c b a", 1, 0, 2 / 6),
    "digits": ("in 199 x", "in 199 y", 4 / 6, 2 / 4, 4 / 6),
}


@pytest.mark.parametrize("name", CASES)
def test_rouge_by_hand_and_by_formula(name: str) -> None:
    prediction, reference, one, two, longest = CASES[name]
    found = compute([prediction], [reference])
    assert found["rouge1"] == pytest.approx(100 * one, rel=1e-9)
    assert found["rouge2"] == pytest.approx(100 * two, rel=1e-9)
    assert found["rougeL"] == pytest.approx(100 * longest, rel=1e-9)
    assert found["rougeLsum"] == pytest.approx(100 * longest, rel=1e-9)  # one sentence each
    assert found["rouge1"] == pytest.approx(rouge_n(prediction, reference, 1), rel=1e-9)
    assert found["rouge2"] == pytest.approx(rouge_n(prediction, reference, 2), rel=1e-9)
    assert found["rougeL"] == pytest.approx(rouge_l(prediction, reference), rel=1e-9)
    assert found["mean_words"] == len(prediction.split())


def test_the_mean_over_examples() -> None:
    cases = list(CASES.values())
    found = compute([case[0] for case in cases], [case[1] for case in cases])
    ones, twos, longest = zip(*(case[2:] for case in cases), strict=True)
    for name, column in (("rouge1", ones), ("rouge2", twos), ("rougeL", longest), ("rougeLsum", longest)):
        assert found[name] == pytest.approx(100 * sum(column) / len(cases), rel=1e-9)
    assert found["mean_words"] == pytest.approx(sum(len(case[0].split()) for case in cases) / len(cases))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The CAT, sat!", "the cat sat"),
        ("cats running", "cat run"),  # Porter stems
        ("naïve", "na ve"),  # only a-z and 0-9 are parts of words
        ("it's 3.5-ish", "it s 3 5 ish"),
        ("日本 語", ""),
        ("  a\n b\t", "a b"),
    ],
)
def test_text_is_made_words(text: str, words: str) -> None:
    for other in ("the cat sat", "na ve it s ish run", "a b 3 5"):
        found = compute([text, other], [other, text])
        assert found["rouge1"] == pytest.approx(rouge_n(words, other, 1), rel=1e-9)
        assert found["rouge2"] == pytest.approx(rouge_n(words, other, 2), rel=1e-9)
        assert found["rougeL"] == pytest.approx((rouge_l(words, other) + rouge_l(other, words)) / 2, rel=1e-9)


def test_the_example_of_the_docstring() -> None:
    found = compute(["the cats sat"], ["the cat sat down"])
    by_hand = {"rouge1": 600 / 7, "rouge2": 80, "rougeL": 600 / 7, "rougeLsum": 600 / 7, "mean_words": 3}
    assert found == pytest.approx(by_hand, rel=1e-9)
    assert list(found) == list(by_hand)


# --- sentences ----------------------------------------------------------------------------------


def test_lsum_takes_sentences_as_in_the_paper() -> None:
    # Lin 2004, section 3.2: w1 w2 and w1 w3 w5 are common, so 4 words of the 5 and of the 10.
    found = compute(["w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"], ["w1 w2 w3 w4 w5"])
    assert found["rougeLsum"] == pytest.approx(100 * 2 * 4 / (5 + 10), rel=1e-9)
    # As one sentence w1 w2 w3 w5 is a common subsequence too. Sentences change places:
    found = compute(["c d.\na b."], ["a b.\nc d."])
    assert found["rougeL"] == pytest.approx(50, rel=1e-9)
    assert found["rougeLsum"] == pytest.approx(100, rel=1e-9)


def test_lsum_cuts_one_line_into_sentences() -> None:
    lines = compute(["c d.\na b!"], ["a b.\nc d."])
    assert lines["rougeLsum"] == pytest.approx(100, rel=1e-9)
    assert compute(["c d. a b!"], ["a b.\nc d."]) == lines
    assert compute(["c d. a b!\n"], ["a b. c d."]) == lines
    # Where there are several lines none is cut: "c d. a b" is one sentence, and only half of it is in order.
    found = compute(["x\nc d. a b"], ["a b c d"])
    assert found["rougeLsum"] == pytest.approx(100 * 2 * 2 / (4 + 5), rel=1e-9)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "no." (Really.) Yes.', ['He said "no."', "(Really.)", "Yes."]),
        ("It cost 3.5 dollars", ["It cost 3.5 dollars"]),
        ("Wait ... what", ["Wait ...", "what"]),
        ("lower case . also cut .", ["lower case .", "also cut ."]),
        ("Dr. Who", ["Dr.", "Who"]),  # known, and harmless for unions of subsequences
        ("A. B.\nC.", ["A. B.", "C."]),
        (" A. B. \n", ["A.", "B."]),
        ("", [""]),
    ],
)
def test_ends_of_sentences(text: str, lines: list[str]) -> None:
    assert rouge1.one_sentence_a_line(text).split("\n") == lines


# --- contract -----------------------------------------------------------------------------------


def test_results_are_plain_and_json_holds_them() -> None:
    found = compute(["a b", ""], ["a", "b"])
    assert {type(value) for value in found.values()} == {float}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_can_be_used_twice() -> None:
    metric = rouge1.Metric()
    assert metric.compute(predictions=["a b"], references=["a b"])["rouge1"] == 100
    assert metric.compute(predictions=["a b"], references=["c d"])["rouge1"] == 0


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "Mismatch in the number of predictions"),
        (["a"], [], "Mismatch in the number of predictions"),
        ([], [], "at least one prediction"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute(predictions, references)


# --- properties ---------------------------------------------------------------------------------

WORDS = st.sampled_from(["a", "b", "c", "cat", "dog", "x1"])
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)
SENTENCES = st.lists(st.lists(WORDS, min_size=2, max_size=5).map(" ".join), min_size=1, max_size=4)
SMALL = settings(max_examples=40, deadline=None)
TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@SMALL
@given(PAIRS)
def test_it_equals_the_formulas(pairs: list[tuple[str, str]]) -> None:
    found = compute([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    longest = sum(rouge_l(*pair) for pair in pairs) / len(pairs)
    assert found["rouge1"] == pytest.approx(sum(rouge_n(*pair, 1) for pair in pairs) / len(pairs), rel=1e-9)
    assert found["rouge2"] == pytest.approx(sum(rouge_n(*pair, 2) for pair in pairs) / len(pairs), rel=1e-9)
    assert found["rougeL"] == pytest.approx(longest, rel=1e-9)
    assert found["rougeLsum"] == pytest.approx(longest, rel=1e-9)
    assert all(0 <= found[name] <= 100 + 1e-9 for name in TYPES)


@SMALL
@given(PAIRS, st.data())
def test_the_order_of_examples_does_not_matter(pairs: Any, data: st.DataObject) -> None:
    other = data.draw(st.permutations(pairs))
    found = compute(*map(list, zip(*pairs, strict=True)))
    assert compute(*map(list, zip(*other, strict=True))) == pytest.approx(found, rel=1e-9)


@SMALL
@given(st.lists(SENTENCES, min_size=1, max_size=3), st.sampled_from([". ", ".\n", " ! ", "\n"]))
def test_equal_texts_give_100(texts: list[list[str]], between: str) -> None:
    joined = [between.join(sentences) for sentences in texts]
    found = compute(joined, joined)
    assert {name: found[name] for name in TYPES} == pytest.approx(dict.fromkeys(TYPES, 100), rel=1e-9)


@SMALL
@given(SENTENCES, SENTENCES)
def test_white_space_between_sentences_is_as_good_as_a_new_line(one: list[str], other: list[str]) -> None:
    lines = compute([".\n".join(one)], [".\n".join(other)])
    assert compute([". ".join(one)], [".\n".join(other)]) == lines
    assert compute([". ".join(one)], [". ".join(other)]) == lines
    assert all(0 <= lines[name] <= 100 + 1e-9 for name in TYPES)
