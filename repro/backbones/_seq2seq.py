"""What BART and FSMT share: bare FFNs in an encoder and a decoder, and their cost."""

from collections.abc import Iterable, Iterator
from typing import Any

import transformers
from torch import nn

from repro.backbones._bpe import train_byte_bpe
from repro.backbones._sites import FFNSite, refuse_layerdrop, replace_bare_ffn
from repro.volume import Volume


def bare_ffn_sites(model: Any) -> Iterator[FFNSite]:
    """One site per layer, encoder first; the hidden width may differ between the stacks.

    Raises:
        UserError: the model drops whole layers at random.
    """
    refuse_layerdrop(model.config)
    # Post-norm: a network reads the norm behind the attention before it, a decoder's second one.
    for stack, norm in (("encoder", "self_attn_layer_norm"), ("decoder", "encoder_attn_layer_norm")):
        for layer in getattr(model.model, stack).layers:

            def replace(module: nn.Module, layer: Any = layer) -> None:
                replace_bare_ffn(layer, module)

            yield FFNSite(
                stack=stack,
                w1_FD=layer.fc1.weight,
                b1_F=layer.fc1.bias,
                w2_DF=layer.fc2.weight,
                b2_D=layer.fc2.bias,
                activation=model.config.activation_function,
                norm=getattr(layer, norm),
                replace=replace,
            )


def seq2seq_rest_macs(config: Any, target_vocabulary: int, volume: Volume) -> int:
    """Projections (4 D^2 a token), attention (2 D a pair) and the head (D V a target token).

    Cross-attention projects queries and outputs of the target, keys and values of the source.
    """
    width = config.d_model
    encoder = 4 * width * width * volume.encoder + 2 * width * volume.encoder_pairs
    decoder = 4 * width * width * volume.decoder + 2 * width * volume.decoder_pairs
    cross = 2 * width * width * (volume.encoder + volume.decoder) + 2 * width * volume.cross_pairs
    head = width * target_vocabulary * volume.decoder
    return int(config.encoder_layers * encoder + config.decoder_layers * (decoder + cross) + head)


def train_seq2seq_tokenizer(texts: Iterable[str], vocab_size: int, template: str) -> Any:
    """Byte-level BPE shared by source and target, with BART's and FSMT's special tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=train_byte_bpe(texts, vocab_size, special, template=template),
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def special_tokens(tokenizer: Any) -> dict[str, Any]:
    """Entries of the configuration; decoding starts from `</s>`, as in both families' checkpoints."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
    }
