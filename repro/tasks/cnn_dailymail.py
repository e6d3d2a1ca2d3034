"""Summarisation: BART on CNN/DailyMail (paper table 2), by ROUGE-1."""

from dataclasses import dataclass
from typing import Any

from repro.config import bounded
from repro.tasks._base import Feature, Row
from repro.tasks._seq2seq import Seq2SeqTask

TITLE = "Summarization"
METRIC = "rouge1"
HUB = ("abisee/cnn_dailymail", "3.0.0")
FOLDERS = ("cnn_dailymail",)
CORPUS = "news"
COLUMNS = ("article", "highlights")
CONTIGUOUS = False
BACKBONE = "bart"
HEAD = "sequence-to-sequence"
MODEL_OPTIONS: dict[str, object] = {}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Length of the summary, and decoding."""

    max_target_length: int = bounded(128, low=4)
    beams: int = bounded(4, low=1)
    length_penalty: float = 1.0
    """Exponent of the length by which beam search divides a hypothesis' log likelihood."""
    min_target_length: int = bounded(0, low=0)
    """Tokens that a generated summary has at least."""
    no_repeat_ngram: int = bounded(0, low=0)
    """A generated summary repeats no n-gram of this length; 0 allows all."""

    def generation(self) -> dict[str, Any]:
        """As `transformers.GenerationConfig` names it."""
        return {
            "num_beams": self.beams,
            "length_penalty": self.length_penalty,
            "min_new_tokens": self.min_target_length or None,
            "no_repeat_ngram_size": self.no_repeat_ngram,
        }


def problem(row: Row) -> str | None:
    """Two texts, neither empty."""
    for column in COLUMNS:
        if not isinstance(row[column], str) or not row[column].strip():
            return f"{column} {str(row[column])[:40]!r} is not text"
    return None


def texts(row: Row) -> list[str]:
    """Article and highlights."""
    return [row["article"], row["highlights"]]


class Task(Seq2SeqTask):
    """One feature per article; the highlights keep their line breaks."""

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Long articles are cut at their end."""
        return self.encode_pairs([row["article"] for row in rows], [row["highlights"] for row in rows])

    def answers(
        self, found: list[Any], features: list[Feature], rows: list[Row]
    ) -> tuple[list[Any], list[Any]]:
        """Summaries and highlights."""
        return found, [row["highlights"] for row in rows]
