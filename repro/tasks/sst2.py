"""Sentiment of a sentence, positive or negative: BERT on SST-2 (paper table 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from repro.checks import shown
from repro.config import settings
from repro.tasks import base
from repro.tasks.base import Batch, Feature, Row
from repro.tasks.shared.text import pad, padding_mask, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

TITLE = "Sentiment analysis"
METRIC = "accuracy"
HUB = ("stanfordnlp/sst2", None)
FOLDERS = ("sst2",)
CORPUS = "sentiment"
COLUMNS = ("sentence", "label")
CONTIGUOUS = False
BACKBONE = "bert"
HEAD = "sequence-classification"
MODEL_OPTIONS = {"num_labels": 2}


@settings
class Config:
    """No options."""


def problem(row: Row) -> str | None:
    """Require a text as sentence and 0 (negative) or 1 (positive) as label."""
    if not isinstance(row["sentence"], str):
        return f"sentence {shown(row['sentence'])} is not text"
    if row["label"] not in (0, 1) or isinstance(row["label"], bool):
        hidden = "; the hub hides the labels of 'test': give a folder that has them with --data"
        return f"label {shown(row['label'])} is not 0 or 1{hidden if row['label'] == -1 else ''}"
    return None


def texts(row: Row) -> list[str]:
    """Return the sentence, without the trailing space that GLUE left in the data."""
    return [row["sentence"].strip()]


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group a sentence with its phrases, which most rows of SST-2 are: what stands in it word by word.

    A phrase of several sentences goes with the longest; phrases whose sentence is no row are not found.
    """
    texts = [" ".join(row["sentence"].split()) for row in rows]
    sentences: dict[str, str] = {}
    holding: dict[str, list[str]] = {}
    """Word, or pair of words -> the sentences that it stands in."""
    for text in sorted(set(texts), key=lambda text: (-len(text), text)):
        words = text.split()
        pairs = [f"{first} {second}" for first, second in pairwise(words)]
        rarest = min((holding.get(part, []) for part in pairs or words), key=len, default=[])
        found = next((sentence for sentence in rarest if f" {text} " in f" {sentence} "), None)
        sentences[text] = found or text
        if found is None:
            for part in {*words, *pairs}:
                holding.setdefault(part, []).append(text)
    return (sentences[text] for text in texts)


class Task(base.Task):
    """Classify a sentence; one feature each."""

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode the sentence; keep the label."""
        sentences = [row["sentence"].strip() for row in rows]
        encoded = token_ids(self.tokenizer, sentences, self.max_length)
        return [
            {"input_ids": ids, "label": int(row["label"]), "cut": cut}
            for (ids, cut), row in zip(encoded, rows, strict=True)
        ]

    def collate(self, features: list[Feature]) -> Batch:
        """Build `input_ids` and `attention_mask` (B, S), `labels` (B,)."""
        import torch

        ids = [feature["input_ids"] for feature in features]
        return {
            "input_ids": pad(ids, self.tokenizer.pad_token_id),
            "attention_mask": padding_mask(ids),
            "labels": torch.tensor([feature["label"] for feature in features]),
        }

    def loss_terms(self, batch: Batch) -> int:
        """Count sentences, over which cross-entropy is averaged."""
        return batch["labels"].numel()

    def predict(
        self, model: PreTrainedModel, batch: Batch, outputs: ModelOutput, features: list[Feature]
    ) -> list[int]:
        """Choose the more probable label."""
        labels: list[int] = outputs.logits.argmax(-1).tolist()
        return labels

    def trivial(self, train: list[Feature], features: list[Feature], rows: list[Row]) -> list[int]:
        """Choose the label that most training sentences have."""
        positive = 2 * sum(feature["label"] for feature in train) > len(train)
        return [int(positive)] * len(features)

    def answers(
        self, predictions: list[int], features: list[Feature], rows: list[Row]
    ) -> tuple[list[int], list[int]]:
        """Return predicted and gold labels."""
        return predictions, [int(row["label"]) for row in rows]
