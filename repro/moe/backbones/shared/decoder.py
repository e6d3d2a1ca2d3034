"""What Llama and its relatives share, dense or with MoE blocks: pre-norm decoders of gated networks."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from repro.moe.backbones.base import FFNSite, Layout, OwnRouter, Stack
from repro.moe.backbones.shared.byte_bpe import train_byte_bpe
from repro.moe.backbones.shared.masks import attention_mask
from repro.moe.ffn import FFN
from repro.moe.volume import Volume

_END, _PAD = "<|endoftext|>", "<|padding|>"
DECODER_LAYOUT = Layout(
    heads={"decoder": "num_attention_heads"},
    dropout=None,
    attention_dropout="attention_dropout",
    embedding_norm=False,
    final_norm=True,
    rms_norm=True,
)


def decoder_sites(model: PreTrainedModel) -> Iterator[FFNSite]:
    """Find one site per layer: a gated network, or an MoE block with its router and stacked experts."""
    for layer in model.model.layers:

        def replace(module: nn.Module, layer: Any = layer) -> None:
            layer.mlp = module

        has_experts = hasattr(layer.mlp, "experts")
        yield FFNSite(
            stack="decoder",
            ffn=(_stacked if has_experts else _gated)(layer.mlp, model.config.hidden_act),
            norm=layer.post_attention_layernorm,
            replace=replace,
            router_ED=layer.mlp.gate.weight if has_experts else None,
            attention=layer.self_attn,
        )


def _stacked(block: Any, activation: str) -> FFN:
    return FFN(block.experts.gate_up_proj, None, block.experts.down_proj, None, activation)


def _gated(mlp: Any, activation: str) -> FFN:
    """Join gate and up: a copy of these two, where the last matrix and its bias stay those of the model."""
    gate, up = mlp.gate_proj, mlp.up_proj
    bias = None if gate.bias is None else torch.cat([gate.bias, up.bias]).detach()
    weight = torch.cat([gate.weight, up.weight]).detach()
    return FFN(weight, bias, mlp.down_proj.weight, mlp.down_proj.bias, activation)


def router_of(config: PreTrainedConfig, *, renormalised: bool) -> OwnRouter:
    """Read how the MoE blocks of a model route.

    Args:
        renormalised: whether they divide the weights of the selected experts by their sum.
    """
    return OwnRouter(
        experts=config.num_experts,
        k=config.num_experts_per_tok,
        combine="renormalised" if renormalised else "raw",
    )


def decoder_stacks(model: PreTrainedModel) -> dict[str, Stack]:
    """Return the one decoder."""
    return {"decoder": Stack(model.model, attention_mask)}


def all_trained(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return no fixed parameters: all are trained."""
    return []


def decoder_rest_macs(config: PreTrainedConfig, head: str, volume: Volume) -> int:
    """Count everything but networks and MoE blocks; D V a token for the head.

    With N query heads and K heads of keys and values, each of width h, a layer has 2 (N + K) h D a token
    for its projections and 2 N h a pair of positions for attention. Windows of attention save nothing.
    """
    heads, width = config.num_attention_heads, config.hidden_size
    head_width = getattr(config, "head_dim", None) or width // heads
    projections = 2 * (heads + config.num_key_value_heads) * head_width * width
    attention = projections * volume.decoder + 2 * heads * head_width * volume.decoder_pairs
    return int(config.num_hidden_layers * attention + width * config.vocab_size * volume.decoder)


def decoder_vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the entries of the configuration that follow from the tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def train_decoder_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE, with OLMoE's two special tokens: these models never train the vector of padding.

    Llama 3, OLMoE and Qwen have this kind; Mistral, Mixtral and older Llamas have a relative of it, BPE of
    characters that falls back to bytes.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=train_byte_bpe(texts, vocab_size, [_END, _PAD], template=None),
        bos_token=_END,
        eos_token=_END,
        unk_token=_END,
        pad_token=_PAD,
    )
