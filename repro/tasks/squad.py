"""Question answering by extraction: BERT on SQuAD v1.1 (paper table 2), by F1."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from repro.config import bounded
from repro.errors import UserError
from repro.tasks import _base
from repro.tasks._base import Batch, Feature, Row
from repro.tasks._text import ones_like, pad

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


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long contexts are split, and how long an answer may be."""

    stride: int = bounded(128, low=0)
    """Tokens that neighbouring windows over a long context share."""
    max_question_length: int = bounded(64, low=1)
    max_answer_length: int = bounded(30, low=1)
    """Tokens."""


def problem(row: Row) -> str | None:
    """Context and question are text; every answer stands in the context where it says."""
    for column in ("context", "question"):
        if not isinstance(row[column], str) or not row[column].strip():
            return f"{column} {str(row[column])[:40]!r} is not text"
    answers = row["answers"]
    found = answers if isinstance(answers, dict) else {}
    lists: list[Any] = [found.get(key) for key in ("text", "answer_start")]
    if not all(isinstance(one, list) for one in lists) or len(lists[0]) != len(lists[1]):
        return "answers is not an object with equally long lists 'text' and 'answer_start'"
    pairs = list(zip(*lists, strict=True))
    if not pairs:
        return "answers has no answer"
    for text, start in pairs:
        if not isinstance(text, str) or not isinstance(start, int):
            return "answers has a text or answer_start of the wrong type"
        if not text.strip() or start < 0 or row["context"][start : start + len(text)] != text:
            return f"answer {text!r} is not at position {start} of the context"
    return None


def texts(row: Row) -> list[str]:
    """Context and question."""
    return [row["context"], row["question"]]


class Task(_base.Task):
    """One feature per window over a context; a window without the answer points at `[CLS]`.

    Raises:
        UserError: a window would have no room for its stride.
    """

    def __init__(self, config: Config, tokenizer: Any, max_length: int) -> None:
        super().__init__(config, tokenizer, max_length)
        room = max_length - config.max_question_length - 3  # [CLS] question [SEP] context [SEP]
        if room <= config.stride:
            raise UserError(
                f"data.max_length: {max_length} leaves {room} tokens of context beside a question of"
                f" task.max_question_length = {config.max_question_length};"
                f" that must be more than task.stride = {config.stride}"
            )

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Ids, segments, where the context's tokens stand in the text, and the first gold answer."""
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
            start, end = _place(spans, rows[number]["answers"])
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
        spans = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        limit = self.config.max_question_length
        return (question, False) if len(spans) <= limit else (question[: spans[limit - 1][1]], True)

    def collate(self, features: list[Feature]) -> Batch:
        """`input_ids`, `token_type_ids`, `attention_mask` (B, S), start and end positions (B,)."""
        ids = [feature["input_ids"] for feature in features]
        return {
            "input_ids": pad(ids, self.tokenizer.pad_token_id),
            "token_type_ids": pad([feature["token_type_ids"] for feature in features], 0),
            "attention_mask": ones_like(ids),
            "start_positions": torch.tensor([feature["start"] for feature in features]),
            "end_positions": torch.tensor([feature["end"] for feature in features]),
        }

    def loss_terms(self, batch: Batch) -> int:
        """The mean of two cross-entropies is averaged over windows."""
        return batch["start_positions"].numel()

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The model's own loss would spread probability over padding too."""
        padding = batch["attention_mask"] == 0
        ends = (("start_logits", "start_positions"), ("end_logits", "end_positions"))
        losses = [
            cross_entropy(outputs[logits].float().masked_fill(padding, -torch.inf), batch[positions])
            for logits, positions in ends
        ]
        return (losses[0] + losses[1]) / 2

    def predict(
        self, model: Any, batch: Batch, outputs: Any, features: list[Feature]
    ) -> list[tuple[float, int, int]]:
        """Score and place in the text of each window's best span: start and end logit added."""
        found = []
        starts, ends = outputs.start_logits.float().cpu(), outputs.end_logits.float().cpu()
        for number, feature in enumerate(features):
            first, spans = feature["first"], feature["spans"]
            size = len(spans)
            scores = starts[number, first : first + size, None] + ends[number, None, first : first + size]
            length = torch.arange(size)[None] - torch.arange(size)[:, None] + 1
            scores = scores.masked_fill((length < 1) | (length > self.config.max_answer_length), -torch.inf)
            best = int(scores.argmax())
            start, end = divmod(best, size)
            found.append((float(scores[start, end]), spans[start][0], spans[end][1]))
        return found

    def parts(self, feature: Feature) -> dict[str, list[str]]:
        """Question and context, by segment."""
        return {"encoder": ["context" if segment else "question" for segment in feature["token_type_ids"]]}

    def answers(
        self, found: list[Any], features: list[Feature], rows: list[Row]
    ) -> tuple[list[Any], list[Any]]:
        """The text of the best span of all windows of a context, and all gold answers."""
        best: dict[int, tuple[float, int, int]] = {}
        for feature, (score, start, end) in zip(features, found, strict=True):
            if feature["row"] not in best or score > best[feature["row"]][0]:
                best[feature["row"]] = (score, start, end)
        texts = [row["context"][best[number][1] : best[number][2]] for number, row in enumerate(rows)]
        return texts, [list(row["answers"]["text"]) for row in rows]


def _place(spans: list[list[int]], answers: dict[str, Any]) -> tuple[int | None, int | None]:
    """First and last token of the first gold answer among the window's tokens, if it is whole in there.

    Spaces around it belong to no token, nor do characters that the tokenizer drops.
    """
    text = answers["text"][0]
    begin = answers["answer_start"][0] + len(text) - len(text.lstrip())
    stop = begin + len(text.strip())
    touched = [place for place, (left, right) in enumerate(spans) if right > begin and left < stop]
    if not touched or spans[0][0] > begin or spans[-1][1] < stop:
        return None, None
    return touched[0], touched[-1]
