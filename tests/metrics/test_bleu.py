"""BLEU and chrF: against the formulas on text that the 13a tokenizer leaves alone, and by hand."""

import json
import math
from typing import Any

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.metrics import bleu


def compute(predictions: Any, references: Any) -> Any:
    return bleu.Metric().compute(predictions=predictions, references=references)


# --- the formulas, for words with single spaces between them ------------------------------------


def ngrams(items: Any, size: int) -> list[tuple[str, ...]]:
    return [tuple(items[start : start + size]) for start in range(len(items) - size + 1)]


def clipped(said: list[Any], wanted: list[list[Any]]) -> int:
    """N-grams of `said`, each counted at most as often as in the reference that has it most often."""
    return sum(min(said.count(gram), max(each.count(gram) for each in wanted)) for gram in set(said))


def lengths(predictions: list[str], references: list[list[str]]) -> tuple[int, int]:
    """Words of the predictions, and of their nearest references, the shorter of two equally near."""
    said = wanted = 0
    for prediction, several in zip(predictions, references, strict=True):
        size = len(prediction.split())
        said += size
        wanted += min((abs(size - len(each.split())), len(each.split())) for each in several)[1]
    return said, wanted


def bleu_by_formula(predictions: list[str], references: list[list[str]]) -> float:
    """Papineni et al. 2002, section 2; the orders without a match count 1/2, 1/4, ... of one instead."""
    product, empty_orders, any_match = 1.0, 0, False
    for size in (1, 2, 3, 4):
        matches = guesses = 0
        for prediction, several in zip(predictions, references, strict=True):
            grams = ngrams(prediction.split(), size)
            guesses += len(grams)
            matches += clipped(grams, [ngrams(each.split(), size) for each in several])
        any_match = any_match or matches > 0
        if not guesses or not any_match:
            return 0.0
        empty_orders += matches == 0
        product *= (matches or 0.5**empty_orders) / guesses
    said, wanted = lengths(predictions, references)
    return 100 * min(1.0, math.exp(1 - wanted / said)) * math.pow(product, 0.25)


def f2(counts: list[tuple[int, int, int]]) -> float:
    """Mean precision and recall over the orders both sides have; recall counts twice."""
    both = [(matches / said, matches / wanted) for said, wanted, matches in counts if said and wanted]
    if not any(precision for precision, _ in both):
        return 0.0
    precision = sum(each[0] for each in both) / len(both)
    recall = sum(each[1] for each in both) / len(both)
    return 100 * 5 * precision * recall / (4 * precision + recall)


def chrf_by_formula(predictions: list[str], references: list[list[str]]) -> float:
    """Popović 2015: 1 to 6 characters without white space, counts of the best reference, summed."""
    totals = [(0, 0, 0)] * 6
    for prediction, several in zip(predictions, references, strict=True):
        candidates = []
        for reference in several:
            counts = []
            for size in range(1, 7):
                said = ngrams("".join(prediction.split()), size)
                wanted = ngrams("".join(reference.split()), size)
                # an order that the reference is too short for is not held against the prediction
                counts.append((len(said) if wanted else 0, len(wanted), clipped(said, [wanted])))
            candidates.append(counts)
        best = max(candidates, key=f2)
        totals = [(a + x, b + y, c + z) for (a, b, c), (x, y, z) in zip(totals, best, strict=True)]
    return f2(totals)


# --- cases --------------------------------------------------------------------------------------

CASES: dict[str, tuple[list[str], list[list[str]], float]] = {
    "equal": (["a b c d"], [["a b c d"]], 100.0),
    # one to four words: 5 of 6, 3 of 5, 2 of 4, 1 of 3; their product is 1/12
    "one word wrong": (["the cat sat on a mat"], [["the cat sat on the mat"]], 100 * (1 / 12) ** 0.25),
    # all 4-grams match, half as long: exp(1 - 8/4)
    "short": (["a b c d"], [["a b c d e f g h"]], 100 * math.exp(-1)),
    # 4 of 8, 3 of 7, 2 of 6, 1 of 5: product 1/70; no penalty for length
    "long": (["a b c d e f g h"], [["a b c d"]], 100 * (1 / 70) ** 0.25),
    # 3 of 4, 2 of 3, 1 of 2, 0 of 1 smoothed to 1/2: product 1/8
    "one order without match": (["a b c x"], [["a b c d"]], 100 * (1 / 8) ** 0.25),
    # 4 of 5, 2 of 4, 0 of 3 -> 1/2 of 3, 0 of 2 -> 1/4 of 2: product 2/5 / 6 / 8 = 1/120
    "two orders without match": (["a b x c d"], [["a b c d y"]], 100 * (1 / 120) ** 0.25),
    # "the" counts once: 1 of 4; 1/2 of 3, 1/4 of 2, 1/8 of 1: product 1/4 / 6 / 8 / 8 = 1/1536
    "clipped": (["the the the the"], [["the cat"]], 100 * (1 / 1536) ** 0.25),
    # 4 words; references of 3 and 5 are equally near, the shorter one counts
    "tie in length": (["a b c d"], [["a b c d e", "a b c"]], 100.0),
    # 4 of 4, 2 of 3, 1/2 of 2, 1/4 of 1: product 2/3 / 4 / 4 = 1/24; nearest length 3
    "matches from several references": (["a a b b"], [["a a c", "b b c"]], 100 * (1 / 24) ** 0.25),
    # "a" at most twice (not three times): 2 of 4; aa 1 of 3; 1/2 of 2; 1/4 of 1: product 1/6 / 4 / 4
    "clipped at the larger count": (["a a a a"], [["a b c d", "a a c d"]], 100 * (1 / 96) ** 0.25),
    # precisions 1, 4 words against 6
    "an empty prediction": (["", "a b c d"], [["e f"], ["a b c d"]], 100 * math.exp(1 - 6 / 4)),
    "only empty predictions": (["", ""], [["a b c d"], ["e"]], 0.0),
    "an empty reference among others": (["a b c d"], [["", "a b c d"]], 100.0),
    "nothing in common": (["a b c d e"], [["v w x y z"]], 0.0),
    "equal but too short for 4-grams": (["a b c"], [["a b c"]], 0.0),
    # 6 of 6 words, 4 of 4 pairs, 2 of 2 triples, and no 4-gram at all
    "4-grams of the corpus, none": (["a b c", "d e f"], [["a b c"], ["d e f"]], 0.0),
    # accents and scripts are letters like others: 4 of 5, 3 of 4, 2 of 3, 1 of 2: product 1/5
    "unicode": (["él vió 日本 naïve ß"], [["él vió 日本 naïve ss"]], 100 * (1 / 5) ** 0.25),
    "capitals differ": (["A B C D"], [["a b c d"]], 0.0),
    # 7 of 8, 5 of 6, 3 of 4, 1 of 2: product 35/128, whatever the numbers of references
    "differing numbers of references": (
        ["a b c d", "e f g h"],
        [["x", "a b c d", "y"], ["e f g z"]],
        100 * (35 / 128) ** 0.25,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bleu_by_hand_and_by_formula(name: str) -> None:
    predictions, references, by_hand = CASES[name]
    found = compute(predictions, references)
    assert found["bleu"] == pytest.approx(by_hand, rel=1e-9)
    assert found["bleu"] == pytest.approx(bleu_by_formula(predictions, references), rel=1e-9)
    assert found["chrf"] == pytest.approx(chrf_by_formula(predictions, references), rel=1e-9)
    said, wanted = lengths(predictions, references)
    assert found["length_ratio"] == pytest.approx(said / wanted, rel=1e-9)


def test_bleu_of_all_cases_as_one_corpus() -> None:
    predictions = [each for case in CASES.values() for each in case[0]]
    references = [each for case in CASES.values() for each in case[1]]
    found = compute(predictions, references)
    assert found["bleu"] == pytest.approx(bleu_by_formula(predictions, references), rel=1e-9)
    assert found["chrf"] == pytest.approx(chrf_by_formula(predictions, references), rel=1e-9)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, world! It's 3.14-ish.", "Hello , world ! It's 3.14 - ish ."),
        ("Fish &amp; chips (1,000 of them)", "Fish & chips ( 1,000 of them )"),
        ("two\nlines  and\tmore white space ", "two lines and more white space"),
        ("well-known “quotes” stay … whole", "well-known “quotes” stay … whole"),
    ],
)
def test_text_is_tokenised_as_in_mteval_13a(text: str, tokens: str) -> None:
    other = "Hello , world of Fish and more whole white"
    found = compute([other], [text])
    assert found["bleu"] == pytest.approx(bleu_by_formula([other], [[tokens]]), rel=1e-9)
    assert found["length_ratio"] == len(other.split()) / len(tokens.split())


# chrF by hand: "ab" and "ac" share 1 of 2 letters and 0 of 1 pairs; precision = recall = (1/2 + 0) / 2.
# "abcd" against "ab": letters 2 of 4 and 2 of 2, pairs 1 of 3 and 1 of 1; precision 5/12, recall 1.
@pytest.mark.parametrize(
    ("prediction", "reference", "chrf"),
    [("ab", "ac", 25.0), ("abcd", "ab", 100 * 5 * (5 / 12) / (4 * 5 / 12 + 1)), ("a b", "ab", 100.0)],
)
def test_chrf_by_hand(prediction: str, reference: str, chrf: float) -> None:
    assert compute([prediction], [reference])["chrf"] == pytest.approx(chrf, rel=1e-9)


def test_the_example_of_the_docstring() -> None:
    # As "one word wrong" with a full stop: 6 of 7, 4 of 6, 2 of 5, 1 of 4, product 2/35.
    found = compute(["The cat sat on a mat."], ["The cat sat on the mat."])
    assert found["bleu"] == pytest.approx(100 * (2 / 35) ** 0.25, rel=1e-9)
    assert (round(found["bleu"], 2), round(found["chrf"], 2)) == (48.89, 65.80)
    assert found["length_ratio"] == 1.0
    assert found["signature"] == (
        f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    )


def test_the_signature_tells_the_number_of_references() -> None:
    assert compute(["a", "b"], [["a", "b"], ["c", "d"]])["signature"].startswith("nrefs:2|")
    assert compute(["a", "b"], [["a", "b"], ["c"]])["signature"].startswith("nrefs:var|")


def test_a_text_is_a_list_of_one_reference() -> None:
    predictions, texts = ["a b c d e", "f g h i"], ["a b c d f", "f g h j"]
    expected = compute(predictions, [[text] for text in texts])
    assert compute(predictions, texts) == expected
    assert compute(predictions, [texts[0], [texts[1]]]) == expected
    assert compute(predictions, tuple(texts)) == expected


def test_references_without_tokens_have_no_length_ratio() -> None:
    found = compute(["a b"], [""])
    assert (found["bleu"], found["chrf"], found["length_ratio"]) == (0.0, 0.0, None)


def test_results_are_plain_and_json_holds_them() -> None:
    found = compute(["a b c d"], ["a b c e"])
    assert [type(value) for value in found.values()] == [float, float, float, str]
    assert list(found) == ["bleu", "chrf", "length_ratio", "signature"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_can_be_filled_in_batches_and_used_twice() -> None:
    metric = bleu.Metric()
    for _ in range(2):
        metric.add_batch(predictions=["a b c d e"], references=["a b c d f"])
        metric.add_batch(predictions=["f g h i"], references=[["f g h j", "f g"]])
        assert metric.compute() == compute(["a b c d e", "f g h i"], [["a b c d f"], ["f g h j", "f g"]])


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "Mismatch in the number of predictions"),
        (["a"], [["a"], ["b", "c"]], "Mismatch in the number of predictions"),
        ([], [], "at least one prediction"),
        (["a", "b"], [["a"], []], "at least one reference"),
        (["a"], [None], "at least one reference"),
    ],
)
def test_what_cannot_be_scored_is_refused(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute(predictions, references)


# --- properties ---------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "dé", "日本", "x1"]), max_size=9).map(" ".join)
CORPORA = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5)
SMALL = settings(max_examples=50, deadline=None)


@SMALL
@given(CORPORA)
def test_it_equals_the_formulas(corpus: list[tuple[str, list[str]]]) -> None:
    predictions, references = [each[0] for each in corpus], [each[1] for each in corpus]
    found = compute(predictions, references)
    assert found["bleu"] == pytest.approx(bleu_by_formula(predictions, references), rel=1e-9)
    assert found["chrf"] == pytest.approx(chrf_by_formula(predictions, references), rel=1e-9)
    assert 0 <= found["bleu"] <= 100 + 1e-9
    assert 0 <= found["chrf"] <= 100 + 1e-9


@SMALL
@given(CORPORA, st.data())
def test_the_order_of_examples_does_not_matter(corpus: Any, data: st.DataObject) -> None:
    other = data.draw(st.permutations(corpus))
    assert compute(*map(list, zip(*corpus, strict=True))) == compute(*map(list, zip(*other, strict=True)))


@SMALL
@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=2))
def test_equal_texts_give_100(texts: list[str], others: list[str]) -> None:
    texts = [*texts, "at least four words"]
    found = compute(texts, [[text, *others] for text in texts])
    assert found["bleu"] == pytest.approx(100, rel=1e-9)
    assert found["chrf"] == pytest.approx(100, rel=1e-9)
