"""FSMT (fairseq's WMT19 transformer): encoder-decoder, time-major inside its layers (WMT19)."""

from collections.abc import Iterable, Mapping
from typing import Any

import transformers
from torch import Tensor, nn

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

MODEL_TYPE = "fsmt"
STACKS = {"encoder": "encoder_layers", "decoder": "decoder_layers"}
CONFIG = transformers.FSMTConfig
HEADS = {"sequence-to-sequence": transformers.FSMTForConditionalGeneration}
INIT_STD = "init_std"
TIME_MAJOR = True
LAYOUT = Layout(
    heads=ATTENTION_HEADS,
    dropout="dropout",
    attention_dropout="attention_dropout",
    fused_attention=False,
    embedding_norm=False,
)

ffn_sites = bare_ffn_sites
own_router = no_router


def stacks(model: transformers.PreTrainedModel) -> dict[str, Stack]:
    """Return encoder and decoder; the encoder is called with a mask, the decoder with its inverse."""
    return {
        "encoder": Stack(model.model.encoder, attention_mask),
        "decoder": Stack(model.model.decoder, _decoder_mask),
    }


def _decoder_mask(call: Mapping[str, Any]) -> Tensor | None:
    padding: Tensor | None = call.get("decoder_padding_mask")
    return None if padding is None else ~padding


def fixed_parameters(model: transformers.PreTrainedModel) -> list[nn.Parameter]:
    """Return the tables of sinusoids: weights in transformers 5, never trained in fairseq."""
    return [stack.embed_positions.weight for stack in (model.model.encoder, model.model.decoder)]


def rest_macs(config: transformers.PreTrainedConfig, head: str, volume: Volume) -> int:
    """Count everything but the FFNs; see `seq2seq_rest_macs`."""
    return seq2seq_rest_macs(config, config.tgt_vocab_size, volume)


def vocabulary(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the entries of the configuration that follow from the tokenizer, which both languages share."""
    return special_tokens(tokenizer) | {
        "src_vocab_size": len(tokenizer),
        "tgt_vocab_size": len(tokenizer),
    }


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Train byte-level BPE shared by both languages; a text is `... </s>`."""
    return train_seq2seq_tokenizer(texts, vocab_size, "$A </s>")
