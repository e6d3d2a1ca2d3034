"""What BART and FSMT share: bare FFNs in an encoder and a decoder, and their cost."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from repro.errors import UserError
from repro.moe.backbones.base import FFNSite
from repro.moe.backbones.shared.byte_bpe import train_byte_bpe
from repro.moe.ffn import FFN
from repro.moe.volume import Volume

ATTENTION_HEADS = {"encoder": "encoder_attention_heads", "decoder": "decoder_attention_heads"}
"""Stack -> how its number of attention heads is called."""


def bare_ffn_sites(model: PreTrainedModel) -> Iterator[FFNSite]:
    """Find one site per layer, encoder first; the hidden width may differ between the stacks.

    Raises:
        UserError: the model drops whole layers at random.
    """
    _refuse_layerdrop(model.config)
    # Post-norm: a network reads the norm behind the attention before it, a decoder's second one.
    for stack, norm in (("encoder", "self_attn_layer_norm"), ("decoder", "encoder_attn_layer_norm")):
        for layer in getattr(model.model, stack).layers:

            def replace(module: nn.Module, layer: Any = layer) -> None:
                _replace_bare_ffn(layer, module)

            yield FFNSite(
                stack=stack,
                ffn=FFN(
                    layer.fc1.weight,
                    layer.fc1.bias,
                    layer.fc2.weight,
                    layer.fc2.bias,
                    model.config.activation_function,
                ),
                norm=getattr(layer, norm),
                replace=replace,
                attention=layer.self_attn,
            )


def _replace_bare_ffn(layer: Any, module: nn.Module) -> None:
    """Put a module in the place of `fc1`, an activation attribute and `fc2` (BART, FSMT).

    The layer would drop activations between its two matrices; behind a whole MoE layer that
    place is its output, so that dropout is turned off.
    """
    layer.fc1 = module
    layer.fc2 = nn.Identity()
    layer.activation_fn = nn.Identity()
    layer.activation_dropout = 0.0


def _refuse_layerdrop(config: PreTrainedConfig) -> None:
    """Check that no layer is skipped at random: it would have no routing to count.

    Raises:
        UserError: the configuration asks for it.
    """
    for name in ("encoder_layerdrop", "decoder_layerdrop"):
        if getattr(config, name):
            raise UserError(f"model.config.{name}: must be 0 for a model with MoE layers")


def seq2seq_rest_macs(config: PreTrainedConfig, target_vocabulary: int, volume: Volume) -> int:
    """Count projections (4 D^2 a token), attention (2 D a pair) and the head (D V a target token).

    Cross-attention projects queries and outputs of the target, keys and values of the source.
    """
    width = config.d_model
    encoder = 4 * width * width * volume.encoder + 2 * width * volume.encoder_pairs
    decoder = 4 * width * width * volume.decoder + 2 * width * volume.decoder_pairs
    cross = 2 * width * width * (volume.encoder + volume.decoder) + 2 * width * volume.cross_pairs
    head = width * target_vocabulary * volume.decoder
    return int(config.encoder_layers * encoder + config.decoder_layers * (decoder + cross) + head)


def train_seq2seq_tokenizer(texts: Iterable[str], vocab_size: int, template: str) -> PreTrainedTokenizerFast:
    """Train byte-level BPE shared by source and target, with BART's and FSMT's special tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=train_byte_bpe(texts, vocab_size, special, template=template),
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return their entries in the configuration; decoding starts from `</s>`, as in both checkpoints."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
    }
