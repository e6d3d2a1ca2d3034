"""BART: post-norm encoder-decoder; its layers keep bare `fc1` and `fc2` (CNN/DailyMail)."""

from collections.abc import Iterable
from typing import Any

import transformers
from torch import nn

from repro.backbones._seq2seq import (
    bare_ffn_sites,
    seq2seq_rest_macs,
    special_tokens,
    train_seq2seq_tokenizer,
)
from repro.backbones._sites import Stack, attention_mask
from repro.volume import Volume

MODEL_TYPE = "bart"
STACKS = ("encoder", "decoder")
CONFIG = transformers.BartConfig
HEADS = {"sequence-to-sequence": transformers.BartForConditionalGeneration}
INIT_STD = "init_std"
TIME_MAJOR = False

ffn_sites = bare_ffn_sites


def stacks(model: Any) -> dict[str, Stack]:
    """Encoder and decoder are each called with the mask of their own tokens."""
    return {name: Stack(getattr(model.model, name), attention_mask) for name in ("encoder", "decoder")}


def fixed_parameters(model: Any) -> list[nn.Parameter]:
    """All are trained."""
    return []


def rest_macs(config: Any, head: str, volume: Volume) -> int:
    """Everything but the FFNs; see `seq2seq_rest_macs`."""
    return seq2seq_rest_macs(config, config.vocab_size, volume)


def vocabulary(tokenizer: Any) -> dict[str, Any]:
    """The entries of the configuration that follow from the tokenizer."""
    return special_tokens(tokenizer) | {"vocab_size": len(tokenizer)}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE; a text is `<s> ... </s>`."""
    return train_seq2seq_tokenizer(texts, vocab_size, "<s> $A </s>")
