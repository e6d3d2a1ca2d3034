"""Translation between German and English: FSMT on WMT19 (paper table 2), by BLEU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from repro.config import bounded, settings
from repro.errors import UserError
from repro.tasks.base import Feature, Gap, Row
from repro.tasks.shared.seq2seq import Seq2SeqTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TITLE = "Translation"
METRIC = "bleu"
HUB = ("wmt/wmt19", "de-en")
FOLDERS = ("wmt19", "wmt19_de_en")
CORPUS = "translation"
COLUMNS = ("translation",)
CONTIGUOUS = False
BACKBONE = "fsmt"
HEAD = "sequence-to-sequence"
MODEL_OPTIONS: dict[str, object] = {}


@settings
class Config:
    """Direction and decoding."""

    direction: Literal["de-en", "en-de"] = "de-en"
    """Table 2 of the paper says De-En, table 3 En-De."""
    max_target_length: int = bounded(128, low=4)
    beams: int = bounded(5, low=1)
    length_penalty: float = 1.0
    """Exponent of the length by which beam search divides a hypothesis' log likelihood."""

    def generation(self) -> dict[str, object]:
        """Return the options of decoding by the names of `transformers.GenerationConfig`."""
        return {"num_beams": self.beams, "length_penalty": self.length_penalty}


def problem(row: Row) -> str | None:
    """Require a pair of texts under `de` and `en`; one of them may be empty here and there."""
    pair = row["translation"]
    if not isinstance(pair, dict) or not all(isinstance(pair.get(side), str) for side in ("de", "en")):
        return "translation is not an object with the texts 'de' and 'en'"
    empty = [side for side in ("de", "en") if not pair[side].strip()]
    return Gap(f"translation {empty[0]!r} is empty") if empty else None


def texts(row: Row) -> list[str]:
    """Return both languages, which share one vocabulary."""
    return [row["translation"]["de"], row["translation"]["en"]]


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group the translations of one source sentence."""
    source = options.direction.split("-")[0]
    return (row["translation"][source] for row in rows)


class Task(Seq2SeqTask):
    """Translate a sentence; one feature per pair.

    Raises:
        UserError: the tokenizer is FSMT's own, for the other direction.
    """

    config: Config

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        super().__init__(config, tokenizer, max_length)
        own = "-".join(getattr(tokenizer, side, None) or "" for side in ("src_lang", "tgt_lang"))
        if own not in ("-", config.direction):
            raise UserError(f"task.direction: {config.direction} does not fit the checkpoint, which is {own}")

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode source and target as the direction says."""
        source, target = self.config.direction.split("-")
        pairs = [row["translation"] for row in rows]
        return self.encode_pairs([pair[source] for pair in pairs], [pair[target] for pair in pairs])

    def trivial(self, train: list[Feature], features: list[Feature], rows: list[Row]) -> list[str]:
        """Copy the source."""
        source = self.config.direction.split("-")[0]
        return [row["translation"][source] for row in rows]

    def answers(
        self, predictions: list[str], features: list[Feature], rows: list[Row]
    ) -> tuple[list[str], list[str]]:
        """Return translations, and the one reference of each."""
        target = self.config.direction.split("-")[1]
        return predictions, [row["translation"][target] for row in rows]
