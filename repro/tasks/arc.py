"""Multiple choice by log likelihood: a causal language model on ARC-Challenge (no task of the paper).

It is the task on which AdaMoE has its headline (https://arxiv.org/abs/2406.13233). Prompt, continuations and
metrics are those of lm-evaluation-harness' `arc_challenge`, without examples in the prompt:

    Question: <question>
    Answer:

and, for each choice, its text behind one space; the other choices are not shown. Prompt and choice are
encoded as one text, without special tokens; the tokens behind as many as the prompt alone has are those
of the choice. What is too long loses tokens at its beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from repro.checks import shown
from repro.config import settings
from repro.tasks.base import TEMPLATE, Batch, Feature, Gap, Row
from repro.tasks.shared.causal import CausalBatches, summed_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

TITLE = "Multiple choice"
METRIC = "acc_norm"
HUB = ("allenai/ai2_arc", "ARC-Challenge")
FOLDERS = ("arc",)
CORPUS = "science"
COLUMNS = ("question", "choices", "answerKey")
CONTIGUOUS = False
BACKBONE = "gpt2"
HEAD = "causal-language-model"
MODEL_OPTIONS: dict[str, object] = {}
_BEFORE, _BEHIND = "Question: ", "\nAnswer:"


@settings
class Config:
    """No options."""


def problem(row: Row) -> str | None:
    """Require a question, two or more texts to choose from, each with a label, and that of the right one.

    A key that is no label is a fault of the data. A row with an empty text cannot be scored: it is left out.
    """
    if not isinstance(row["question"], str):
        return f"question {shown(row['question'])} is not text"
    wrong = _wrong_choices(row["choices"])
    if wrong:
        return wrong
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    if row["answerKey"] not in labels:
        return f"answerKey {shown(row['answerKey'])} is none of the labels {shown(labels)}"
    if not row["question"].strip():
        return Gap("question is empty")
    empty = [label for text, label in zip(texts, labels, strict=True) if not text.strip()]
    return Gap(f"choice {shown(empty[0])} is empty") if empty else None


def _wrong_choices(choices: object) -> str | None:
    columns = choices if isinstance(choices, dict) else {}
    lists: list[Any] = [columns.get(key) for key in ("text", "label")]
    if not all(isinstance(one, list) for one in lists) or len(lists[0]) != len(lists[1]):
        return "choices is not an object with equally long lists 'text' and 'label'"
    texts, labels = lists
    if not all(isinstance(one, str) for one in (*texts, *labels)):
        return "choices has a text or a label that is not text"
    if len(texts) < 2:
        return f"choices has {len(texts)} texts; there must be two to choose from"
    return f"choices has a label twice: {shown(labels)}" if len(set(labels)) < len(labels) else None


def texts(row: Row) -> list[str]:
    """Return the prompt, and the choices as they follow it."""
    return [prompt(row), *continuations(row)]


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group the rows of one question."""
    return (row["question"] for row in rows)


def prompt(row: Row) -> str:
    """Return what a model reads before a choice."""
    return f"{_BEFORE}{row['question']}{_BEHIND}"


def continuations(row: Row) -> list[str]:
    """Return each choice as it follows the prompt."""
    return [f" {text}" for text in row["choices"]["text"]]


class Task(CausalBatches):
    """Choose the most likely continuation; one feature a question. Only the right one is trained on."""

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode each question with each of its choices; `input_ids` and `scored` are of the right one."""
        return [self._encode(row) for row in rows]

    def _encode(self, row: Row) -> Feature:
        before = prompt(row)
        encoded = self.tokenizer(
            [before, *(before + choice for choice in continuations(row))],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=True,
        )
        prompt_ids, *sequences = encoded["input_ids"]
        choices: list[Feature] = []
        for ids in sequences:
            kept = ids[-self.max_length :]
            # The first token of a sequence has nothing before it, and cannot be scored.
            size = min(max(len(ids) - len(prompt_ids), 1), len(kept) - 1)
            choices.append({"input_ids": kept, "scored": [0] * (len(kept) - size) + [1] * size})
        right = row["choices"]["label"].index(row["answerKey"])
        first, last = len(_BEFORE), len(_BEFORE) + len(row["question"])
        inside = [start < last and stop > first for start, stop in encoded["offset_mapping"][right + 1]]
        return {
            **choices[right],
            "asked": [int(one) for one in inside[-self.max_length :]],
            "choices": choices,
            "right": right,
            "cut": any(len(ids) > self.max_length for ids in sequences),
        }

    def predict(
        self, model: PreTrainedModel, batch: Batch, outputs: ModelOutput, features: list[Feature]
    ) -> list[tuple[float, ...]]:
        """Sum the log likelihood of every choice, in nats; all choices of the batch are one further batch.

        The right one is computed once more, so that none is computed in other company than the rest. The
        further batch is in no count of FLOPs, as generation is not.
        """
        choices = [choice for feature in features for choice in feature["choices"]]
        further = self.collate(choices)
        further = {name: tensor.to(batch[name].device) for name, tensor in further.items()}
        losses = iter(summed_losses(model(**further), further))
        return [tuple(-next(losses) for _ in feature["choices"]) for feature in features]

    def trivial(
        self, train: list[Feature], features: list[Feature], rows: list[Row]
    ) -> list[tuple[float, ...]]:
        """Choose the place that is most often right in the training split, of those that there are."""
        counts = Counter(feature["right"] for feature in train)
        predictions = []
        for feature in features:
            places = range(len(feature["choices"]))
            best = max(places, key=lambda place: counts[place])
            predictions.append(tuple(0.0 if place == best else -1.0 for place in places))
        return predictions

    def answers(
        self, predictions: list[tuple[float, ...]], features: list[Feature], rows: list[Row]
    ) -> tuple[list[list[float]], list[dict[str, Any]]]:
        """Return the likelihoods, and for each question the right choice and the lengths of all."""
        references = [
            {
                "right": feature["right"],
                "characters": [len(text) for text in row["choices"]["text"]],
                "bytes": [len(text.encode()) for text in row["choices"]["text"]],
            }
            for feature, row in zip(features, rows, strict=True)
        ]
        return [[*values] for values in predictions], references

    def parts(self, feature: Feature) -> dict[str, list[str]]:
        """Name question and answer, and the words around them."""
        return {
            "decoder": [
                "answer" if scored else "question" if asked else TEMPLATE
                for scored, asked in zip(feature["scored"], feature["asked"], strict=True)
            ]
        }
