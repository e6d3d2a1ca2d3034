"""Qwen 2 and 2.5, dense: a Llama with biases in its attention."""

import transformers

from repro.moe.backbones.shared.decoder import (
    DECODER_LAYOUT,
    all_trained,
    decoder_rest_macs,
    decoder_sites,
    decoder_stacks,
    decoder_vocabulary,
    train_decoder_tokenizer,
)
from repro.moe.backbones.shared.dense import no_router

MODEL_TYPE = "qwen2"
STACKS = {"decoder": "num_hidden_layers"}
CONFIG = transformers.Qwen2Config
HEADS = {"causal-language-model": transformers.Qwen2ForCausalLM}
INIT_STD = "initializer_range"
TIME_MAJOR = False
LAYOUT = DECODER_LAYOUT

ffn_sites = decoder_sites
own_router = no_router
stacks = decoder_stacks
fixed_parameters = all_trained
rest_macs = decoder_rest_macs
vocabulary = decoder_vocabulary
train_tokenizer = train_decoder_tokenizer
