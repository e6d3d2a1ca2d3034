"""Multiple choice by likelihood: by hand, by another computation, and where the three metrics part."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.metrics.acc_norm import Metric, most_likely


def scores(questions: list[tuple[list[float], int, list[str]]]) -> dict[str, Any]:
    """Score questions: likelihoods, the place of the right choice, the texts."""
    references = [
        {"right": right, "characters": [*map(len, texts)], "bytes": [len(text.encode()) for text in texts]}
        for _, right, texts in questions
    ]
    found = Metric().compute(predictions=[values for values, _, _ in questions], references=references)
    assert isinstance(found, dict)
    return found


def test_by_hand() -> None:
    # Sums: -6 < -4. By length: -6 / 6 = -1 > -4 / 2 = -2.
    question = ([-6.0, -4.0], 0, ["abcdef", "ab"])
    assert scores([question]) == {"acc_norm": 1.0, "acc": 0.0, "acc_bytes": 1.0}
    other = ([-6.0, -4.0, -9.0], 1, ["abcdef", "ab", "abc"])
    assert scores([question, other]) == {"acc_norm": 0.5, "acc": 0.5, "acc_bytes": 0.5}


def test_characters_are_not_bytes() -> None:
    # "ééé" has 3 characters and 6 bytes: -6/3 = -2 and -6/6 = -1, against -6/4 = -1.5.
    question = ([-6.0, -6.0], 0, ["ééé", "abcd"])
    assert scores([question]) == {"acc_norm": 0.0, "acc": 1.0, "acc_bytes": 1.0}


def test_of_equal_ones_the_first_counts() -> None:
    assert most_likely([-2.0, -1.0, -1.0], [1, 1, 1]) == 1
    assert most_likely([-2.0, -2.0], [2, 2]) == 0
    assert most_likely([0.0, -1.0], [9, 1]) == 0


Question = st.integers(2, 6).flatmap(
    lambda size: st.tuples(
        st.lists(st.floats(-50, 0), min_size=size, max_size=size),
        st.integers(0, size - 1),
        st.lists(st.text("ab é日", min_size=1, max_size=9), min_size=size, max_size=size),
    )
)


@given(st.lists(Question, min_size=1, max_size=8))
def test_against_another_computation(questions: list[tuple[list[float], int, list[str]]]) -> None:
    """With numpy's argmax over arrays, which takes the first of equal ones, too."""
    hits: dict[str, list[bool]] = {"acc": [], "acc_norm": [], "acc_bytes": []}
    for values, right, texts in questions:
        likelihoods = np.array(values)
        lengths = {
            "acc": np.ones(len(texts)),
            "acc_norm": np.array([float(len(text)) for text in texts]),
            "acc_bytes": np.array([float(len(text.encode("utf-8"))) for text in texts]),
        }
        for name, by in lengths.items():
            hits[name].append(int(np.argmax(likelihoods / by)) == right)
    assert scores(questions) == {name: pytest.approx(np.mean(found)) for name, found in hits.items()}


def test_errors() -> None:
    with pytest.raises(ValueError, match="zip"):
        Metric().compute(
            predictions=[[-1.0, -2.0]], references=[{"right": 0, "characters": [1], "bytes": [1]}]
        )
    with pytest.raises(ValueError, match="at least one question"):
        Metric().compute(predictions=[], references=[])
