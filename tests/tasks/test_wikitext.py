"""WikiText by hand: blocks of one stream, each token scored once, and words counted where they end."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.data.rows import load_rows
from repro.moe.backbones import gpt2
from repro.tasks import wikitext
from repro.tasks.shared.causal import words_ending

LINES = [
    "",
    " = Valkyria = \n",
    "",
    " The <unk> @-@ old Senjō no Valkyria 3 ( 戦場 ) was sold – naïve – in 1,000 shops . \n",
    " caf\u00e9 , cafe\u0301 and \U0001f3ac . \n",
    "",
    " a  b\tc \n",
]
ROWS = [{"text": line} for line in LINES]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Byte-level, so small that most words are several tokens and some characters too."""
    return gpt2.train_tokenizer(LINES * 2, 300)


def task(tokenizer: Any, max_length: int) -> wikitext.Task:
    return wikitext.Task(wikitext.Config(), tokenizer, max_length)


def stream(tokenizer: Any) -> list[int]:
    return [token for line in LINES for token in tokenizer(line or "\n")["input_ids"]]


class TestBlocks:
    @pytest.mark.parametrize("size", [4, 5, 16, 1000])
    def test_neighbours_share_one_token(self, tokenizer: Any, size: int) -> None:
        ids = stream(tokenizer)
        features = task(tokenizer, size).encode(ROWS)
        rebuilt = features[0]["input_ids"][:1]
        for number, feature in enumerate(features):
            assert feature["input_ids"][0] == rebuilt[-1]
            rebuilt += feature["input_ids"][1:]
            full = len(feature["input_ids"]) == size
            assert full or (number + 1 == len(features) and len(feature["input_ids"]) > 1)
            assert feature["cut"] is False
        assert rebuilt == ids
        assert tokenizer.decode(rebuilt) == "".join(line or "\n" for line in LINES)

    @pytest.mark.parametrize("size", [4, 5, 16, 1000])
    def test_every_token_but_the_first_is_scored_once(self, tokenizer: Any, size: int) -> None:
        features = task(tokenizer, size).encode(ROWS)
        for feature in features:
            assert feature["scored"] == [0] + [1] * (len(feature["input_ids"]) - 1)
        assert sum(sum(feature["scored"]) for feature in features) == len(stream(tokenizer)) - 1

    @pytest.mark.parametrize("tokens", [2, 7, 8, 9, 13, 14])
    def test_the_last_block(self, tokenizer: Any, tokens: int) -> None:
        """Blocks of 7 begin at tokens 0, 6, 12 ...; one that would predict nothing is left out."""
        # "q" and its line end, and blank lines, whether the rows have their line ends or not.
        features = task(tokenizer, 7).encode(
            [{"text": "q"}, *[{"text": "\n"}, {"text": ""}] * 6][: tokens - 1]
        )
        sizes = {2: [2], 7: [7], 8: [7, 2], 9: [7, 3], 13: [7, 7], 14: [7, 7, 2]}
        assert [len(feature["input_ids"]) for feature in features] == sizes[tokens]

    @pytest.mark.parametrize("rows", [[], ["", ""], ["\n"], ["", " \n", ""]])
    def test_too_little_text(self, tokenizer: Any, rows: list[str]) -> None:
        assert task(tokenizer, 7).encode([{"text": text} for text in rows]) == []

    def test_labels_are_the_tokens_themselves(self, tokenizer: Any) -> None:
        """The model shifts them."""
        made = task(tokenizer, 6)
        features = made.encode(ROWS)
        chosen = [features[0], features[-1]]
        batch = made.collate(chosen)
        for row, feature in enumerate(chosen):
            size = len(feature["input_ids"])
            assert batch["labels"][row, 0] == -100
            assert batch["labels"][row, 1:size].tolist() == feature["input_ids"][1:]
            assert (batch["labels"][row, size:] == -100).all()


class TestWords:
    @pytest.mark.parametrize(
        ("text", "spans", "counts"),
        [
            ("ab cd", [(0, 2), (2, 5)], [1, 1]),
            ("ab cd", [(0, 1), (1, 2), (2, 4), (4, 5)], [0, 1, 0, 1]),
            ("ab cd", [(0, 5)], [2]),
            (" ab \n", [(0, 3), (3, 4), (4, 5)], [1, 0, 1]),  # the line end counts as a word
            (" ab \n", [(0, 3), (3, 5)], [1, 1]),
            ("ab\n", [(0, 3)], [2]),
            ("\n", [(0, 1)], [1]),
            ("a \n\n b", [(0, 1), (1, 4), (4, 6)], [1, 2, 1]),
            (" <unk> x", [(0, 2), (2, 5), (5, 6), (6, 8)], [0, 0, 1, 1]),
            ("é", [(0, 1), (0, 1)], [1, 0]),  # two tokens of one character: the word ends with the first
            ("né e", [(0, 1), (1, 2), (1, 2), (2, 4)], [0, 1, 0, 1]),
            ("   ", [(0, 3)], [0]),
            ("", [], []),
            ("a\u00a0b", [(0, 1), (1, 2), (2, 3)], [1, 0, 1]),  # as `str.split` sees it
        ],
    )
    def test_words_ending(self, text: str, spans: list[tuple[int, int]], counts: list[int]) -> None:
        assert words_ending(text, spans) == counts
        assert sum(counts) == len(text.split()) + text.count("\n")

    def test_of_real_tokens(self, tokenizer: Any) -> None:
        for line in LINES[1::2]:
            spans = tokenizer(line, return_offsets_mapping=True)["offset_mapping"]
            assert sum(words_ending(line, spans)) == len(line.split()) + line.count("\n")

    @pytest.mark.parametrize("size", [4, 5, 16, 1000])
    def test_blocks_count_every_word_once(self, tokenizer: Any, size: int) -> None:
        """But the line end that is the very first token, which is not scored."""
        features = task(tokenizer, size).encode(ROWS)
        assert tokenizer.decode(features[0]["input_ids"][:1]) == "\n"
        # Words of the lines: 0, 3, 0, 20, 6, 0, 3, ended by 7 line ends, of which 3 are of blank lines.
        assert sum(len(line.split()) for line in LINES) == 32
        assert sum(feature["words"] for feature in features) == 32 + 7 - 1

    @pytest.mark.skipif("REPRO_TEST_DATA" not in os.environ, reason="needs wikitext-2")
    def test_wikitext_2(self, tokenizer: Any) -> None:
        """245,569 words of the test split, as published; the first line end is not predicted."""
        rows = load_rows(wikitext, "folder:0", Path(os.environ["REPRO_TEST_DATA"]), "test", None).rows
        assert sum(len(row["text"].split()) for row in rows) == 241_211
        assert len(rows) == 4_358
        features = task(tokenizer, 512).encode(rows)
        assert sum(feature["words"] for feature in features) == 245_569 - 1

    def test_a_word_in_the_first_token_is_not_predicted(self, tokenizer: Any) -> None:
        (feature,) = task(tokenizer, 20).encode([{"text": "a b \n"}])
        assert feature["words"] == 2

    def test_answers(self, tokenizer: Any) -> None:
        made = task(tokenizer, 16)
        features = made.encode(ROWS)
        found, counts = made.answers([1.5] * len(features), features, ROWS)
        assert found == [1.5] * len(features)
        assert counts == [
            {"tokens": len(feature["input_ids"]) - 1, "words": feature["words"]} for feature in features
        ]


class Outputs:
    """Logits of a model that finds the right next token so much more probable than each other."""

    def __init__(self, ids_BS: torch.Tensor, vocabulary: int, height: float) -> None:
        next_BS = torch.cat([ids_BS[:, 1:], ids_BS[:, :1]], dim=1)
        self.logits = height * torch.nn.functional.one_hot(next_BS, vocabulary).float()


@pytest.mark.parametrize("height", [0.0, 2.0])
def test_likelihoods_by_hand(tokenizer: Any, height: float) -> None:
    """-log(e^h / (e^h + V - 1)) for each scored token, and nothing for padding."""
    made = task(tokenizer, 6)
    features = made.encode(ROWS)
    chosen = [features[0], features[-1], features[1]]
    batch = made.collate(chosen)
    size = len(tokenizer)
    found = made.predict(None, batch, Outputs(batch["input_ids"], size, height), chosen)
    one = float(torch.tensor(height).exp().add(size - 1).log() - height)
    assert found == pytest.approx([one * (len(feature["input_ids"]) - 1) for feature in chosen], rel=1e-5)


@pytest.mark.parametrize("text", [None, 7, ["a"]])
def test_no_text(text: object) -> None:
    assert wikitext.problem({"text": text}) == f"text {text!r} is not text"


def test_the_tokenizer_learns_from_lines_with_text() -> None:
    assert wikitext.texts({"text": ""}) == wikitext.texts({"text": " \n"}) == []
    assert wikitext.texts({"text": " a \n"}) == [" a \n"]
    assert wikitext.problem({"text": ""}) is None
