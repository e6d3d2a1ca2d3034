"""Byte-level BPE tokenizers, as GPT-2 and BART have them."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers


def train_byte_bpe(
    texts: Iterable[str], vocab_size: int, special: list[str], *, template: str | None
) -> tokenizers.Tokenizer:
    """Train a byte-level BPE tokenizer: any text can be encoded, and decoded without loss.

    Args:
        special: special tokens, in the order of their ids.
        template: what an encoded text looks like, e.g. `<s> $A </s>`; None adds nothing.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if template:
        used = [(token, tokenizer.token_to_id(token)) for token in special if token in template.split()]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer
