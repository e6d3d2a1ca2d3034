"""BART: post-norm encoder-decoder; its layers keep bare `fc1` and `fc2` (CNN/DailyMail)."""

from collections.abc import Iterable

import transformers
from torch import nn

from repro.moe.backbones.base import Layout, Stack
from repro.moe.backbones.shared.dense import no_router
from repro.moe.backbones.shared.masks import attention_mask
from repro.moe.backbones.shared.seq2seq import (
    ATTENTION_HEADS,
    bare_ffn_sites,
    seq2seq_rest_macs,
    special_tokens,
    train_seq2seq_tokenizer,
)
from repro.moe.volume import Volume

MODEL_TYPE = "bart"
STACKS = {"encoder": "encoder_layers", "decoder": "decoder_layers"}
CONFIG = transformers.BartConfig
HEADS = {"sequence-to-sequence": transformers.BartForConditionalGeneration}
INIT_STD = "init_std"
TIME_MAJOR = False
LAYOUT = Layout(heads=ATTENTION_HEADS, dropout="dropout", attention_dropout="attention_dropout")

ffn_sites = bare_ffn_sites
own_router = no_router


def stacks(model: transformers.PreTrainedModel) -> dict[str, Stack]:
    """Return encoder and decoder; each is called with the mask of its own tokens."""
    return {name: Stack(getattr(model.model, name), attention_mask) for name in ("encoder", "decoder")}


def fixed_parameters(model: transformers.PreTrainedModel) -> list[nn.Parameter]:
    """Return none: all are trained."""
    return []


def rest_macs(config: transformers.PreTrainedConfig, head: str, volume: Volume) -> int:
    """Count everything but the FFNs; see `seq2seq_rest_macs`."""
    return seq2seq_rest_macs(config, config.vocab_size, volume)


def vocabulary(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the entries of the configuration that follow from the tokenizer."""
    return special_tokens(tokenizer) | {"vocab_size": len(tokenizer)}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Train byte-level BPE; a text is `<s> ... </s>`."""
    return train_seq2seq_tokenizer(texts, vocab_size, "<s> $A </s>")
