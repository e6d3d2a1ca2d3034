"""SODA by hand: what is read, what is scored, what is cut, and its neighbour Commonsense-Dialogues."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from repro.data.rows import load_rows
from repro.moe.backbones import gpt2
from repro.tasks import soda
from repro.tasks.base import Row

END = gpt2.END
ROW: Row = {
    "narrative": "Ann met Ben at the café.",
    "dialogue": ["Hello Ben!", "Hi, how are you?", "Fine."],
    "speakers": ["Ann", "Ben", "Ann"],
}
SODA_ROW = {
    "head": "PersonX goes to school",
    "relation": "xWant",
    "tail": "to learn",
    "literal": "Ann goes to school. Now Ann wants to learn.",
    **ROW,
    "PersonX": "Ann",
    "PersonY": "Ben",
    "PersonZ": "",
    "original_index": 7,
    "split": "train",
    "head_answer": "yes",
    "pmi_head_answer": "yes",
    "relation_tail_answer": "yes",
    "pmi_relation_tail_answer": "no",
}
"""All 16 columns of the data set on the hub."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return gpt2.train_tokenizer(soda.texts(ROW) * 2, 290)


def task(tokenizer: Any, max_length: int = 200) -> soda.Task:
    return soda.Task(soda.Config(), tokenizer, max_length)


def encoded(tokenizer: Any, max_length: int = 200, **changes: Any) -> dict[str, Any]:
    (feature,) = task(tokenizer, max_length).encode([ROW | changes])
    return feature


def parts(tokenizer: Any, feature: dict[str, Any]) -> tuple[str, str]:
    """What is read and what is scored, as text."""
    ids, scored = feature["input_ids"], feature["scored"]
    assert scored == sorted(scored)
    start = len(ids) - sum(scored)
    return tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:])


class TestEncoding:
    def test_later_turns_are_scored_with_their_ends(self, tokenizer: Any) -> None:
        feature = encoded(tokenizer)
        read, scored = parts(tokenizer, feature)
        assert read == f"Ann met Ben at the café.{END}Hello Ben!{END}"
        assert scored == f"Hi, how are you?{END}Fine.{END}"
        assert feature["words"] == 5
        assert feature["cut"] is False

    def test_two_turns(self, tokenizer: Any) -> None:
        feature = encoded(tokenizer, dialogue=["Hello Ben!", "Hi"])
        assert parts(tokenizer, feature)[1] == f"Hi{END}"
        assert feature["words"] == 1

    def test_a_response_may_be_empty(self, tokenizer: Any) -> None:
        feature = encoded(tokenizer, dialogue=["Hello Ben!", ""])
        assert parts(tokenizer, feature)[1] == END
        assert (sum(feature["scored"]), feature["words"]) == (1, 0)

    def test_without_a_narrative(self, tokenizer: Any) -> None:
        assert parts(tokenizer, encoded(tokenizer, narrative=""))[0] == f"{END}Hello Ben!{END}"

    def test_a_long_narrative_loses_its_beginning(self, tokenizer: Any) -> None:
        """It may fill half of the length, together with the first turn."""
        whole = encoded(tokenizer, narrative="Once upon a time. " * 5 + ROW["narrative"], max_length=400)
        start = len(whole["input_ids"]) - sum(whole["scored"])
        feature = encoded(tokenizer, 60, narrative="Once upon a time. " * 5 + ROW["narrative"])
        assert start > 30
        assert feature["input_ids"] == whole["input_ids"][start - 30 :][:60]
        assert feature["scored"] == ([0] * 30 + whole["scored"][start:])[:60]
        assert feature["cut"] is True
        assert parts(tokenizer, feature)[0].count("Once upon") < 5
        assert parts(tokenizer, feature)[0].endswith(f"Hello Ben!{END}")

    def test_a_long_dialogue_loses_its_end(self, tokenizer: Any) -> None:
        whole = encoded(tokenizer, 200, narrative="Ann.")
        for room in range(4, len(whole["input_ids"])):
            feature = encoded(tokenizer, room, narrative="Ann.")
            assert len(feature["input_ids"]) <= room
            assert feature["cut"] is True
            assert sum(feature["scored"]) > 0
        start = len(whole["input_ids"]) - sum(whole["scored"])
        kept = encoded(tokenizer, 2 * start, narrative="Ann.")
        assert kept["input_ids"] == whole["input_ids"][: 2 * start]
        assert encoded(tokenizer, len(whole["input_ids"]), narrative="Ann.") == whole

    def test_words_that_are_cut_off_are_not_counted(self, tokenizer: Any) -> None:
        whole = encoded(tokenizer, narrative="Ann.")
        # Without the last end token, and without the last character of "Fine." before it.
        counts = [
            encoded(tokenizer, len(whole["input_ids"]) - less, narrative="Ann.")["words"]
            for less in (0, 1, 2)
        ]
        assert counts == [5, 5, 4]

    def test_labels(self, tokenizer: Any) -> None:
        made = task(tokenizer)
        features = made.encode([ROW, ROW | {"dialogue": ["Hello Ben!", "Hi"]}])
        batch = made.collate(features)
        for row, feature in enumerate(features):
            size, scored = len(feature["input_ids"]), sum(feature["scored"])
            labels = batch["labels"][row]
            assert (labels[: size - scored] == -100).all()
            assert labels[size - scored : size].tolist() == feature["input_ids"][size - scored :]
            # The end token pads too; what pads is no label.
            assert (labels[size:] == -100).all()
        assert made.loss_terms(batch) == sum(sum(feature["scored"]) for feature in features)
        assert tokenizer.pad_token_id == tokenizer.eos_token_id

    def test_answers_count_scored_tokens_and_words(self, tokenizer: Any) -> None:
        made = task(tokenizer)
        features = made.encode([ROW])
        found, counts = made.answers([2.0], features, [ROW])
        assert found == [2.0]
        assert counts == [{"tokens": sum(features[0]["scored"]), "words": 5}]


class TestRows:
    def test_the_columns_of_the_hub(self, tokenizer: Any, tmp_path: Path) -> None:
        assert len(SODA_ROW) == 16
        assert soda.problem(SODA_ROW) is None
        (tmp_path / "soda").mkdir()
        (tmp_path / "soda" / "train.jsonl").write_text(json.dumps(SODA_ROW) + "\n", encoding="utf-8")
        (row,) = load_rows(soda, "folder:0", tmp_path, "train", None).rows
        assert task(tokenizer).encode([row]) == task(tokenizer).encode([ROW])

    def test_commonsense_dialogues_stand_in(self, tmp_path: Path) -> None:
        (tmp_path / "commonsense_dialogues").mkdir()
        rows = [ROW | {"id": f"test-{number}"} for number in range(3)]
        with gzip.open(tmp_path / "commonsense_dialogues" / "train.jsonl.gz", "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        assert load_rows(soda, "folder:0", tmp_path, "train", None).rows == rows

    def test_the_data_set_itself_comes_first(self, tmp_path: Path) -> None:
        for name, turn in (("commonsense_dialogues", "second"), ("soda", "first")):
            (tmp_path / name).mkdir()
            row = ROW | {"dialogue": ["Hello", turn]}
            (tmp_path / name / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        (row,) = load_rows(soda, "folder:0", tmp_path, "train", None).rows
        assert row["dialogue"][1] == "first"

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"dialogue": []}, "dialogue has 0 turns; a response needs a turn before it"),
            ({"dialogue": ["Hi"]}, "dialogue has 1 turns; a response needs a turn before it"),
            ({"dialogue": "Hi. Hello."}, "dialogue is not a list of texts"),
            ({"dialogue": None}, "dialogue is not a list of texts"),
            ({"dialogue": ["Hi", None]}, "dialogue is not a list of texts"),
            ({"dialogue": [{"text": "Hi"}, {"text": "Ho"}]}, "dialogue is not a list of texts"),
            ({"narrative": None}, "narrative None is not text"),
            ({"narrative": ["a"]}, "narrative ['a'] is not text"),
        ],
    )
    def test_problems(self, change: dict[str, Any], problem: str) -> None:
        assert soda.problem(ROW | change) == problem
