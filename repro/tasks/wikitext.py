"""Text completion: GPT-2 on wikitext (paper table 2), by perplexity over all tokens."""

import re
from collections.abc import Iterable, Iterator

from repro.checks import shown
from repro.config import settings
from repro.tasks.base import Feature, Row
from repro.tasks.shared.causal import CausalTask, words_ending

TITLE = "Text completion"
METRIC = "perplexity"
HUB = ("Salesforce/wikitext", "wikitext-103-raw-v1")
FOLDERS = ("wikitext", "wikitext103", "wikitext2")
CORPUS = "stories"
COLUMNS = ("text",)
CONTIGUOUS = True
BACKBONE = "gpt2"
HEAD = "causal-language-model"
MODEL_OPTIONS: dict[str, object] = {}
_HEADING = re.compile(r"\s*= [^=].* =\s*")
"""The title of an article; those of its sections are between two or more signs."""


@settings
class Config:
    """No options."""


def problem(row: Row) -> str | None:
    """Require a line of text, which may be empty."""
    return None if isinstance(row["text"], str) else f"text {shown(row['text'])} is not text"


def texts(row: Row) -> list[str]:
    """Return the line, unless it is blank."""
    return [_line(row)] if row["text"].strip() else []


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group the lines of one article, from its heading on; without headings, each line is a group."""
    article = 0
    for number, row in enumerate(rows):
        article += _HEADING.fullmatch(row["text"]) is not None
        yield f"article {article}" if article else f"line {number}"


def _line(row: Row) -> str:
    """Return the text with a line end: the hub has none of blank lines, other sources of no line."""
    text: str = row["text"]
    return text if text.endswith("\n") else f"{text}\n"


class Task(CausalTask):
    """Predict one stream of tokens, the whole split, cut into blocks without padding.

    It is the text of wikitext's own files. Every line, also a blank one, has a line end, which is predicted
    and counts as a word: the `<eos>` of word models (Merity et al. 2016, https://arxiv.org/abs/1609.07843).
    Neighbouring blocks share one token, so that every token but the very first is predicted once.
    """

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode blocks of `max_length` tokens; the last may be shorter. Blank lines alone give none."""
        lines = [_line(row) for row in rows]
        if not any(map(str.strip, lines)):
            return []
        encoded = self.tokenizer(
            lines, return_offsets_mapping=True, return_attention_mask=False, split_special_tokens=True
        )
        ids: list[int] = []
        words: list[int] = []
        for line, line_ids, spans in zip(lines, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids += line_ids
            words += words_ending(line, spans)
        step = self.max_length - 1
        return [
            {
                "input_ids": ids[start : start + self.max_length],
                "scored": [0] + [1] * (len(ids[start : start + self.max_length]) - 1),
                "words": sum(words[start + 1 : start + self.max_length]),
                "cut": False,
            }
            for start in range(0, len(ids) - 1, step)
        ]
