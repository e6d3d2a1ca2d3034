"""OLMoE: decoder of MoE blocks, 8 of 64 experts a token in OLMoE-1B-7B."""

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

MODEL_TYPE = "olmoe"
STACKS = {"decoder": "num_hidden_layers"}
CONFIG = transformers.OlmoeConfig
HEADS = {"causal-language-model": transformers.OlmoeForCausalLM}
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
    """Return its k; weights are probabilities unless the model says otherwise."""
    return router_of(config, renormalised=bool(config.norm_topk_prob))
