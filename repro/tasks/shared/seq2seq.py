"""What encoder-decoder tasks share: pairs of texts, batches, beam search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from repro.errors import UserError, one_line
from repro.tasks.base import Batch, Feature, Task
from repro.tasks.shared.text import pad, padding_mask, token_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel
    from transformers.utils import ModelOutput

_IGNORED = -100


class Seq2SeqConfig(Protocol):
    """Options that every encoder-decoder task has."""

    @property
    def max_target_length(self) -> int:
        """Tokens of the longest target, read or generated."""

    def generation(self) -> dict[str, object]:
        """Return the options of decoding by the names of `transformers.GenerationConfig`."""


class Seq2SeqTask(Task):
    """Predict a target text from a source text."""

    config: Seq2SeqConfig

    def encode_pairs(self, sources: list[str], targets: list[str]) -> list[Feature]:
        """Encode sources as `input_ids` and targets as `labels`."""
        import transformers

        encoded = token_ids(self.tokenizer, sources, self.max_length)
        if isinstance(self.tokenizer, transformers.PreTrainedTokenizerFast):
            labels = token_ids(self.tokenizer, targets, self.config.max_target_length)
        else:  # FSMT's own has a vocabulary per language
            labels = self._target_ids(targets)
        return [
            {"input_ids": ids, "labels": target, "cut": cut or target_cut}
            for (ids, cut), (target, target_cut) in zip(encoded, labels, strict=True)
        ]

    def _target_ids(self, targets: list[str]) -> list[tuple[list[int], bool]]:
        """Encode into the target's vocabulary, with which FSMT's tokenizer decodes but never encodes."""
        tokenizer = self.tokenizer
        vocabulary = {token: number for number, token in tokenizer.decoder.items()}
        source, tokenizer.src_lang = tokenizer.src_lang, tokenizer.tgt_lang
        try:
            tokens = [tokenizer.tokenize(text, split_special_tokens=True) for text in targets]
        finally:
            tokenizer.src_lang = source
        unknown = vocabulary[tokenizer.unk_token]
        room = self.config.max_target_length - 1
        return [
            ([*(vocabulary.get(token, unknown) for token in row[:room]), self._end], len(row) > room)
            for row in tokens
        ]

    @property
    def _end(self) -> int:
        """Id that ends a text and starts decoding; FSMT's tokenizer calls it the separator."""
        end = self.tokenizer.eos_token_id
        number: int = self.tokenizer.sep_token_id if end is None else end
        return number

    def collate(self, features: list[Feature]) -> Batch:
        """Build source and its mask (B, S); target, its mask and its labels (B, S').

        The decoder reads the target shifted by one, from `</s>` on, as both families were trained.
        """
        sources = [feature["input_ids"] for feature in features]
        labels = [feature["labels"] for feature in features]
        shifted = [self._shifted(target) for target in labels]
        return {
            "input_ids": pad(sources, self.tokenizer.pad_token_id),
            "attention_mask": padding_mask(sources),
            "decoder_input_ids": pad(shifted, self.tokenizer.pad_token_id),
            "decoder_attention_mask": padding_mask(shifted),
            "labels": pad(labels, _IGNORED),
        }

    def _shifted(self, target: list[int]) -> list[int]:
        """Shift the target by one: what the decoder reads to predict it."""
        return [self._end, *target[:-1]]

    def inputs(self, feature: Feature) -> dict[str, list[int]]:
        """Return the source, and the target shifted by one."""
        return {"encoder": feature["input_ids"], "decoder": self._shifted(feature["labels"])}

    def parts(self, feature: Feature) -> dict[str, list[str]]:
        """Name source and target."""
        names = {"encoder": "source", "decoder": "target"}
        return {stack: [names[stack]] * len(ids) for stack, ids in self.inputs(feature).items()}

    def loss_terms(self, batch: Batch) -> int:
        """Count target tokens, over which cross-entropy is averaged."""
        return int((batch["labels"] != _IGNORED).sum())

    def length(self, feature: Feature) -> int:
        """Return the length of the longer of source and target."""
        return max(len(feature["input_ids"]), len(feature["labels"]))

    def masks(self, batch: Batch) -> dict[str, Tensor]:
        """Mask the source and the target; padding of neither is routed."""
        return {"encoder": batch["attention_mask"], "decoder": batch["decoder_attention_mask"]}

    def predict(
        self, model: PreTrainedModel, batch: Batch, outputs: ModelOutput, features: list[Feature]
    ) -> list[str]:
        """Generate each target by beam search."""
        settings = self._generation(features)
        # What a checkpoint says would fill what our settings leave open.
        model.generation_config = settings
        ids = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=settings
        )
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def configure(self, model: PreTrainedModel, features: list[Feature]) -> None:
        """Replace the model's settings of generation, which are saved with it.

        Those of its checkpoint would fill what ours leave open.

        Raises:
            UserError: settings contradict each other.
        """
        settings = self._generation(features)
        try:
            settings.validate(strict=True)
        except ValueError as error:
            reason = one_line(error).partition(" If you're using")[0]
            raise UserError(f"task: settings of generation contradict each other ({reason})") from error
        model.generation_config = settings

    def _generation(self, features: list[Feature]) -> GenerationConfig:
        import transformers

        first = features[0]["labels"][0]
        return transformers.GenerationConfig(
            **self.config.generation(),
            max_new_tokens=self.config.max_target_length,
            decoder_start_token_id=self._end,
            # BART's targets begin with `<s>`, FSMT's with their first word.
            forced_bos_token_id=first if first == self.tokenizer.bos_token_id else None,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self._end,
            pad_token_id=self.tokenizer.pad_token_id,
            do_sample=False,
        )
