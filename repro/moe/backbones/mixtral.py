"""Mixtral: decoder of MoE blocks, 2 of 8 experts a token in Mixtral-8x7B."""

from collections.abc import Iterator

import transformers

from repro.errors import UserError
from repro.moe.backbones.base import FFNSite, OwnRouter
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

MODEL_TYPE = "mixtral"
STACKS = {"decoder": "num_hidden_layers"}
CONFIG = transformers.MixtralConfig
HEADS = {"causal-language-model": transformers.MixtralForCausalLM}
INIT_STD = "initializer_range"
TIME_MAJOR = False
LAYOUT = DECODER_LAYOUT

stacks = decoder_stacks
fixed_parameters = all_trained
rest_macs = decoder_rest_macs
vocabulary = decoder_vocabulary
train_tokenizer = train_decoder_tokenizer


def ffn_sites(model: transformers.PreTrainedModel) -> Iterator[FFNSite]:
    """Find one MoE block per layer.

    Raises:
        UserError: the model multiplies the input of its blocks by noise in training, which gates do not.
    """
    if model.config.router_jitter_noise:
        raise UserError("model.config.router_jitter_noise: must be 0 for a model with MoE layers")
    yield from decoder_sites(model)


def own_router(config: transformers.PreTrainedConfig) -> OwnRouter:
    """Return its k; weights of the selected experts always sum to 1."""
    return router_of(config, renormalised=True)
