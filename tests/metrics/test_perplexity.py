"""Perplexity: by hand, and against arithmetic in 50 decimal digits."""

import json
import math
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.metrics import perplexity

INFINITE, NAN = math.inf, math.nan


def compute(nats: list[float], counts: list[tuple[int, int]]) -> Any:
    references = [{"tokens": tokens, "words": words} for tokens, words in counts]
    return perplexity.Metric().compute(predictions=nats, references=references)


def in_decimals(nats: list[float], counts: list[tuple[int, int]]) -> dict[str, float | None]:
    """All of it in 50 digits; for sums that have an exponential."""
    with localcontext() as context:
        context.prec = 50
        total = sum(map(Decimal, nats), Decimal(0))
        tokens, words = (sum(column) for column in zip(*counts, strict=True))
        return {
            "perplexity": float((total / tokens).exp()),
            "word_perplexity": float((total / words).exp()) if words else None,
            "tokens": tokens,
            "words": words,
            "bits_per_token": float(total / tokens / Decimal(2).ln()),
        }


def check(found: dict[str, float | None], expected: dict[str, float | None]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-9)), name


E = math.e
CASES: dict[str, tuple[list[float], list[tuple[int, int]], float, float | None, float]] = {
    # nats, (tokens, words), then by hand: perplexity, word perplexity, bits per token
    "6 nats, 3 tokens, 2 words": ([2.0, 4.0], [(2, 1), (1, 1)], E**2, E**3, 2 / math.log(2)),
    "one of 8 equally likely": ([4 * math.log(8)], [(4, 2)], 8, 64, 3),
    "one of 2, twice": ([math.log(2), math.log(2)], [(1, 1), (1, 1)], 2, 2, 1),
    "one of 50257": ([10 * math.log(50257)], [(10, 10)], 50257, 50257, math.log2(50257)),
    "certain": ([0.0, 0.0], [(5, 3), (2, 1)], 1, 1, 0),
    "no words": ([math.log(4)], [(1, 0)], 4, None, 2),
    "an example without tokens": ([0.0, math.log(9)], [(0, 0), (2, 1)], 3, 9, math.log2(3)),
    # tokens count alike, whatever example they stand in: (1 + 12) / 13, not the mean of 1 and 1 alone
    "unequal lengths": ([1.0, 12.0], [(1, 1), (12, 12)], E, E, 1 / math.log(2)),
    # ln 16 over 1 token and 0 over 3: the mean is ln 2, though the mean of perplexities is 8.5
    "not a mean of perplexities": ([math.log(16), 0.0], [(1, 1), (3, 3)], 2, 2, 1),
    "a tenth, ten times": ([0.1] * 10, [(1, 1)] * 10, E**0.1, E**0.1, 0.1 / math.log(2)),
    "large but finite": ([700.0], [(1, 1)], E**700, E**700, 700 / math.log(2)),
    "words overflow, tokens do not": ([2000.0], [(1000, 2)], E**2, None, 2 / math.log(2)),
    "nearly certain": ([1e-12], [(1, 1)], 1 + 1e-12, 1 + 1e-12, 1e-12 / math.log(2)),
    "many tokens": ([3e12, 1e12], [(10**12, 10**12)] * 2, E**2, E**2, 2 / math.log(2)),
    "ties": ([1.5, 1.5, 1.5], [(3, 1), (3, 1), (3, 1)], E**0.5, E**1.5, 0.5 / math.log(2)),
}


@pytest.mark.parametrize("name", CASES)
def test_perplexity_by_hand_and_in_decimals(name: str) -> None:
    nats, counts, per_token, per_word, bits = CASES[name]
    found = compute(nats, counts)
    tokens, words = sum(each[0] for each in counts), sum(each[1] for each in counts)
    by_hand = {"perplexity": per_token, "word_perplexity": per_word, "tokens": tokens, "words": words}
    check(found, by_hand | {"bits_per_token": bits})
    precise = in_decimals(nats, counts)
    # What no float holds is None.
    check(found, {key: None if value == INFINITE else value for key, value in precise.items()})


def test_the_sum_is_rounded_once() -> None:
    # One after the other 0.1 + ... + 0.1 is 0.9999999999999999, and 1e16 + 1 + 1 is 1e16.
    assert compute([0.1] * 10, [(1, 1)] * 10)["perplexity"] == math.exp(1 / 10)
    assert compute([1e16, 1.0, 1.0], [(10**16, 1)] * 3)["bits_per_token"] == (1e16 + 2) / (
        3 * 10**16
    ) / math.log(2)


@pytest.mark.parametrize(
    ("nats", "per_token", "bits"),
    [
        ([710.0, 0.0], math.exp(355), 355 / math.log(2)),
        ([1420.0, 0.0], None, 710 / math.log(2)),  # exp(710) is more than any float
        ([1e300, 0.0], None, 5e299 / math.log(2)),
        ([1.7e308, 1.7e308], None, None),  # so is the sum
        ([INFINITE, 1.0], None, None),
        ([INFINITE, -INFINITE], None, None),
        ([NAN, 1.0], None, None),
    ],
)
def test_what_no_finite_number_expresses_is_none(nats: list[float], per_token: Any, bits: Any) -> None:
    found = compute(nats, [(1, 1), (1, 1)])
    check(
        found,
        {
            "perplexity": per_token,
            "word_perplexity": per_token,
            "tokens": 2,
            "words": 2,
            "bits_per_token": bits,
        },
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_lower_is_better() -> None:
    assert perplexity.HIGHER_IS_BETTER is False


def test_results_are_plain() -> None:
    found = compute([2, 4.0], [(2, 1), (1, 1)])
    assert [type(value) for value in found.values()] == [float, float, int, int, float]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_can_be_used_twice() -> None:
    metric = perplexity.Metric()
    for nats in (1.0, 2.0):
        found = metric.compute(predictions=[nats], references=[{"tokens": 1, "words": 1}])
        assert found["perplexity"] == pytest.approx(math.exp(nats), rel=1e-9)


@pytest.mark.parametrize(
    ("nats", "counts", "message"),
    [
        ([1.0, 2.0], [(1, 1)], "Mismatch in the number of predictions"),
        ([1.0], [(1, 1), (1, 1)], "Mismatch in the number of predictions"),
        ([], [], "at least one predicted token"),
        ([0.0, 0.0], [(0, 0), (0, 1)], "at least one predicted token"),
        ([1.0, 1.0], [(3, 1), (-1, 1)], "cannot be negative"),
        ([1.0], [(1, -1)], "cannot be negative"),
    ],
)
def test_what_has_no_perplexity_is_refused(nats: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute(nats, counts)


# --- properties ---------------------------------------------------------------------------------

EXAMPLES = st.lists(
    st.tuples(st.floats(0, 500), st.tuples(st.integers(1, 1000), st.integers(0, 500))), min_size=1, max_size=6
)
SMALL = settings(max_examples=60, deadline=None)


@SMALL
@given(EXAMPLES)
def test_it_equals_the_arithmetic_in_decimals(examples: list[tuple[float, tuple[int, int]]]) -> None:
    nats, counts = [each[0] for each in examples], [each[1] for each in examples]
    found, precise = compute(nats, counts), in_decimals(nats, counts)
    if sum(nats) > 709 * max(1, found["words"]):
        precise["word_perplexity"] = found["word_perplexity"]  # at the edge of the floats
    check(found, precise)
    assert found["perplexity"] >= 1
    assert found["bits_per_token"] == pytest.approx(math.log2(found["perplexity"]), rel=1e-9, abs=1e-12)


@SMALL
@given(EXAMPLES, st.data())
def test_the_order_of_examples_does_not_matter(examples: Any, data: st.DataObject) -> None:
    other = data.draw(st.permutations(examples))
    assert compute(*map(list, zip(*examples, strict=True))) == compute(*map(list, zip(*other, strict=True)))


@SMALL
@given(EXAMPLES, st.floats(0, 100))
def test_a_less_likely_text_has_no_lower_perplexity(examples: Any, more: float) -> None:
    nats, counts = [each[0] for each in examples], [each[1] for each in examples]
    worse = compute([nats[0] + more, *nats[1:]], counts)
    assert worse["perplexity"] >= compute(nats, counts)["perplexity"]
