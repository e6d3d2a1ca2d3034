"""FSMT (fairseq's WMT19 transformer): encoder-decoder, time-major inside its layers (WMT19)."""

from collections.abc import Iterable, Mapping
from typing import Any

import transformers
from torch import Tensor, nn

from repro.backbones._seq2seq import (
    bare_ffn_sites,
    seq2seq_rest_macs,
    special_tokens,
    train_seq2seq_tokenizer,
)
from repro.backbones._sites import Stack, attention_mask
from repro.volume import Volume

MODEL_TYPE = "fsmt"
STACKS = ("encoder", "decoder")
CONFIG = transformers.FSMTConfig
HEADS = {"sequence-to-sequence": transformers.FSMTForConditionalGeneration}
INIT_STD = "init_std"
TIME_MAJOR = True

ffn_sites = bare_ffn_sites


def stacks(model: Any) -> dict[str, Stack]:
    """The encoder is called with a mask, the decoder with its inverse."""
    return {
        "encoder": Stack(model.model.encoder, attention_mask),
        "decoder": Stack(model.model.decoder, _decoder_mask),
    }


def _decoder_mask(call: Mapping[str, Any]) -> Tensor | None:
    padding: Tensor | None = call.get("decoder_padding_mask")
    return None if padding is None else ~padding


def fixed_parameters(model: Any) -> list[nn.Parameter]:
    """The tables of sinusoids, which transformers 5 registers as weights; fairseq never trains them."""
    return [stack.embed_positions.weight for stack in (model.model.encoder, model.model.decoder)]


def rest_macs(config: Any, head: str, volume: Volume) -> int:
    """Everything but the FFNs; see `seq2seq_rest_macs`."""
    return seq2seq_rest_macs(config, config.tgt_vocab_size, volume)


def vocabulary(tokenizer: Any) -> dict[str, Any]:
    """The entries of the configuration that follow from the tokenizer, which both languages share."""
    return special_tokens(tokenizer) | {
        "src_vocab_size": len(tokenizer),
        "tgt_vocab_size": len(tokenizer),
    }


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Byte-level BPE shared by both languages; a text is `... </s>`."""
    return train_seq2seq_tokenizer(texts, vocab_size, "$A </s>")
