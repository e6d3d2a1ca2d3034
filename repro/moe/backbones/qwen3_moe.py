"""Qwen 3 MoE: decoder whose layers have MoE blocks, some of them gated networks."""

import transformers

from repro.moe.backbones.base import OwnRouter
from repro.moe.backbones.shared.decoder import (
    DECODER_LAYOUT,
    all_trained,
    decoder_rest_macs,
    decoder_sites,
    decoder_stacks,
    decoder_vocabulary,
    router_of,
    train_decoder_tokenizer,
)

MODEL_TYPE = "qwen3_moe"
STACKS = {"decoder": "num_hidden_layers"}
CONFIG = transformers.Qwen3MoeConfig
HEADS = {"causal-language-model": transformers.Qwen3MoeForCausalLM}
INIT_STD = "initializer_range"
TIME_MAJOR = False
LAYOUT = DECODER_LAYOUT

ffn_sites = decoder_sites
stacks = decoder_stacks
fixed_parameters = all_trained
rest_macs = decoder_rest_macs
vocabulary = decoder_vocabulary
train_tokenizer = train_decoder_tokenizer


def own_router(config: transformers.PreTrainedConfig) -> OwnRouter:
    """Return its k; the model says whether weights are divided by their sum."""
    return router_of(config, renormalised=bool(config.norm_topk_prob))
