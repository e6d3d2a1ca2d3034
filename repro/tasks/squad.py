"""Question answering by extraction: BERT on SQuAD v1.1 (paper table 2), by F1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from repro.checks import shown
from repro.config import bounded, settings
from repro.errors import UserError
from repro.tasks import base
from repro.tasks.base import Batch, Feature, Row
from repro.tasks.shared.text import pad, padding_mask

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

TITLE = "Question and Answer"
METRIC = "f1"
HUB = ("rajpurkar/squad", None)
FOLDERS = ("squad",)
CORPUS = "reading"
COLUMNS = ("context", "question", "answers")
CONTIGUOUS = False
BACKBONE = "bert"
HEAD = "question-answering"
MODEL_OPTIONS: dict[str, object] = {}

ScoredSpan: TypeAlias = tuple[float, int, int]
"""Score, and the characters of the context at which the span starts and ends."""


@settings
class Config:
    """Windows over long contexts, and limits of questions and answers."""

    stride: int = bounded(128, low=0)
    """Tokens that consecutive windows over a long context share."""
    max_question_length: int = bounded(64, low=1)
    max_answer_length: int = bounded(30, low=1)
    """Tokens."""


def problem(row: Row) -> str | None:
    """Require texts as context and question, and every answer at its position in the context."""
    for column in ("context", "question"):
        if not isinstance(row[column], str) or not row[column].strip():
            return f"{column} {str(row[column])[:40]!r} is not text"
    answers = row["answers"]
    columns = answers if isinstance(answers, dict) else {}
    lists: list[Any] = [columns.get(key) for key in ("text", "answer_start")]
    if not all(isinstance(one, list) for one in lists) or len(lists[0]) != len(lists[1]):
        return "answers is not an object with equally long lists 'text' and 'answer_start'"
    pairs = list(zip(*lists, strict=True))
    if not pairs:
        return "answers has no answer"
    for text, start in pairs:
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            return "answers has a text or answer_start of the wrong type"
        if not text.strip() or start < 0 or row["context"][start : start + len(text)] != text:
            return f"answer {shown(text)} is not at position {shown(start)} of the context"
    return None


def texts(row: Row) -> list[str]:
    """Return context and question."""
    return [row["context"], row["question"]]


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group the questions of one passage."""
    return (row["context"] for row in rows)


class Task(base.Task):
    """Extract an answer; one feature per window over a context. One without the answer points at `[CLS]`.

    Raises:
        UserError: a window would have no room for its stride.
    """

    config: Config

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        super().__init__(config, tokenizer, max_length)
        room = max_length - config.max_question_length - 3  # [CLS] question [SEP] context [SEP]
        if room <= config.stride:
            raise UserError(
                f"data.max_length: {max_length} leaves {room} tokens of context beside a question of"
                f" task.max_question_length = {config.max_question_length};"
                f" that must be more than task.stride = {config.stride}"
            )

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode ids, segments, characters of the context's tokens, and tokens of the first gold answer."""
        questions = [self._short_question(row["question"].strip()) for row in rows]
        encoded = self.tokenizer(
            [question for question, _ in questions],
            [row["context"] for row in rows],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.config.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
            return_attention_mask=False,
            split_special_tokens=True,
        )
        features = []
        for window, number in enumerate(encoded["overflow_to_sample_mapping"]):
            segments = encoded.sequence_ids(window)
            inside = [place for place, segment in enumerate(segments) if segment == 1]
            if not inside:
                raise UserError(
                    f"context {rows[number]['context'][:40]!r}: the tokenizer finds no token in it"
                )
            spans = [list(encoded["offset_mapping"][window][place]) for place in inside]
            answers = rows[number]["answers"]
            start, end = answer_tokens(spans, answers["text"][0], answers["answer_start"][0])
            features.append(
                {
                    "input_ids": encoded["input_ids"][window],
                    "token_type_ids": encoded["token_type_ids"][window],
                    "row": number,
                    "first": inside[0],
                    "spans": spans,
                    "start": 0 if start is None else inside[0] + start,
                    "end": 0 if end is None else inside[0] + end,
                    "cut": questions[number][1],
                }
            )
        return features

    def _short_question(self, question: str) -> tuple[str, bool]:
        spans = self.tokenizer(
            question, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
        )["offset_mapping"]
        limit = self.config.max_question_length
        return (question, False) if len(spans) <= limit else (question[: spans[limit - 1][1]], True)

    def collate(self, features: list[Feature]) -> Batch:
        """Build `input_ids`, `token_type_ids`, `attention_mask` (B, S), start and end positions (B,)."""
        import torch

        ids = [feature["input_ids"] for feature in features]
        return {
            "input_ids": pad(ids, self.tokenizer.pad_token_id),
            "token_type_ids": pad([feature["token_type_ids"] for feature in features], 0),
            "attention_mask": padding_mask(ids),
            "start_positions": torch.tensor([feature["start"] for feature in features]),
            "end_positions": torch.tensor([feature["end"] for feature in features]),
        }

    def loss_terms(self, batch: Batch) -> int:
        """Count windows, over which the mean of two cross-entropies is averaged."""
        return batch["start_positions"].numel()

    def loss(self, outputs: ModelOutput, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of start and end, without padding.

        The model's own loss would spread probability over padding too.
        """
        import torch
        from torch.nn.functional import cross_entropy

        padding = batch["attention_mask"] == 0
        ends = (("start_logits", "start_positions"), ("end_logits", "end_positions"))
        losses = [
            cross_entropy(outputs[logits].float().masked_fill(padding, -torch.inf), batch[positions])
            for logits, positions in ends
        ]
        return (losses[0] + losses[1]) / 2

    def predict(
        self, model: PreTrainedModel, batch: Batch, outputs: ModelOutput, features: list[Feature]
    ) -> list[ScoredSpan]:
        """Choose each window's best span; its score is the sum of start and end logit."""
        import torch

        best_spans = []
        starts, ends = outputs.start_logits.float().cpu(), outputs.end_logits.float().cpu()
        for number, feature in enumerate(features):
            first, spans = feature["first"], feature["spans"]
            size = len(spans)
            scores = starts[number, first : first + size, None] + ends[number, None, first : first + size]
            length = torch.arange(size)[None] - torch.arange(size)[:, None] + 1
            scores = scores.masked_fill((length < 1) | (length > self.config.max_answer_length), -torch.inf)
            best = int(scores.argmax())
            start, end = divmod(best, size)
            best_spans.append((float(scores[start, end]), spans[start][0], spans[end][1]))
        return best_spans

    def trivial(self, train: list[Feature], features: list[Feature], rows: list[Row]) -> list[ScoredSpan]:
        """Choose the first three tokens of the context, whatever is asked."""
        return [(0.0, spans[0][0], spans[:3][-1][1]) for spans in (feature["spans"] for feature in features)]

    def parts(self, feature: Feature) -> dict[str, list[str]]:
        """Name question and context, by segment."""
        return {"encoder": ["context" if segment else "question" for segment in feature["token_type_ids"]]}

    def answers(
        self, predictions: list[ScoredSpan], features: list[Feature], rows: list[Row]
    ) -> tuple[list[str], list[list[str]]]:
        """Return the text of the best span over all windows of a context, and all gold answers."""
        best: dict[int, ScoredSpan] = {}
        for feature, (score, start, end) in zip(features, predictions, strict=True):
            if feature["row"] not in best or score > best[feature["row"]][0]:
                best[feature["row"]] = (score, start, end)
        texts = [row["context"][best[number][1] : best[number][2]] for number, row in enumerate(rows)]
        return texts, [list(row["answers"]["text"]) for row in rows]


def answer_tokens(spans: list[list[int]], text: str, begin: int) -> tuple[int | None, int | None]:
    """Return the first and the last token of an answer in a window; None unless it is whole in there.

    Spaces around it belong to no token, nor do characters that the tokenizer drops.
    """
    begin += len(text) - len(text.lstrip())
    stop = begin + len(text.strip())
    touched = [place for place, (left, right) in enumerate(spans) if right > begin and left < stop]
    if not touched or spans[0][0] > begin or spans[-1][1] < stop:
        return None, None
    return touched[0], touched[-1]
