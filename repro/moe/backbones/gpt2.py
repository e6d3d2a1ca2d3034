"""GPT-2: pre-norm decoder; its FFN is one module of two transposed `Conv1D` (wikitext, SODA)."""

from collections.abc import Iterable, Iterator
from typing import Any

import transformers
from torch import nn

from repro.moe.backbones.base import FFNSite, Layout, Stack
from repro.moe.backbones.shared.byte_bpe import train_byte_bpe
from repro.moe.backbones.shared.decoder import decoder_vocabulary
from repro.moe.backbones.shared.dense import no_router
from repro.moe.backbones.shared.masks import attention_mask
from repro.moe.ffn import FFN
from repro.moe.volume import Volume

MODEL_TYPE = "gpt2"
STACKS = {"decoder": "n_layer"}
CONFIG = transformers.GPT2Config
HEADS = {"causal-language-model": transformers.GPT2LMHeadModel}
INIT_STD = "initializer_range"
TIME_MAJOR = False
LAYOUT = Layout(
    heads={"decoder": "n_head"},
    dropout="resid_pdrop",
    attention_dropout="attn_pdrop",
    projections=1,
    embedding_norm=False,
    final_norm=True,
)
END = "<|endoftext|>"

own_router = no_router
vocabulary = decoder_vocabulary


def ffn_sites(model: transformers.PreTrainedModel) -> Iterator[FFNSite]:
    """Find one site per block. `Conv1D` keeps its weight as (in, out); the dropout behind it stays."""
    for block in model.transformer.h:

        def replace(module: nn.Module, block: Any = block) -> None:
            block.mlp = nn.Sequential(module, block.mlp.dropout)

        yield FFNSite(
            stack="decoder",
            ffn=FFN(
                block.mlp.c_fc.weight.t(),
                block.mlp.c_fc.bias,
                block.mlp.c_proj.weight.t(),
                block.mlp.c_proj.bias,
                model.config.activation_function,
            ),
            norm=block.ln_2,
            replace=replace,
            attention=block.attn,
        )


def stacks(model: transformers.PreTrainedModel) -> dict[str, Stack]:
    """Return the one decoder."""
    return {"decoder": Stack(model.transformer, attention_mask)}


def fixed_parameters(model: transformers.PreTrainedModel) -> list[nn.Parameter]:
    """Return none: all are trained."""
    return []


def rest_macs(config: transformers.PreTrainedConfig, head: str, volume: Volume) -> int:
    """Count per layer and token 4 D^2 for the projections and 2 S D for attention; D V for the head."""
    width, layers = config.n_embd, config.n_layer
    attention = layers * (4 * width * width * volume.decoder + 2 * width * volume.decoder_pairs)
    return int(attention + width * config.vocab_size * volume.decoder)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Train byte-level BPE with GPT-2's one special token."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=train_byte_bpe(texts, vocab_size, [END], template=None),
        bos_token=END,
        eos_token=END,
        unk_token=END,
        pad_token=END,
    )
