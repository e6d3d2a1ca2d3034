"""ARC by hand: what is read and scored, what is cut, three to five choices, likelihoods by another way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.data.rows import load_rows
from repro.metrics.acc_norm import Metric
from repro.moe.backbones import gpt2
from repro.tasks import arc
from repro.tasks.base import Row

ROW: Row = {
    "id": "Mercury_7",
    "question": "Which thing floats?",
    "choices": {"text": ["an iron nail", "cork", "a stone", "gold"], "label": ["A", "B", "C", "D"]},
    "answerKey": "B",
}
FIVE: Row = {
    "question": "Which is a naïve café?",
    "choices": {"text": ["one", "two", "three", "four", "five"], "label": ["1", "2", "3", "4", "5"]},
    "answerKey": "5",
}
THREE: Row = ROW | {"choices": {"text": ["ice", "lead", "tin"], "label": ["A", "B", "C"]}, "answerKey": "A"}
ROWS = [ROW, FIVE, THREE]
PROMPT = "Question: Which thing floats?\nAnswer:"
LENGTHS: dict[str, Callable[[str], int]] = {
    "acc": lambda text: 1,
    "acc_norm": len,
    "acc_bytes": lambda text: len(text.encode()),
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return gpt2.train_tokenizer([text for row in ROWS for text in arc.texts(row)] * 2, 330)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = gpt2.CONFIG(
        n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3, **gpt2.vocabulary(tokenizer)
    )
    return gpt2.HEADS["causal-language-model"](config).eval()


def task(tokenizer: Any, max_length: int = 120) -> arc.Task:
    return arc.Task(arc.Config(), tokenizer, max_length)


class TestEncoding:
    def test_only_the_right_continuation_is_trained_on(self, tokenizer: Any) -> None:
        (feature,) = task(tokenizer).encode([ROW])
        ids, scored = feature["input_ids"], feature["scored"]
        size = len(ids) - sum(scored)
        assert scored == [0] * size + [1] * sum(scored)
        assert tokenizer.decode(ids[:size]) == PROMPT
        assert tokenizer.decode(ids[size:]) == " cork"
        assert (feature["right"], feature["cut"]) == (1, False)

    def test_every_choice_follows_the_same_prompt(self, tokenizer: Any) -> None:
        for row, feature in zip(ROWS, task(tokenizer).encode(ROWS), strict=True):
            assert len(feature["choices"]) == len(row["choices"]["text"])
            for text, choice in zip(row["choices"]["text"], feature["choices"], strict=True):
                ids, size = choice["input_ids"], len(choice["scored"]) - sum(choice["scored"])
                assert tokenizer.decode(ids[:size]) == f"Question: {row['question']}\nAnswer:"
                assert tokenizer.decode(ids[size:]) == f" {text}"
            right = feature["choices"][feature["right"]]
            assert right == {key: feature[key] for key in ("input_ids", "scored")}

    def test_numbers_are_labels_too(self, tokenizer: Any) -> None:
        rights = [feature["right"] for feature in task(tokenizer).encode(ROWS)]
        assert rights == [1, 4, 0]

    def test_what_is_too_long_loses_its_beginning(self, tokenizer: Any) -> None:
        whole = task(tokenizer).encode([ROW])[0]
        size = len(whole["input_ids"])
        for length in range(4, size):
            feature = task(tokenizer, length).encode([ROW])[0]
            assert feature["input_ids"] == whole["input_ids"][-length:]
            assert feature["scored"] == [0, *whole["scored"][-length:][1:]]
            assert len(feature["asked"]) == length
            assert feature["cut"] is True
            for short, full in zip(feature["choices"], whole["choices"], strict=True):
                assert short["input_ids"] == full["input_ids"][-length:]
                assert sum(short["scored"]) == min(sum(full["scored"]), len(short["input_ids"]) - 1)

    def test_one_that_is_too_long_is_enough_to_be_cut(self, tokenizer: Any) -> None:
        longest = max(len(one["input_ids"]) for one in task(tokenizer).encode([ROW])[0]["choices"])
        feature = task(tokenizer, longest - 1).encode([ROW])[0]
        assert len(feature["input_ids"]) < longest
        assert feature["cut"] is True
        assert task(tokenizer, longest).encode([ROW])[0]["cut"] is False

    def test_labels(self, tokenizer: Any) -> None:
        made = task(tokenizer)
        features = made.encode(ROWS)
        batch = made.collate(features)
        assert made.loss_terms(batch) == sum(sum(feature["scored"]) for feature in features)
        for row, feature in enumerate(features):
            kept = batch["labels"][row] != -100
            right = [token for token, one in zip(feature["input_ids"], feature["scored"], strict=True) if one]
            assert batch["labels"][row][kept].tolist() == right

    def test_parts(self, tokenizer: Any) -> None:
        (feature,) = task(tokenizer).encode([ROW])
        parts = task(tokenizer).parts(feature)["decoder"]
        by_part = {
            name: tokenizer.decode(
                [token for token, part in zip(feature["input_ids"], parts, strict=True) if part == name]
            )
            for name in ("template", "question", "answer")
        }
        assert by_part == {
            "template": "Question:\nAnswer:",
            "question": " Which thing floats?",
            "answer": " cork",
        }


class TestLikelihoods:
    def one_by_one(self, model: Any, tokenizer: Any, row: Row) -> list[float]:
        """Each choice alone: the prompt and the choice encoded apart, log softmax, token after token."""
        found = []
        for text in row["choices"]["text"]:
            prompt = tokenizer(f"Question: {row['question']}\nAnswer:")["input_ids"]
            choice = tokenizer(f" {text}")["input_ids"]
            with torch.no_grad():
                log_probs = model(torch.tensor([prompt + choice])).logits[0].double().log_softmax(-1)
            found.append(
                sum(float(log_probs[len(prompt) - 1 + place, token]) for place, token in enumerate(choice))
            )
        return found

    def predicted(self, model: Any, tokenizer: Any, rows: list[Row]) -> tuple[Any, Any]:
        made = task(tokenizer)
        features = made.encode(rows)
        batch = made.collate(features)
        with torch.no_grad():
            predictions = made.predict(model, batch, model(**batch), features)
        return made.answers(predictions, features, rows)

    def test_against_an_independent_computation(self, model: Any, tokenizer: Any) -> None:
        answers, references = self.predicted(model, tokenizer, ROWS)
        expected = [self.one_by_one(model, tokenizer, row) for row in ROWS]
        assert [len(values) for values in answers] == [4, 5, 3]
        for values, others in zip(answers, expected, strict=True):
            assert values == pytest.approx(others, rel=1e-4)
        # And the metrics from them, in a way of their own.
        hits = dict.fromkeys(LENGTHS, 0)
        for row, values in zip(ROWS, expected, strict=True):
            texts, labels = row["choices"]["text"], row["choices"]["label"]
            for name, length_of in LENGTHS.items():
                rates = [value / length_of(text) for value, text in zip(values, texts, strict=True)]
                hits[name] += labels[rates.index(max(rates))] == row["answerKey"]
        assert Metric().compute(predictions=answers, references=references) == {
            name: pytest.approx(count / 3) for name, count in hits.items()
        }

    def test_the_loss_is_that_of_the_right_choice(self, model: Any, tokenizer: Any) -> None:
        made = task(tokenizer)
        for row in ROWS:
            (feature,) = made.encode([row])
            batch = made.collate([feature])
            with torch.no_grad():
                loss = float(made.loss(model(**batch), batch)) * made.loss_terms(batch)
            alone = self.one_by_one(model, tokenizer, row)
            assert -loss == pytest.approx(alone[feature["right"]], rel=1e-4)

    def test_references(self, model: Any, tokenizer: Any) -> None:
        row = FIVE | {"choices": {"text": ["é", "日本"], "label": ["A", "B"]}, "answerKey": "B"}
        _, references = self.predicted(model, tokenizer, [row])
        assert references == [{"right": 1, "characters": [1, 2], "bytes": [2, 6]}]


class TestRows:
    def test_the_columns_of_the_hub(self, tmp_path: Path) -> None:
        (tmp_path / "arc").mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        (tmp_path / "arc" / "train.jsonl").write_text(lines, encoding="utf-8")
        assert load_rows(arc, "folder:0", tmp_path, "train", None).rows == ROWS

    @pytest.mark.parametrize("row", ROWS)
    def test_letters_and_numbers(self, row: Row) -> None:
        assert arc.problem(row) is None

    def test_a_row_with_an_empty_text_is_left_out(
        self, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        (tmp_path / "arc").mkdir()
        rows = [ROW | {"question": f"Which of {number}?"} for number in range(40)]
        rows[3] |= {"choices": ROW["choices"] | {"text": ["a", "", "c", "d"]}}
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "arc" / "train.jsonl").write_text(lines, encoding="utf-8")
        loaded = load_rows(arc, "folder:0", tmp_path, "train", None)
        assert (len(loaded.rows), loaded.skipped) == (39, 1)
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.endswith("1 of 40 rows are left out, the first for row 4: choice 'B' is empty")
