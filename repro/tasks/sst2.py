"""Sentiment of a sentence, positive or negative: BERT on SST-2 (paper table 2)."""

from typing import Any

import torch
from torch import Tensor

from repro.tasks._padding import pad

TITLE = "Sentiment analysis"
METRIC = "accuracy"
HUB = ("stanfordnlp/sst2", None)
FOLDER = "sst2"
CORPUS = "sentiment"
COLUMNS = ("sentence", "label")
BACKBONE = "bert"
HEAD = "sequence-classification"
MODEL_OPTIONS = {"num_labels": 2}


def problem(row: dict[str, Any]) -> str | None:
    """A sentence is text and a label is 0 (negative) or 1 (positive)."""
    if not isinstance(row["sentence"], str):
        return f"sentence {row['sentence']!r} is not text"
    if row["label"] not in (0, 1) or isinstance(row["label"], bool):
        return f"label {row['label']!r} is not 0 or 1"
    return None


def texts(row: dict[str, Any]) -> list[str]:
    """The sentence, without the trailing space that GLUE left in the data."""
    return [row["sentence"].strip()]


def encode(rows: list[dict[str, Any]], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """Token ids and label; longer sentences are cut at `max_length` tokens."""
    encoded = tokenizer(
        [row["sentence"].strip() for row in rows],
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return [
        {"input_ids": ids, "label": int(row["label"])}
        for ids, row in zip(encoded["input_ids"], rows, strict=True)
    ]


def collate(features: list[dict[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (B, S), `labels` (B,)."""
    return {
        "input_ids": pad([feature["input_ids"] for feature in features], pad_id),
        "attention_mask": pad([[1] * len(feature["input_ids"]) for feature in features], 0),
        "labels": torch.tensor([feature["label"] for feature in features]),
    }


def loss_terms(batch: dict[str, Tensor]) -> int:
    """Cross-entropy is averaged over sentences."""
    return batch["labels"].numel()


def predict(outputs: Any, batch: dict[str, Tensor]) -> list[int]:
    """The more probable label."""
    labels: list[int] = outputs.logits.argmax(-1).tolist()
    return labels


def references(rows: list[dict[str, Any]]) -> list[int]:
    """The labels."""
    return [int(row["label"]) for row in rows]
