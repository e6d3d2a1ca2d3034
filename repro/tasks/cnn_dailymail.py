"""Summarisation: BART on CNN/DailyMail (paper table 2), by ROUGE-1."""

import re
from collections.abc import Iterable, Iterator

from repro.config import bounded, settings
from repro.tasks.base import Feature, Gap, Row
from repro.tasks.shared.seq2seq import Seq2SeqTask

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


@settings
class Config:
    """Length of the summary, and decoding."""

    max_target_length: int = bounded(128, low=4)
    beams: int = bounded(4, low=1)
    length_penalty: float = 1.0
    """Exponent of the length by which beam search divides a hypothesis' log likelihood."""
    min_target_length: int = bounded(0, low=0)
    """Least number of tokens of a generated summary."""
    no_repeat_ngram: int = bounded(0, low=0)
    """Length of the n-grams that a generated summary may not repeat; 0 allows all."""

    def generation(self) -> dict[str, object]:
        """Return the options of decoding by the names of `transformers.GenerationConfig`."""
        return {
            "num_beams": self.beams,
            "length_penalty": self.length_penalty,
            "min_new_tokens": self.min_target_length or None,
            "no_repeat_ngram_size": self.no_repeat_ngram,
        }


def problem(row: Row) -> str | None:
    """Require two texts; one of them may be empty here and there."""
    for column in COLUMNS:
        if not isinstance(row[column], str):
            return f"{column} {str(row[column])[:40]!r} is not text"
    empty = [column for column in COLUMNS if not row[column].strip()]
    return Gap(f"{empty[0]} {row[empty[0]][:40]!r} is not text") if empty else None


def texts(row: Row) -> list[str]:
    """Return article and highlights."""
    return [row["article"], row["highlights"]]


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group the rows of one article."""
    return (row["article"] for row in rows)


class Task(Seq2SeqTask):
    """Summarise an article; one feature each. The highlights keep their line breaks."""

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode article and highlights; long articles are truncated at their end."""
        return self.encode_pairs([row["article"] for row in rows], [row["highlights"] for row in rows])

    def trivial(self, train: list[Feature], features: list[Feature], rows: list[Row]) -> list[str]:
        """Take the first three sentences of the article (lead-3: See et al. 2017, section 5)."""
        return [" ".join(re.split(r"(?<=[.!?])\s+", row["article"].strip())[:3]) for row in rows]

    def answers(
        self, predictions: list[str], features: list[Feature], rows: list[Row]
    ) -> tuple[list[str], list[str]]:
        """Return summaries and highlights."""
        return predictions, [row["highlights"] for row in rows]
