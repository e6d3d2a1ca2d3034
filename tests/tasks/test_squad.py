"""SQuAD by hand: windows over a context of letters, spans of answers, and the way back to text."""

import string
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from repro.errors import UserError
from repro.moe.backbones.bert import train_tokenizer
from repro.tasks import squad

LETTERS = "a b c d e f g h i j k l"
# With a question of two letters, eleven positions leave six for the context. Windows that share two
# letters are then a-f, e-j and i-l, each behind `[CLS] q r [SEP]`, so that its first letter stands at 4.
WINDOWS = ["a b c d e f", "e f g h i j", "i j k l"]
FIRST = 4


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Every letter is a token, and words are spelled with them: the vocabulary has room for no more."""
    letters = string.ascii_lowercase
    return train_tokenizer([" ".join(letters) + " 3 . -", letters[::-1] + letters], 60)


def task(tokenizer: Any, max_length: int = 11, **options: int) -> squad.Task:
    defaults = {"stride": 2, "max_question_length": 2, "max_answer_length": 3}
    return squad.Task(squad.Config(**defaults | options), tokenizer, max_length)


def row(answer: str, *others: str, context: str = LETTERS, question: str = "q r") -> dict[str, Any]:
    texts = [answer, *others]
    return {
        "context": context,
        "question": question,
        "answers": {"text": texts, "answer_start": [context.index(text) for text in texts]},
    }


def places(tokenizer: Any, answer: str, **options: int) -> list[tuple[int, int]]:
    """Start and end of the answer in each window."""
    return [
        (feature["start"], feature["end"]) for feature in task(tokenizer, **options).encode([row(answer)])
    ]


class TestWindows:
    def test_neighbours_share_the_stride(self, tokenizer: Any) -> None:
        features = task(tokenizer).encode([row("a")])
        assert len(features) == 3
        for feature, window in zip(features, WINDOWS, strict=True):
            text = f"[CLS] q r [SEP] {window} [SEP]".split()
            assert tokenizer.convert_ids_to_tokens(feature["input_ids"]) == text
            assert feature["first"] == FIRST
            assert feature["token_type_ids"] == [0] * FIRST + [1] * (len(text) - FIRST)
            assert [LETTERS[start:end] for start, end in feature["spans"]] == window.split()
            assert (feature["row"], feature["cut"]) == (0, False)

    def test_a_short_question_leaves_more_room(self, tokenizer: Any) -> None:
        features = task(tokenizer).encode([row("a", question="q")])
        # Seven letters a window, five of them new.
        assert [len(feature["spans"]) for feature in features] == [7, 7]
        assert features[1]["spans"][0] == [10, 11]

    def test_a_context_that_fits_is_one_window(self, tokenizer: Any) -> None:
        assert len(task(tokenizer, 17).encode([row("a")])) == 1
        assert len(task(tokenizer, 16).encode([row("a")])) == 2

    def test_rows_keep_their_number(self, tokenizer: Any) -> None:
        rows = [row("a"), row("b", context="b"), row("l")]
        features = task(tokenizer).encode(rows)
        assert [feature["row"] for feature in features] == [0, 0, 0, 1, 2, 2, 2]

    def test_the_question_is_cut_at_a_token(self, tokenizer: Any) -> None:
        rows = [row("a", question=question) for question in ("q r", "q r s t", "  q r  ", "qrst")]
        features = task(tokenizer).encode(rows)
        cut = {feature["row"]: feature["cut"] for feature in features}
        assert cut == {0: False, 1: True, 2: False, 3: True}
        ids = {feature["row"]: feature["input_ids"] for feature in features}
        assert ids[0] == ids[1] == ids[2]
        assert tokenizer.convert_ids_to_tokens(ids[3])[:4] == ["[CLS]", "q", "##r", "[SEP]"]

    @pytest.mark.parametrize(("stride", "fits"), [(5, True), (6, False), (7, False)])
    def test_a_window_must_bring_something_new(self, tokenizer: Any, stride: int, fits: bool) -> None:
        """Six letters beside the longest question."""
        if fits:
            assert len(task(tokenizer, stride=stride).encode([row("a")])) == 7
            return
        message = (
            r"^data\.max_length: 11 leaves 6 tokens of context beside a question of"
            rf" task\.max_question_length = 2; that must be more than task\.stride = {stride}$"
        )
        with pytest.raises(UserError, match=message):
            task(tokenizer, stride=stride)

    def test_a_context_without_tokens(self, tokenizer: Any) -> None:
        with pytest.raises(UserError, match=r"the tokenizer finds no token in it$"):
            task(tokenizer).encode([row("\u200b", context="\u200b")])


class TestPlaces:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("g h", [(0, 0), (6, 7), (0, 0)]),  # in the second window alone
            ("e f", [(8, 9), (4, 5), (0, 0)]),  # at the end of one window and the start of the next
            ("f", [(9, 9), (5, 5), (0, 0)]),
            ("d e", [(7, 8), (0, 0), (0, 0)]),  # the second window has only its end
            ("f g", [(0, 0), (5, 6), (0, 0)]),  # the first window has only its start
            ("d e f g", [(0, 0), (0, 0), (0, 0)]),  # longer than what windows share: whole in none
            ("a", [(4, 4), (0, 0), (0, 0)]),  # the first character of the context
            ("l", [(0, 0), (0, 0), (7, 7)]),  # the last
            ("i j k l", [(0, 0), (0, 0), (4, 7)]),
        ],
    )
    def test_of_the_first_gold_answer(
        self, tokenizer: Any, answer: str, expected: list[tuple[int, int]]
    ) -> None:
        assert places(tokenizer, answer) == expected

    def test_later_gold_answers_do_not_matter(self, tokenizer: Any) -> None:
        features = task(tokenizer).encode([row("b", "h")])
        assert [feature["start"] for feature in features] == [5, 0, 0]

    def test_a_whole_context(self, tokenizer: Any) -> None:
        assert places(tokenizer, LETTERS, max_length=17) == [(4, 15)]

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [((2, "bb"), (1, 1)), ((3, "b"), (1, 1)), ((0, "a bb"), (0, 1)), ((2, "bb cc"), (1, 2))],
    )
    def test_inside_tokens(self, answer: tuple[int, str], expected: tuple[int, int]) -> None:
        """The token of a part of a word is the word; here `a`, `bb` and `cc` are tokens."""
        spans = [[0, 1], [2, 4], [5, 7]]
        start, text = answer
        assert squad.answer_tokens(spans, text, start) == expected

    @pytest.mark.parametrize("answer", [(0, "a"), (0, "a bb"), (5, "cc dd"), (8, "dd"), (0, "a bb cc dd")])
    def test_outside_tokens(self, answer: tuple[int, str]) -> None:
        """A window over the middle of `a bb cc dd`."""
        start, text = answer
        assert squad.answer_tokens([[2, 4], [5, 7]], text, start) == (None, None)

    @pytest.mark.parametrize("answer", [" g h", "g h ", " g h "])
    def test_spaces_around_an_answer(self, tokenizer: Any, answer: str) -> None:
        # the answer incomplete and every window is trained to point at [CLS].
        assert places(tokenizer, answer) == [(0, 0), (6, 7), (0, 0)]

    def test_an_accent_behind_an_answer(self, tokenizer: Any) -> None:
        (feature,) = task(tokenizer, 30).encode([row("cafe\u0301", context="a cafe\u0301 b")])
        assert (feature["start"], feature["end"]) == (FIRST + 1, FIRST + 4)


def logits(feature: dict[str, Any], width: int, start: int, end: int, height: float) -> tuple[Any, Any]:
    """Logits that point from one position of a window to another."""
    starts, ends = torch.zeros(width), torch.zeros(width)
    starts[start], ends[end] = height, height
    return starts, ends


def found_text(
    tokenizer: Any,
    rows: list[dict[str, Any]],
    points: list[tuple[int, int, float]],
    max_length: int = 11,
    **options: int,
) -> list[str]:
    """Answers when each window's logits point from one position to another, so high."""
    asked = task(tokenizer, max_length, **options)
    features = asked.encode(rows)
    width = max(len(feature["input_ids"]) for feature in features)
    pairs = [
        logits(feature, width, start, end, height)
        for feature, (start, end, height) in zip(features, points, strict=True)
    ]
    outputs = SimpleNamespace(
        start_logits=torch.stack([start for start, _ in pairs]),
        end_logits=torch.stack([end for _, end in pairs]),
    )
    found = asked.predict(None, asked.collate(features), outputs, features)
    answers, references = asked.answers(found, features, rows)
    assert references == [list(row["answers"]["text"]) for row in rows]
    return answers


class TestAnswers:
    @pytest.mark.parametrize(
        ("points", "answer"),
        [
            ([(4, 5, 3.0), (4, 4, 2.0), (4, 4, 1.0)], "a b"),
            ([(4, 5, 1.0), (5, 6, 2.0), (4, 4, 1.5)], "f g"),
            ([(4, 5, 1.0), (5, 6, 2.0), (7, 7, 2.5)], "l"),
        ],
    )
    def test_the_best_span_of_all_windows(
        self, tokenizer: Any, points: list[tuple[int, int, float]], answer: str
    ) -> None:
        assert found_text(tokenizer, [row("a")], points) == [answer]

    def test_of_equal_windows_the_first(self, tokenizer: Any) -> None:
        assert found_text(tokenizer, [row("a")], [(5, 5, 1.0), (6, 6, 1.0), (4, 4, 1.0)]) == ["b"]

    def test_each_row_has_its_own_windows(self, tokenizer: Any) -> None:
        rows = [row("a"), row("b", context="k b"), row("l")]
        points = [(4, 4, 1.0), (9, 9, 2.0), (4, 4, 1.0), (5, 5, 0.5), (4, 4, 3.0), (4, 4, 1.0), (4, 4, 1.0)]
        assert found_text(tokenizer, rows, points) == ["j", "b", "a"]

    def test_an_answer_has_a_longest_length(self, tokenizer: Any) -> None:
        """Start at b, end at e: four tokens. Of three, the best has the one or the other, alone."""
        points = [(5, 8, 2.0), (4, 4, 0.5), (4, 4, 0.5)]
        assert found_text(tokenizer, [row("a")], points, max_answer_length=4) == ["b c d e"]
        shorter = found_text(tokenizer, [row("a")], points, max_answer_length=3)
        assert shorter in (["b"], ["b c"], ["b c d"], ["c d e"], ["d e"], ["e"])

    def test_an_end_is_never_before_its_start(self, tokenizer: Any) -> None:
        (answer,) = found_text(tokenizer, [row("a")], [(8, 5, 2.0), (4, 4, 0.5), (4, 4, 0.5)])
        assert answer
        assert answer in LETTERS

    @pytest.mark.parametrize("place", [0, 1, 3, 10])
    def test_nothing_but_the_context_is_an_answer(self, tokenizer: Any, place: int) -> None:
        """`[CLS]`, the question and `[SEP]` have the highest logits."""
        points = [(place, place, 9.0), (4, 4, 0.5), (4, 4, 0.5)]
        (answer,) = found_text(tokenizer, [row("a")], points)
        assert answer == "e"

    def test_padding_is_no_answer(self, tokenizer: Any) -> None:
        """The last window is shorter than the others."""
        (answer,) = found_text(tokenizer, [row("a")], [(4, 4, 0.5), (4, 4, 0.5), (9, 10, 9.0)])
        assert answer == "a"

    @pytest.mark.parametrize(
        "answer",
        [
            "Zürich",
            "größte",
            "Stadt – 3 km²",
            "caf\u00e9",
            "cafe\u0301s",  # the accent is a character of its own
            "\u0130stanbul",  # its lower case is two characters
            "\U0001f3ac film",
            "東京",
            "“quoted”",
            "U.S.",
        ],
    )
    def test_unicode(self, tokenizer: Any, answer: str) -> None:
        """At the first character, in the middle, and up to the last."""
        for context in (answer, f"{answer} a b c", f"x – ñ {answer} y", f"\u00a0x {answer}"):
            asked = row(answer, context=context)
            (feature,) = task(tokenizer, 60, max_answer_length=30).encode([asked])
            assert feature["start"] >= FIRST
            points = [(feature["start"], feature["end"], 1.0)]
            assert found_text(tokenizer, [asked], points, 60, max_answer_length=30) == [answer]


class TestProblem:
    def test_none(self) -> None:
        assert squad.problem(row("a", "b c", "l")) is None
        assert squad.problem(row("größte", context="die größte Stadt")) is None

    @pytest.mark.parametrize("column", ["context", "question"])
    @pytest.mark.parametrize("value", [None, 7, "", "  ", ["a"]])
    def test_texts(self, column: str, value: object) -> None:
        assert squad.problem(row("a") | {column: value}) == f"{column} {str(value)!r} is not text"

    @pytest.mark.parametrize(
        ("answers", "problem"),
        [
            ({"text": ["b"], "answer_start": [0]}, "answer 'b' is not at position 0 of the context"),
            ({"text": ["k l"], "answer_start": [21]}, "answer 'k l' is not at position 21 of the context"),
            ({"text": ["a"], "answer_start": [99]}, "answer 'a' is not at position 99 of the context"),
            ({"text": [""], "answer_start": [0]}, "answer '' is not at position 0 of the context"),
            ({"text": ["a", "c"], "answer_start": [0, 0]}, "answer 'c' is not at position 0 of the context"),
            ({"text": ["a", "b"], "answer_start": [0]}, "answers is not an object with equally long lists"),
            ({"text": ["a"]}, "answers is not an object with equally long lists"),
            (["a"], "answers is not an object with equally long lists"),
            ("a", "answers is not an object with equally long lists"),
            (None, "answers is not an object with equally long lists"),
            ({"text": None, "answer_start": [0]}, "answers is not an object with equally long lists"),
            ({"text": [], "answer_start": []}, "answers has no answer"),
            ({"text": [7], "answer_start": [0]}, "answers has a text or answer_start of the wrong type"),
            ({"text": ["a"], "answer_start": ["0"]}, "answers has a text or answer_start of the wrong type"),
            ({"text": ["a"], "answer_start": [None]}, "answers has a text or answer_start of the wrong type"),
        ],
    )
    def test_answers(self, answers: object, problem: str) -> None:
        found = squad.problem(row("a") | {"answers": answers})
        assert found is not None
        assert found.startswith(problem)

    def test_a_position_is_not_counted_from_the_end(self) -> None:
        assert squad.problem(row("a") | {"answers": {"text": ["k"], "answer_start": [-3]}}) is not None

    def test_a_text_is_no_list(self) -> None:
        assert squad.problem(row("a") | {"answers": {"text": "a", "answer_start": [0]}}) is not None
