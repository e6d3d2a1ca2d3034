"""Subwords to words and categories, on token strings written by hand."""

import json
from pathlib import Path

import pytest

from repro.analysis.words import (
    LabelledText,
    WordMarks,
    labelled_texts,
    raw_text,
    token_strings,
    word_marks,
    words_of,
)
from repro.data.tokenizers import pretrained_tokenizer

BYTE_LEVEL, END_OF_WORD, WORDPIECE = WordMarks.BYTE_LEVEL, WordMarks.END_OF_WORD, WordMarks.WORDPIECE


@pytest.mark.parametrize(
    ("vocabulary", "marks"),
    [
        (["[CLS]", "film", "##s"], WORDPIECE),
        (["fil", "m</w>"], END_OF_WORD),
        (["film", "Ġfilm", "##", "<s>"], BYTE_LEVEL),
    ],
)
def test_word_marks(vocabulary: list[str], marks: WordMarks) -> None:
    assert word_marks(vocabulary) is marks


@pytest.mark.parametrize(
    ("token", "marks", "text"),
    [
        ("##ing", WORDPIECE, "ing"),
        ("m</w>", END_OF_WORD, "m"),
        ("Ġnaïve".replace("ï", "Ã¯"), BYTE_LEVEL, " naïve"),
        ("Ċ", BYTE_LEVEL, "\n"),
    ],
)
def test_raw_text(token: str, marks: WordMarks, text: str) -> None:
    assert raw_text(token, marks) == text.encode()


@pytest.mark.parametrize(
    ("tokens", "marks", "word_S", "words"),
    [
        (
            [None, "un", "##grip", "##ping", "Film", None],
            WORDPIECE,
            [None, 0, 0, 0, 1, None],
            ["ungripping", "film"],
        ),
        (["K", "atze</w>", "da</w>", None], END_OF_WORD, [0, 0, 1, None], ["katze", "da"]),
        (
            ["The", "Ġcin", "ema", ".", "ĠIn", "Ġ19", "04", "Ċ", "so"],
            BYTE_LEVEL,
            [0, 1, 1, 2, 3, 4, 4, None, 5],
            ["the", "cinema", ".", "in", "1904", "so"],
        ),
        # A special token ends a word; a letter in two byte tokens is one word.
        (["a", None, "b", "Ã", "¼"], BYTE_LEVEL, [0, None, 1, 1, 1], ["a", "bü"]),
        ([], WORDPIECE, [], []),
    ],
)
def test_words(
    tokens: list[str | None], marks: WordMarks, word_S: list[int | None], words: list[str]
) -> None:
    assert words_of(tokens, marks) == (word_S, words)


@pytest.mark.parametrize(
    ("stack", "vocabulary", "tokens"),
    [
        ("encoder", "vocab-src.json", ["die</w>", "Katze</w>", "</s>"]),
        ("decoder", "vocab-tgt.json", ["the</w>", "cat</w>", "</s>"]),
    ],
)
def test_fsmt_has_a_vocabulary_for_each_language(
    fsmt_folder: Path, stack: str, vocabulary: str, tokens: list[str]
) -> None:
    id_by_token = json.loads((fsmt_folder / vocabulary).read_text(encoding="utf-8"))
    ids = [id_by_token[token] for token in tokens]
    assert token_strings(pretrained_tokenizer(fsmt_folder), ids, stack) == [*tokens[:2], None]


def test_labelled_texts_of_every_schema() -> None:
    sentence = {"sentence": "not bad", "categories": ["negation", "negative"]}
    assert labelled_texts(sentence, ["sentence", "label"]) == [[("not", "negation"), ("bad", "negative")]]
    pair = {"translation": {"de": "ja", "en": "oh yes"}, "categories": {"de": ["x"], "en": ["y", "z"]}}
    assert labelled_texts(pair, ["translation"]) == [[("ja", "x")], [("oh", "y"), ("yes", "z")]]
    talk = {
        "narrative": "a",
        "dialogue": ["b c", "d"],
        "categories": {"narrative": ["1"], "dialogue": [["2", "3"], ["4"]]},
    }
    assert labelled_texts(talk, ["narrative", "dialogue"]) == [
        [("a", "1")],
        [("b", "2"), ("c", "3")],
        [("d", "4")],
    ]
    choices = {
        "question": "who ?",
        "choices": {"text": ["a b", "c"], "label": ["A", "B"]},
        "categories": {"question": ["1", "2"], "choices": [["3", "4"], ["5"]]},
    }
    assert labelled_texts(choices, ["question", "choices", "answerKey"]) == [
        [("who", "1"), ("?", "2")],
        [("a", "3"), ("b", "4")],
        [("c", "5")],
    ]
    assert labelled_texts({"text": "real"}, ["text"]) == []


CONTEXT = [("Bo", "name"), ("won", "verb"), (".", "function")]
QUESTION = [("Who", "question"), ("won", "constraint"), ("?", "function")]


def raws(*tokens: str | None) -> list[bytes | None]:
    return [None if token is None else token.encode() for token in tokens]


def test_a_segment_is_found_as_a_whole_text_first() -> None:
    """The question stands before the context, but the other way round in the row."""
    text = LabelledText([CONTEXT, QUESTION], WORDPIECE)
    assert text.categories(raws(None, "who", "wo", "n", "?", None, "bo", "won", ".", None)) == [
        None,
        "question",
        "constraint",
        "constraint",
        "function",
        None,
        "name",
        "verb",
        "function",
        None,
    ]


def test_cut_segments_are_found_at_the_beginning_or_the_end() -> None:
    text = LabelledText([CONTEXT, QUESTION], WORDPIECE)
    assert text.categories(raws("who", "won")) == ["question", "constraint"]
    assert text.categories(raws("won", ".")) == ["verb", "function"]


def test_equal_texts_are_taken_in_turn() -> None:
    text = LabelledText([[("bye", "first")], [("bye", "second")]], BYTE_LEVEL)
    assert text.categories(raws("bye", None, "b", "ye", None)) == ["first", None, "second", "second", None]


def test_a_token_has_the_category_of_its_first_letter() -> None:
    text = LabelledText([[("a", "one"), ("b", "two")]], BYTE_LEVEL)
    assert text.categories(raws("a b")) == ["one"]
    assert text.categories(raws("a", " b", "\n")) == ["one", "two", None]


def test_accents_and_case_as_bert_reads_them() -> None:
    text = LabelledText([[("Naïve", "content")]], WORDPIECE)
    assert text.categories(raws("na", "ive")) == ["content", "content"]


def test_what_is_not_there_has_no_category() -> None:
    text = LabelledText([CONTEXT], WORDPIECE)
    assert text.categories(raws("nothing", "here", None, "bo")) == [None, None, None, "name"]
    assert LabelledText([], WORDPIECE).categories(raws("bo", None)) == [None, None]
