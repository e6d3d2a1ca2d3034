"""Sentiment of a sentence, positive or negative: BERT on SST-2 (paper table 2)."""

from dataclasses import dataclass
from typing import Any

import torch

from repro.tasks import _base
from repro.tasks._base import Batch, Feature, Row
from repro.tasks._text import ones_like, pad, token_ids

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


@dataclass(frozen=True, kw_only=True)
class Config:
    """No options."""


def problem(row: Row) -> str | None:
    """A sentence is text and a label is 0 (negative) or 1 (positive)."""
    if not isinstance(row["sentence"], str):
        return f"sentence {row['sentence']!r} is not text"
    if row["label"] not in (0, 1) or isinstance(row["label"], bool):
        return f"label {row['label']!r} is not 0 or 1"
    return None


def texts(row: Row) -> list[str]:
    """The sentence, without the trailing space that GLUE left in the data."""
    return [row["sentence"].strip()]


class Task(_base.Task):
    """One feature per sentence."""

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Token ids and label."""
        sentences = [row["sentence"].strip() for row in rows]
        encoded = token_ids(self.tokenizer, sentences, self.max_length)
        return [
            {"input_ids": ids, "label": int(row["label"]), "cut": cut}
            for (ids, cut), row in zip(encoded, rows, strict=True)
        ]

    def collate(self, features: list[Feature]) -> Batch:
        """`input_ids` and `attention_mask` (B, S), `labels` (B,)."""
        ids = [feature["input_ids"] for feature in features]
        return {
            "input_ids": pad(ids, self.tokenizer.pad_token_id),
            "attention_mask": ones_like(ids),
            "labels": torch.tensor([feature["label"] for feature in features]),
        }

    def loss_terms(self, batch: Batch) -> int:
        """Cross-entropy is averaged over sentences."""
        return batch["labels"].numel()

    def predict(self, model: Any, batch: Batch, outputs: Any, features: list[Feature]) -> list[int]:
        """The more probable label."""
        labels: list[int] = outputs.logits.argmax(-1).tolist()
        return labels

    def answers(
        self, found: list[Any], features: list[Feature], rows: list[Row]
    ) -> tuple[list[Any], list[Any]]:
        """Predicted and right labels."""
        return found, [int(row["label"]) for row in rows]
