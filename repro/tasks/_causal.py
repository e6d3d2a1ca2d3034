"""What decoder-only language-modelling tasks share: batches, likelihoods, words."""

import re
from typing import Any

import torch
from torch import Tensor

from repro.tasks._base import Batch, Feature, Row, Task
from repro.tasks._text import ones_like, pad

_IGNORED = -100


class CausalTask(Task):
    """Next-token prediction.

    Features have `scored`, 1 for every token whose prediction counts (never the first), and
    `words`, how many words end in a scored token.
    """

    def collate(self, features: list[Feature]) -> Batch:
        """`input_ids`, `attention_mask` and `labels`, all (B, S); the model shifts the labels."""
        ids = [feature["input_ids"] for feature in features]
        labels = [
            [token if scored else _IGNORED for token, scored in zip(row, feature["scored"], strict=True)]
            for row, feature in zip(ids, features, strict=True)
        ]
        return {
            "input_ids": pad(ids, self.tokenizer.pad_token_id),
            "attention_mask": ones_like(ids),
            "labels": pad(labels, _IGNORED),
        }

    def loss_terms(self, batch: Batch) -> int:
        """Cross-entropy is averaged over scored tokens."""
        return int((batch["labels"][:, 1:] != _IGNORED).sum())

    def masks(self, batch: Batch) -> dict[str, Tensor]:
        """The one stack is a decoder."""
        return {"decoder": batch["attention_mask"]}

    def inputs(self, feature: Feature) -> dict[str, list[int]]:
        """The whole text."""
        return {"decoder": feature["input_ids"]}

    def predict(self, model: Any, batch: Batch, outputs: Any, features: list[Feature]) -> list[float]:
        """Negative log likelihood of each feature's scored tokens, in nats."""
        labels = batch["labels"][:, 1:]
        logits = outputs.logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=_IGNORED, reduction="none"
        )
        sums: list[float] = losses.double().sum(1).tolist()
        return sums

    def answers(
        self, found: list[Any], features: list[Feature], rows: list[Row]
    ) -> tuple[list[Any], list[Any]]:
        """Likelihoods, and the tokens and words they are over."""
        counts = [{"tokens": sum(feature["scored"]), "words": feature["words"]} for feature in features]
        return found, counts


def words_ending(text: str, spans: list[tuple[int, int]]) -> list[int]:
    """How many words end in each token: runs of non-space characters, and line ends, as in wikitext.

    Args:
        spans: where each token stands in the text, ascending; tokens of one character may share it.
    """
    ends = [match.end() for match in re.finditer(r"\S+|\n", text)]
    counts, done = [], 0
    for _, stop in spans:
        before = done
        while done < len(ends) and ends[done] <= stop:
            done += 1
        counts.append(done - before)
    return counts
