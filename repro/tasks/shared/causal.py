"""What decoder-only language-modelling tasks share: batches, likelihoods, words."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import compress
from typing import TYPE_CHECKING

from repro.tasks.base import Batch, Feature, Row, Task
from repro.tasks.shared.text import pad, padding_mask

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel
    from transformers.utils import ModelOutput

_IGNORED = -100


class CausalBatches(Task):
    """Next-token prediction. Features have `scored`, 1 for every token that counts (never the first)."""

    def collate(self, features: list[Feature]) -> Batch:
        """Build `input_ids`, `attention_mask` and `labels`, all (B, S); the model shifts the labels."""
        ids = [feature["input_ids"] for feature in features]
        labels = [
            [token if scored else _IGNORED for token, scored in zip(row, feature["scored"], strict=True)]
            for row, feature in zip(ids, features, strict=True)
        ]
        return {
            "input_ids": pad(ids, self.tokenizer.pad_token_id),
            "attention_mask": padding_mask(ids),
            "labels": pad(labels, _IGNORED),
        }

    def loss_terms(self, batch: Batch) -> int:
        """Count scored tokens, over which cross-entropy is averaged."""
        return int((batch["labels"][:, 1:] != _IGNORED).sum())

    def masks(self, batch: Batch) -> dict[str, Tensor]:
        """Mask the decoder, the only stack."""
        return {"decoder": batch["attention_mask"]}

    def inputs(self, feature: Feature) -> dict[str, list[int]]:
        """Return the whole text."""
        return {"decoder": feature["input_ids"]}


class CausalTask(CausalBatches):
    """Language modelling by perplexity. Features also have `words`: how many end in a scored token."""

    def predict(
        self, model: PreTrainedModel, batch: Batch, outputs: ModelOutput, features: list[Feature]
    ) -> list[float]:
        """Sum the negative log likelihood of each feature's scored tokens, in nats."""
        return summed_losses(outputs, batch)

    def trivial(self, train: list[Feature], features: list[Feature], rows: list[Row]) -> list[float]:
        """Give each scored token its share of those of the training split, with one added to every count."""
        counts = Counter(token for feature in train for token in _scored(feature))
        total = math.log(counts.total() + len(self.tokenizer))
        return [
            math.fsum(total - math.log(counts[token] + 1) for token in _scored(feature))
            for feature in features
        ]

    def answers(
        self, predictions: list[float], features: list[Feature], rows: list[Row]
    ) -> tuple[list[float], list[dict[str, int]]]:
        """Return the likelihoods, and the numbers of tokens and words that they are over."""
        counts = [{"tokens": sum(feature["scored"]), "words": feature["words"]} for feature in features]
        return predictions, counts


def summed_losses(outputs: ModelOutput, batch: Batch) -> list[float]:
    """Sum the negative log likelihood of the labels of each row of a batch, in nats."""
    import torch

    labels = batch["labels"][:, 1:]
    logits = outputs.logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none"
    )
    sums: list[float] = losses.double().sum(1).tolist()
    return sums


def _scored(feature: Feature) -> list[int]:
    """Return the tokens whose prediction counts."""
    return list(compress(feature["input_ids"], feature["scored"]))


def words_ending(text: str, spans: list[tuple[int, int]]) -> list[int]:
    """Count the words that end in each token: runs of non-space characters, and line ends, as in wikitext.

    Args:
        spans: characters of each token in the text, ascending; tokens of one character may share it.
    """
    ends = [match.end() for match in re.finditer(r"\S+|\n", text)]
    counts, done = [], 0
    for _, stop in spans:
        before = done
        while done < len(ends) and ends[done] <= stop:
            done += 1
        counts.append(done - before)
    return counts
