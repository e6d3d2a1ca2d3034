"""Dialogue response: DialoGPT on SODA (paper table 2), by perplexity of the responses."""

from collections.abc import Iterable, Iterator

from repro.checks import shown
from repro.config import settings
from repro.tasks.base import Feature, Gap, Row
from repro.tasks.shared.causal import CausalTask, words_ending

TITLE = "Dialogue response"
METRIC = "perplexity"
HUB = ("allenai/soda", None)
FOLDERS = ("soda", "commonsense_dialogues")
CORPUS = "dialogues"
COLUMNS = ("narrative", "dialogue")
CONTIGUOUS = False
BACKBONE = "gpt2"
HEAD = "causal-language-model"
MODEL_OPTIONS: dict[str, object] = {}


@settings
class Config:
    """No options."""


def problem(row: Row) -> str | None:
    """Require a narrative and a list of texts; few rows may have less than two: the first is no response."""
    if not isinstance(row["narrative"], str):
        return f"narrative {shown(row['narrative'])} is not text"
    turns = row["dialogue"]
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        return "dialogue is not a list of texts"
    if len(turns) > 1:
        return None
    return Gap(f"dialogue has {len(turns)} turns; a response needs a turn before it")


def texts(row: Row) -> list[str]:
    """Return narrative and turns."""
    return [row["narrative"], *row["dialogue"]]


def groups(rows: Iterable[Row], options: Config) -> Iterator[str]:
    """Group the dialogues of one narrative."""
    return (row["narrative"] for row in rows)


class Task(CausalTask):
    """Respond in a dialogue; one feature each: narrative and first turn are read, later turns are scored.

    Narrative and turns each end with the end-of-text token, as in DialoGPT's training; the one
    behind a response is scored with it.
    """

    def encode(self, rows: list[Row]) -> list[Feature]:
        """Encode dialogues; long ones lose their last turns, a long narrative loses its beginning."""
        return [self._encode(row) for row in rows]

    def _encode(self, row: Row) -> Feature:
        context, _ = self._turns([row["narrative"], row["dialogue"][0]])
        kept = context[-(self.max_length // 2) :]
        responses, words = self._turns(row["dialogue"][1:])
        room = self.max_length - len(kept)
        cut = len(kept) < len(context) or room < len(responses)
        responses, words = responses[:room], words[:room]
        return {
            "input_ids": kept + responses,
            "scored": [0] * len(kept) + [1] * len(responses),
            "words": sum(words),
            "cut": cut,
        }

    def _turns(self, texts: list[str]) -> tuple[list[int], list[int]]:
        """Encode the texts, each with the end token behind it, and count the words that end in each id."""
        encoded = self.tokenizer(
            texts, return_offsets_mapping=True, return_attention_mask=False, split_special_tokens=True
        )
        ids: list[int] = []
        words: list[int] = []
        for text, text_ids, spans in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids += [*text_ids, self.tokenizer.eos_token_id]
            words += [*words_ending(text, spans), 0]
        return ids, words

    def parts(self, feature: Feature) -> dict[str, list[str]]:
        """Name context (narrative and first turn, which are only read) and response (every later turn)."""
        return {"decoder": ["response" if scored else "context" for scored in feature["scored"]]}
